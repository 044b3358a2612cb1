"""Runs that are killed and continued: records and models are bitwise identical to those of an uninterrupted run."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_run import assert_same_run, config, record, run, run_or_exit, tensors, training_data, validation_data

from forked_processes import ForkedProcess
from hesse.errors import FileFormatError, InterruptedRunError, WriteError
from hesse.models import read_model_header
from hesse.runtime.tensor_files import read_header, read_tensors, write_tensors
from hesse.training import read_log, train, trainer
from hesse.training.model_writer import ModelWriter
from hesse.training.validation import Validator

LONG = {"steps": 150, "validate_every": 10, "checkpoint_every": 4}


def lines(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def interrupt_at(folder: Path, process: ForkedProcess, row: int, number: signal.Signals) -> tuple[int, str]:
    """Send a signal when the record has `row` lines, after a short random delay within a step."""
    while lines(folder) < row and process.poll() is None:
        time.sleep(0.002)
    time.sleep(random.Random(row).uniform(0.0, 0.02))
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode is not None
    return process.returncode, errors


@pytest.mark.slow
def test_a_killed_and_continued_run_is_bitwise_identical_to_an_uninterrupted_one(tmp_path: Path) -> None:
    """SIGKILL twice, SIGTERM and SIGINT once each, distributed over the run."""
    uninterrupted, interrupted = tmp_path / "uninterrupted", tmp_path / "interrupted"
    run(uninterrupted, **LONG)
    reached = 0
    for number, row in [(signal.SIGKILL, 13), (signal.SIGTERM, 37), (signal.SIGKILL, 62), (signal.SIGINT, 94)]:
        process = ForkedProcess(run_or_exit, interrupted, LONG, folder=tmp_path)
        status, errors = interrupt_at(interrupted, process, row, number)
        steps = [row["step"] for row in record(interrupted) if row["kind"] == "train"]
        assert steps == list(range(1, len(steps) + 1))
        assert reached <= len(steps) < LONG["steps"], "the signal came too late for this test"
        if number == signal.SIGKILL:
            assert status == -signal.SIGKILL
            reached = len(steps) - LONG["checkpoint_every"]
        else:
            assert status == InterruptedRunError.exit_code
            assert f"InterruptedRunError: stopped by {number.name} after step {len(steps)} of 150" in errors
            assert "The same command continues" in errors
            reached = len(steps)  # no step is lost
    (interrupted / ".checkpoint.safetensors.0000abcd.part.safetensors").write_bytes(b"half written by a killed process")
    run(interrupted, **LONG)
    assert_same_run(uninterrupted, interrupted)
    assert read_model_header(uninterrupted / "model.hesse") == read_model_header(interrupted / "model.hesse")
    assert {p.name for p in interrupted.iterdir()} == {p.name for p in uninterrupted.iterdir()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_and_saves_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    original, before = trainer.Trainer._step, signal.getsignal(number)

    def signalled(self: Any) -> Any:
        if self.state.step == 7:
            signal.raise_signal(number)
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_step", signalled)
        with pytest.raises(InterruptedRunError, match=f"stopped by {number.name} after step 8 of 20"):
            run(tmp_path / "interrupted", checkpoint_every=20)
    assert signal.getsignal(number) == before
    assert (tmp_path / "interrupted" / "checkpoint.safetensors").exists()
    result = run(tmp_path / "interrupted", checkpoint_every=20)
    assert result.steps == 20
    run(tmp_path / "uninterrupted", checkpoint_every=20)
    assert_same_run(tmp_path / "uninterrupted", tmp_path / "interrupted")


class Crash(Exception):
    pass


def crashing_at(monkeypatch: pytest.MonkeyPatch, owner: type, where: str, call: int) -> None:
    """Make the `call`-th call of a method of the run crash: before its work if `call` is odd, otherwise after it."""
    original, count = getattr(owner, where), [0]

    def wrapped(self: Any, *args: Any) -> Any:
        count[0] += 1
        if count[0] == call and call % 2:
            raise Crash
        result = original(self, *args)
        if count[0] == call:
            raise Crash
        return result

    monkeypatch.setattr(owner, where, wrapped)


VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "plateau": {"schedule": {"kind": "plateau", "patience": 0, "factor": 0.7}, "validate_every": 2},
    "no average, no clip": {"optimizer": {"ema_decay": None, "max_grad_norm": None}},
    "tight clip, constant": {"optimizer": {"max_grad_norm": 0.1}, "schedule": {"kind": "constant"}},
    "fresh probes": {"probe": {"source": "fresh", "n_probes": 2, "kind": "gaussian"}},
    "curvature of some": {"curvature": {"fraction": 0.5, "every_n_steps": 2, "probes": 1}},
    "fresh probes of some": {"probe": {"source": "fresh"}, "curvature": {"fraction": 0.4}},
    "full Hessians of some": {"weights": {"hvp": 0.05, "hessian": 0.1}, "curvature": {"fraction": 0.5}},
    "full Hessians, ramp, penalty": {
        "weights": {"hvp": 0, "hessian": 0.1, "regularizer": 0.01},
        "weight_ramps": {"hessian": {"start": 0.2, "end": 0.7}},
    },
    "early stopping": {"early_stopping": 2, "optimizer": {"learning_rate": 0.3}, "validate_every": 1},
    "l = 2, bounded atoms": {"model": {"l_max": 2}, "batch": {"structures": 9, "atoms": 12}},
    "curvature only": {"weights": {"energy": 0, "forces": 0, "hvp": 1}, "batch": {"structures": 1}},
}


FAST = ("float32", "plateau", "curvature of some", "full Hessians, ramp, penalty", "l = 2, bounded atoms")


@pytest.mark.parametrize("name", [v if v in FAST else pytest.param(v, marks=pytest.mark.slow) for v in VARIANTS])
def test_all_kinds_of_runs_are_continued_bitwise_identically(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    changes = {"steps": 12, **VARIANTS[name]}
    run(tmp_path / "uninterrupted", **changes)
    for owner, where, call in [
        (Validator, "hessian_errors", 1),
        (trainer.Trainer, "_step", 5),
        (trainer.Trainer, "_save", 1),
        (Validator, "validate", 2),
        (trainer.Trainer, "_step", 2),
        (trainer.Trainer, "_save", 2),
        (ModelWriter, "write", 1),
    ]:
        with monkeypatch.context() as patch:
            crashing_at(patch, owner, where, call)
            with contextlib.suppress(Crash):
                run(tmp_path / "interrupted", **changes)
    run(tmp_path / "interrupted", **changes)
    assert_same_run(tmp_path / "uninterrupted", tmp_path / "interrupted")


def test_a_run_without_validation_is_continued_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "uninterrupted", validate=False)
    with monkeypatch.context() as patch:
        crashing_at(patch, trainer.Trainer, "_step", 11)
        with pytest.raises(Crash):
            run(tmp_path / "interrupted", validate=False)
    result = run(tmp_path / "interrupted", validate=False)
    assert_same_run(tmp_path / "uninterrupted", tmp_path / "interrupted")
    assert result.steps == result.best_step == 20
    assert {row["kind"] for row in record(tmp_path / "interrupted")} == {"note", "train"}


def test_an_incomplete_last_line_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "uninterrupted")
    with monkeypatch.context() as patch:
        crashing_at(patch, trainer.Trainer, "_step", 8)
        with pytest.raises(Crash):
            run(tmp_path / "interrupted")
    log = tmp_path / "interrupted" / "metrics.jsonl"
    with log.open("a") as handle:
        handle.write('{"kind": "train", "step": 8, "lo')
    assert len(read_log(log)) == log.read_text().count("\n")
    run(tmp_path / "interrupted")
    assert record(tmp_path / "interrupted") == record(tmp_path / "uninterrupted")


def test_tensorboard_drops_the_steps_that_are_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with monkeypatch.context() as patch:
        crashing_at(patch, trainer.Trainer, "_step", 9)
        with pytest.raises(Crash):
            run(tmp_path, tensorboard=True, checkpoint_every=6)
    run(tmp_path, tensorboard=True, checkpoint_every=6)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("train/loss")] == list(range(1, 21))


def test_running_a_finished_run_again_changes_nothing(tmp_path: Path) -> None:
    first = run(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    header = read_model_header(tmp_path / "last.hesse")
    second = run(tmp_path)
    assert second.steps == first.steps
    assert second.scores == first.scores
    assert second.best_step == first.best_step
    assert read_model_header(tmp_path / "last.hesse") == header
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    for name in ("metrics.jsonl", "checkpoint.safetensors"):
        assert after[name] == before[name]
    for name in ("model.hesse", "last.hesse"):
        assert read_model_header(tmp_path / name)["provenance"]["metrics"]


def test_restart_begins_again(tmp_path: Path) -> None:
    run(tmp_path / "one")
    run(tmp_path / "two", seed=5, steps=8)
    with pytest.raises(FileFormatError):
        run(tmp_path / "two")
    run(tmp_path / "two", restart=True)
    assert_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"weights": {"energy": 2.0}}, {"batch": {"structures": 4}}, {"dtype": "float32"}],
    ids=str,
)
def test_another_configuration_in_the_same_folder_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    run(tmp_path, steps=3)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(FileFormatError, match=r"another configuration or other data.*--restart"):
        run(tmp_path, **{"steps": 3, **changes})
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_other_data_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    short = config(steps=3)
    train(training_data(), validation_data(), short, output=tmp_path, quiet=True)
    for training, validation in [
        (training_data(seed=2), validation_data()),
        (training_data(), None),
        (training_data(), validation_data().select([0, 1])),
        (training_data().select(list(reversed(range(10)))), validation_data()),
    ]:
        with pytest.raises(FileFormatError, match="other data"):
            train(training, validation, short, output=tmp_path, quiet=True)


def test_options_that_change_no_numbers_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "uninterrupted")
    with monkeypatch.context() as patch:
        crashing_at(patch, trainer.Trainer, "_step", 9)
        with pytest.raises(Crash):
            run(tmp_path / "interrupted", checkpoint_every=2)
    run(tmp_path / "interrupted", checkpoint_every=5)
    assert record(tmp_path / "interrupted") == record(tmp_path / "uninterrupted")


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "flipped", "a model"])
def test_a_damaged_checkpoint_is_reported_and_restart_helps(tmp_path: Path, damage: str) -> None:
    run(tmp_path, steps=4)
    path = tmp_path / "checkpoint.safetensors"
    content = path.read_bytes()
    contents = {
        "truncated": content[: len(content) // 2],
        "empty": b"",
        "text": b"step: 4",
        "flipped": content[:-50] + bytes([content[-50] ^ 0x55]) + content[-49:],
        "a model": (tmp_path / "model.hesse").read_bytes(),
    }
    path.write_bytes(contents[damage])
    with pytest.raises(FileFormatError, match=r"checkpoint\.safetensors: damaged checkpoint .*--restart"):
        run(tmp_path, steps=4)
    run(tmp_path, steps=4, restart=True)


def test_a_checkpoint_of_an_older_version_gets_a_reply(tmp_path: Path) -> None:
    run(tmp_path, steps=2)
    path = tmp_path / "checkpoint.safetensors"
    header = {name: text for name, text in read_header(path, "checkpoint").items() if name != "digest"}
    state = json.loads(header["state"])
    state["progress"]["waited"] = state["progress"].pop("n_without_improvement")  # as in format 1
    write_tensors(path, {**header, "version": "1", "state": json.dumps(state)}, read_tensors(path, "checkpoint"))
    with pytest.raises(FileFormatError, match=r"a checkpoint of format 1; .* reads format 3\. Finish .* --restart"):
        run(tmp_path, steps=2)
    run(tmp_path, steps=2, restart=True)


def test_a_full_disk_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "uninterrupted")
    original, count = Path.write_bytes, [0]

    def sometimes_full(self: Path, data: bytes) -> int:
        count[0] += "checkpoint" in self.name
        if "checkpoint" in self.name and count[0] == 3:
            original(self, data[:100])
            raise OSError(28, "No space left on device")
        return original(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", sometimes_full)
        with pytest.raises(WriteError, match=r"checkpoint\.safetensors: No space left"):
            run(tmp_path / "interrupted")
    assert len(tensors(tmp_path / "interrupted" / "checkpoint.safetensors")) > 10
    run(tmp_path / "interrupted")
    assert_same_run(tmp_path / "uninterrupted", tmp_path / "interrupted")
