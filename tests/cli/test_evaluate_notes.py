"""Notes of `hesse evaluate` about the data: structures of the training, data without groups, what a suite needs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import hesse
from commands_in_process import Run
from hesse.datasets import Dataset, read_dataset, write_dataset
from hesse.errors import MissingLabelError, RequestError
from hesse.evaluation.independence import independence_note
from hesse.recipes import judging
from hesse.training import TrainResult, load_config
from hesse.training.config_file import run_from_config
from oracles import Morse, labeled, molecules

OPTIONS = {
    "compile": "never",
    "model": {
        "kind": "hipnn", "features": 4, "sensitivities": 4, "blocks": 1, "onsite_layers": 1, "cutoff": 4.0,
        "longest": 3.5,
    },
    "steps": 2,
    "validate_every": 2,
    "dtype": "float64",
    "cpu_threads": 1,
}  # fmt: skip
LOOSE = "no groups in the data: intervals treat every structure as independent, though there are only"


@pytest.fixture
def run(run: Run) -> Run:
    """The command line in this process, with its messages in one line."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code, out, err = run(*arguments)
        return code, out, " ".join(err.split())

    return call


def grouped(n: int, seed: int) -> Dataset:
    """Two geometries of each of n molecules, with different compositions."""
    structures = [
        s for k in range(n) for s in molecules([3 + k % 3] * 2, seed=seed + k, group=f"molecule-{seed + k}", name="")
    ]
    return labeled(Morse(depth=1.0, width=1.2), structures)


def without_groups(data: Dataset, n_compositions: int) -> Dataset:
    """The same as frames of a few molecules, of which the file does not say so."""
    chosen = data.structures[: 2 * n_compositions]
    frames = [
        replace(s, id=f"frame-{k}-{j}", group="", positions=s.positions + 0.01 * k)
        for k in range(3)
        for j, s in enumerate(chosen[::2])
    ]
    return labeled(Morse(depth=1.0, width=1.2), frames)


@pytest.fixture
def trained(tmp_path: Path) -> TrainResult:
    """A run of which a third was held out."""
    write_dataset(tmp_path / "lab.h5", grouped(6, 0))
    config = {**OPTIONS, "data": {"train": "lab.h5", "validation_fraction": 0.3}, "output": "run"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    return run_from_config(load_config(tmp_path / "run.yaml"), quiet=True)


def test_structures_that_were_trained_on_are_counted(run: Run, trained: TrainResult, tmp_path: Path) -> None:
    n_train = len(hesse.read_dataset(tmp_path / "lab.h5")) - len(_held_out(tmp_path / "run"))
    page = tmp_path / "page.html"
    code, _, err = run("evaluate", tmp_path / "run", tmp_path / "lab.h5", "--page", page)
    assert code == 0
    expected = f"{n_train} of 12 structures were trained on (the same geometry is in the training data)"
    assert f"note: lab: {expected}" in err
    assert expected in page.read_text()
    assert expected in run("evaluate", trained.model_file, tmp_path / "lab.h5")[2]
    for model in (trained, trained.model_file, tmp_path / "run", str(tmp_path / "run")):
        assert any(expected in note for note in hesse.evaluate(model, tmp_path / "lab.h5").notes)
    renamed = read_dataset(tmp_path / "lab.h5")
    moved = [replace(s, id=f"x{k}", positions=s.positions + 5.0) for k, s in enumerate(renamed.structures)]
    write_dataset(tmp_path / "moved.h5", Dataset(moved, renamed.labels))
    assert expected in run("evaluate", tmp_path / "run", tmp_path / "moved.h5")[2], "geometries count, not names"
    write_dataset(tmp_path / "new.h5", grouped(3, 30))
    assert "trained on" not in run("evaluate", tmp_path / "run", tmp_path / "new.h5")[2]
    assert "were trained on" not in run("evaluate", tmp_path / "run", "--split", "train")[2], "that was asked for"
    record = json.loads((tmp_path / "run" / "data.json").read_text())
    record["parts"]["train"]["memory_mib"] = 1.0
    (tmp_path / "run" / "data.json").write_text(json.dumps(record))
    assert "streamed its training data" in run("evaluate", tmp_path / "run", tmp_path / "new.h5")[2]


def test_training_data_that_are_gone(run: Run, trained: TrainResult, tmp_path: Path) -> None:
    write_dataset(tmp_path / "new.h5", grouped(3, 30))
    training = hesse.training.run_data(tmp_path / "run", "train")
    write_dataset(tmp_path / "train.h5", training)
    (tmp_path / "lab.h5").unlink()
    code, _, err = run("evaluate", tmp_path / "run", tmp_path / "new.h5")
    assert code == 0
    assert "it was not checked whether structures were trained on: the training data of" in err
    shutil.copy(trained.model_file, tmp_path / "other.hesse")  # the file alone knows the hash of its data
    assert f"all {len(training)} structures were trained on" in run(
        "evaluate", tmp_path / "other.hesse", tmp_path / "train.h5"
    )[2]  # fmt: skip
    assert "trained on" not in run("evaluate", tmp_path / "other.hesse", tmp_path / "new.h5")[2]


def _held_out(folder: Path) -> tuple[str, ...]:
    return hesse.training.run_data(folder, "validation").ids


def test_data_without_groups_are_noted(run: Run, trained: TrainResult, tmp_path: Path) -> None:
    write_dataset(tmp_path / "frames.h5", without_groups(grouped(3, 30), 3))
    page = tmp_path / "page.html"
    code, _, err = run("evaluate", tmp_path / "run", tmp_path / "frames.h5", "--page", page)
    assert code == 0
    assert f"note: frames: {LOOSE} 3 compositions" in err
    text = page.read_text()
    assert LOOSE in text
    assert "On frames, 9 structures:" in text
    assert "9 groups" not in text
    assert "9 structures</small>" in text
    write_dataset(tmp_path / "grouped.h5", grouped(3, 30))
    assert "groups" not in run("evaluate", tmp_path / "run", tmp_path / "grouped.h5")[2]


def test_what_counts_as_independent() -> None:
    data = grouped(3, 30)
    assert independence_note(data.structures) is None
    loose = without_groups(data, 1).structures
    assert (independence_note(loose) or "").startswith(f"{LOOSE} structures of one composition")
    assert independence_note(loose[:1]) is None
    mixed = independence_note([*data.structures, *loose])
    assert mixed is not None
    assert mixed.startswith("3 of 9 structures have no group: intervals treat each of them as independent")
    assert independence_note([replace(s, group=s.id) for s in loose]) == independence_note(loose)


def test_dynamics_of_frames_are_not_those_of_molecules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "DYNAMICS", hesse.pes.ReplicaSettings(ramp="fast", interval=0.001, ceiling=900.0))
    result = hesse.evaluate(
        Morse(depth=1.0, width=1.2), without_groups(grouped(3, 30), 1), suite="dynamics", limit=1, replicas=1
    )
    assert any("dynamics of 1 of 3 structures was run" in note for note in result.notes)


@pytest.mark.parametrize("suite", ["reactions", "curvature"])
def test_a_suite_is_checked_before_the_work(
    run: Run, trained: TrainResult, tmp_path: Path, suite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_work(*_: object, **__: object) -> None:
        raise AssertionError("errors were computed first")

    monkeypatch.setattr(judging, "evaluate_model", no_work)
    with pytest.raises(MissingLabelError, match=rf"lab\.h5: .*suite {suite}"):
        hesse.evaluate(trained, tmp_path / "lab.h5", suite=suite)  # type: ignore[arg-type]
    write_dataset(tmp_path / "new.h5", grouped(3, 30))
    for files in ((tmp_path / "lab.h5",), (tmp_path / "lab.h5", tmp_path / "new.h5")):
        code, out, err = run("evaluate", tmp_path / "run", *files, "--suite", suite)
        assert (code, out) == (2, "")
        assert f"suite {suite}" in err


def test_data_without_labels_are_refused_before_the_work(
    run: Run, trained: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare.h5"
    write_dataset(bare, Dataset.from_pairs((s, hesse.Properties.single(len(s))) for s in grouped(2, 30).structures))
    monkeypatch.setattr(judging, "evaluate_model", None)
    code, _, err = run("evaluate", tmp_path / "run", tmp_path / "lab.h5", bare)
    assert code == 2
    assert "bare.h5: no structure has an energy, forces" in err


def test_several_files_in_python_get_a_reply(trained: TrainResult, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"expected one data set, got 2 files.*for file in files"):
        hesse.evaluate(trained, [str(tmp_path / "lab.h5"), tmp_path / "b.h5"])  # type: ignore[list-item]
