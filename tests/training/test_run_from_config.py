"""Runs from configuration files, as with `hesse train`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_run import OPTIONS, ORACLE, assert_same_run, record

from hesse.datasets import Dataset, write_dataset
from hesse.errors import ConfigError, FileFormatError, MissingLabelError, RequestError
from hesse.models import load_model
from hesse.runtime.filesystem import lock_file
from hesse.training import load_config, read_log, run_from_config, train
from oracles import labeled, molecules


def data(sizes: list[int], seed: int = 0) -> Dataset:
    """Two structures of every molecule, which form a group."""
    structures = [
        s for k, n in enumerate(sizes) for s in molecules([n, n], seed=seed + k, group=f"molecule-{k}", name="")
    ]
    return labeled(ORACLE, structures)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "train.h5", data([3, 4, 5, 2, 4, 3]))
    return write_config(tmp_path / "run.yaml")


def write_config(path: Path, **changes: Any) -> Path:
    fast = {**OPTIONS, "steps": 6, "data": {"train": "train.h5", "validation_fraction": 0.3}, "output": "out"}
    path.write_text(yaml.safe_dump({**fast, **changes}))
    return path


def test_validation_structures_are_held_out_by_group_and_recorded(path: Path) -> None:
    result = run_from_config(load_config(path), quiet=True)
    out = path.parent / "out"
    assert {p.name for p in out.iterdir()} >= {"model.hesse", "config.yaml", "split.json", "metrics.jsonl"}
    split = json.loads((out / "split.json").read_text())
    parts = {k: v for k, v in (split.get("parts") or split).items() if k in ("train", "validation")}
    groups = {s.id: s.group for s in data([3, 4, 5, 2, 4, 3]).structures}
    train, validation = ({groups[i] for i in parts[name]} for name in ("train", "validation"))
    assert not train & validation
    assert len(train | validation) == 6
    assert load_model(result.model_file).elements
    again = run_from_config(load_config(path), quiet=True)
    assert again.scores == result.scores


def test_the_written_configuration_repeats_the_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Independent of the working folder, and of the folder of the file."""
    monkeypatch.chdir(path.parent)
    run_from_config(load_config("run.yaml"), quiet=True)
    written = load_config("out/config.yaml", ["output=again"])
    run_from_config(written, quiet=True)
    assert_same_run(path.parent / "out", path.parent / "again")


def test_a_refused_run_does_not_change_the_folder(path: Path) -> None:
    run_from_config(load_config(path), quiet=True)
    out = path.parent / "out"
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    for words in (["seed=3"], ["model.features=6"], ["data.validation_fraction=0.5"]):
        with pytest.raises(FileFormatError, match="another configuration"):
            run_from_config(load_config(path, words), quiet=True)
        assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    run_from_config(load_config(path, ["seed=3"]), restart=True, quiet=True)
    assert load_config(out / "config.yaml").seed == 3
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(MissingLabelError, match="hessian"):
        run_from_config(load_config(path, ["weights.hessian=1", "seed=4"]), restart=True, quiet=True)
    other = yaml.safe_load(path.read_text()) | {"init_from": "train.h5"}
    other["data"]["validation_fraction"] = 0.5
    del other["model"]
    (path.parent / "other.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(FileFormatError, match="expected a model file"):
        run_from_config(load_config(path.parent / "other.yaml"), restart=True, quiet=True)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    with pytest.raises(MissingLabelError, match="hessian"):
        run_from_config(load_config(path, ["weights.hessian=1", f"output={path.parent / 'new'}"]), quiet=True)
    assert [p.name for p in (path.parent / "new").iterdir()] == [".lock"]


def test_a_complete_run_says_so(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_from_config(load_config(path), quiet=True)
    run_from_config(load_config(path))
    assert "out: complete after 6 steps, nothing is trained" in capsys.readouterr().err


def test_the_configuration_of_a_run_is_none_of_hesse_train(path: Path) -> None:
    """Its data and output folder would be ignored."""
    with pytest.raises(RequestError, match="configuration of a whole run"):
        train(data([3, 4]), config=load_config(path), output=path.parent / "x")


def test_a_run_that_failed_before_its_first_step_can_be_replaced(path: Path) -> None:
    with pytest.raises(MissingLabelError, match="hessian"):
        run_from_config(load_config(path, ["weights.hessian=1"]), quiet=True)
    write_dataset(path.parent / "train.h5", data([3, 4, 5, 2, 4, 3], seed=9))  # other data under the same name
    assert run_from_config(load_config(path), quiet=True).steps == 6


def test_an_absent_device_is_refused(path: Path) -> None:
    for device in ("abacus", "cuda:99"):
        with pytest.raises(ConfigError, match=f'device "{device}" cannot be used here'):
            run_from_config(load_config(path, [f"device={device}"]), quiet=True)
    assert not (path.parent / "out").exists()


def test_separate_validation_data(path: Path) -> None:
    write_dataset(path.parent / "validation.xyz", data([3, 4], seed=50))
    files = {"train": "train.h5", "validation": "validation.xyz"}
    run_from_config(load_config(write_config(path, data=files)), quiet=True)
    assert not (path.parent / "out" / "split.json").exists()
    assert [row["step"] for row in record(path.parent / "out") if row["kind"] == "validation"] == [4, 6]


@pytest.mark.parametrize("content", [b"", b"not hdf5", None])
def test_data_that_cannot_be_read_are_named(path: Path, content: bytes | None) -> None:
    target = path.parent / "train.h5"
    target.unlink() if content is None else target.write_bytes(content)
    with pytest.raises(RequestError, match=r"train\.h5"):
        run_from_config(load_config(path), quiet=True)


def hesse(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hesse", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_command_line_trains_and_returns_exit_codes(path: Path) -> None:
    done = hesse("train", path, "steps=3", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "model.hesse: best of 3 steps at step 3" in done.stdout
    assert "forces_rmse" in done.stdout
    assert done.stderr == ""
    wrong = hesse("train", path, "optimizer.learning_rat=1e-3")
    assert wrong.returncode == 2
    assert 'no option "learning_rat". Did you mean "learning_rate"?' in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_run_at_work_is_not_touched_by_a_second_one(path: Path) -> None:
    out = path.parent / "out"
    run_from_config(load_config(path), quiet=True)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with lock_file(out / ".lock", "busy"):
        for words, options in ((["seed=3"], {"restart": True}), ([], {})):
            with pytest.raises(RequestError, match="another process is working"):
                run_from_config(load_config(path, words), quiet=True, **options)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_files_of_others_stay_in_the_folder(path: Path) -> None:
    out = path.parent / "out"
    out.mkdir()
    for name in (".notes.part", ".mine.h5.0123abcd.part.h5", ".last.hesse.0123abcd.part.hesse"):
        (out / name).write_text("x")
    run_from_config(load_config(path), quiet=True)
    assert sorted(p.name for p in out.glob(".*.part*")) == [".mine.h5.0123abcd.part.h5", ".notes.part"]


def test_a_damaged_record_is_told_and_kept_aside(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = path.parent / "out"
    run_from_config(load_config(path), quiet=True)
    log = out / "metrics.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:2], b'{"kind": "tr\xff\n', *lines[3:]])
    log.write_bytes(damaged)
    with pytest.raises(FileFormatError, match="line 3 is not a row"):
        read_log(log)
    run_from_config(load_config(path), quiet=True)
    assert "metrics.jsonl: line 3 is damaged" in capsys.readouterr().err
    assert (out / "metrics.jsonl.damaged").read_bytes() == damaged
    assert len(read_log(log)) == len(lines) - 1
