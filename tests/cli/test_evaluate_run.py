"""`hesse evaluate RUN --split`, and the tables of the worst molecules and structures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from commands_in_process import Run
from hesse.datasets import Dataset, Split, read_dataset, write_dataset
from hesse.errors import FileFormatError
from hesse.models import best_model
from hesse.training import TrainResult, load_config, train
from hesse.training.config_file import run_from_config
from hesse.training.run_data import run_data
from oracles import Morse, labeled, molecules

OPTIONS = {
    "compile": "never",
    "model": {
        "kind": "hipnn", "features": 4, "sensitivities": 4, "blocks": 1, "onsite_layers": 1, "cutoff": 4.0,
        "longest": 3.5,
    },
    "steps": 4,
    "validate_every": 2,
    "dtype": "float64",
    "cpu_threads": 1,
}  # fmt: skip


def grouped(n: int, seed: int) -> Dataset:
    structures = [
        s for k in range(n) for s in molecules([3 + k % 3] * 2, seed=seed + k, group=f"molecule-{seed + k}", name="")
    ]
    return labeled(Morse(depth=1.0, width=1.2), structures)


def trained(folder: Path, **data: object) -> TrainResult:
    write_dataset(folder / "a.h5", grouped(7, 0))
    write_dataset(folder / "b.h5", grouped(3, 20))
    write_dataset(folder / "c.h5", grouped(2, 40))
    (folder / "run.yaml").write_text(yaml.safe_dump({**OPTIONS, "data": data, "output": "run"}))
    return run_from_config(load_config(folder / "run.yaml"), quiet=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run on two files, of which a third is held out."""
    trained(tmp_path, train=["a.h5", "b.h5"], validation_fraction=0.3)
    return tmp_path / "run"


def test_what_was_held_out_is_judged(run: Run, tmp_path: Path) -> None:
    result = trained(tmp_path, train=["a.h5", "b.h5"], validation_fraction=0.3)
    target = tmp_path / "errors.json"
    code, out, err = run("evaluate", tmp_path / "run", "--split", "validation", "--json", target, "--quiet")
    assert (code, err) == (0, "")
    values = {r["property"]: r["value"] for r in json.loads(target.read_text()) if r["metric"] == "rmse"}
    for name in ("energy", "energy_per_atom", "forces"):  # those of the best model, as the run computed them
        assert values[name] == pytest.approx(result.scores[f"{name}_rmse"], rel=1e-9)
    assert "run/validation" in out
    held_out = Split.read(tmp_path / "run" / "split.json").parts["validation"]
    assert run_data(tmp_path / "run").ids == held_out
    assert len(run_data(tmp_path / "run", "training")) == 20 - len(held_out)


def test_a_separate_validation_file(run: Run, tmp_path: Path) -> None:
    trained(tmp_path, train="a.h5", validation=["b.h5", "c.h5"])
    assert len(run_data(tmp_path / "run")) == 10
    assert run_data(tmp_path / "run", "train").ids == read_dataset(tmp_path / "a.h5").ids
    assert run("evaluate", tmp_path / "run", "--split", "validation", "--quiet")[0] == 0


def test_a_run_without_validation_says_so(run: Run, tmp_path: Path) -> None:
    trained(tmp_path, train="a.h5", validation_fraction=0)
    code, _, err = run("evaluate", tmp_path / "run", "--split", "validation")
    assert code == 2
    assert 'has no part "validation". It was trained without validation data' in err


def test_a_run_folder_is_its_best_model(run: Run, folder: Path) -> None:
    one = run("evaluate", folder, folder.parent / "c.h5", "--quiet")
    two = run("evaluate", folder / "model.hesse", folder.parent / "c.h5", "--quiet")
    assert one == two
    assert one[0] == 0


def test_further_parts_of_the_split_can_be_named(run: Run, folder: Path) -> None:
    split = Split.read(folder / "split.json")
    parts = dict(split.parts)
    Split({**parts, "train": parts["train"][2:], "test": parts["train"][:2]}, split.content_hash).write(
        folder / "split.json"
    )
    assert run_data(folder, "test").ids == parts["train"][:2]
    assert run("evaluate", folder, "--split", "test", "--quiet")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "reply"),
    [
        (("{run}", "--split", "test"), 'no part "test". Valid: train, validation'),
        (("{run}", "--split", "validaton"), 'Did you mean "validation"?'),
        (("{run}",), "--split validation`"),
        (("{run}/model.hesse", "--split", "validation"), "no folder of a run"),
        (("{folder}", "--split", "validation"), "no folder of a run"),
        (("{run}", "{folder}/c.h5", "--split", "validation"), "not the data that"),
        (("{run}", "{folder}/c.h5", "--rank-by", "force"), 'Did you mean "forces"?'),
        (("{run}", "{folder}/c.h5", "--json", "{folder}/x.json", "--groups", "{folder}/x.json"), "a file of its own"),
        (("{run}", "{folder}/c.h5", "--groups", "{folder}/none/x.json"), "no folder"),
        (("{run}", "{folder}/c.h5", "--structures", "{folder}/c.h5"), "c.h5"),
        (("{run}", "{folder}/c.h5", "--worst", "-1"), "--worst"),
    ],
)
def test_wrong_requests(run: Run, folder: Path, arguments: tuple[str, ...], reply: str) -> None:
    before = (folder.parent / "c.h5").read_bytes()
    code, out, err = run("evaluate", *(a.format(run=folder, folder=folder.parent) for a in arguments))
    assert code == 2
    assert reply in " ".join(err.replace("│", " ").split())
    assert out == ""
    assert (folder.parent / "c.h5").read_bytes() == before


def test_changed_or_missing_data_get_a_reply(run: Run, folder: Path) -> None:
    path = folder.parent / "b.h5"
    path.rename(folder.parent / "moved.h5")
    code, _, err = run("evaluate", folder, "--split", "validation")
    assert code == 2
    assert "b.h5: there is no such file; this run was started with it" in err
    moved = (folder.parent / "a.h5", folder.parent / "moved.h5")
    assert run("evaluate", folder, *moved, "--split", "validation", "--quiet")[0] == 0
    code, _, err = run("evaluate", folder, *reversed(moved), "--split", "validation")
    assert code == 2
    assert "in this order" in err
    write_dataset(path, grouped(3, 21))
    code, _, err = run("evaluate", folder, "--split", "validation")
    assert code == 2
    assert "not the data that" in err


def test_runs_from_python_and_damaged_records(tmp_path: Path, folder: Path) -> None:
    train(grouped(3, 0), None, {**OPTIONS, "steps": 2}, output=tmp_path / "python", quiet=True)
    with pytest.raises(FileFormatError, match="started from Python"):
        run_data(tmp_path / "python", "train")
    assert best_model(tmp_path / "python") == tmp_path / "python" / "model.hesse"
    (tmp_path / "python" / "model.hesse").unlink()
    with pytest.raises(FileFormatError, match="without a model"):
        best_model(tmp_path / "python")
    for text in ("", "[]", '{"format": "hesse-run-data", "version": 9}', '{"format": "hesse-run-data", "version": 1}'):
        (folder / "data.json").write_text(text)
        with pytest.raises(FileFormatError, match="cannot be read as the record of a run"):
            run_data(folder)
    (folder / "data.json").write_text('{"format": "hesse-run-data", "version": 1, "parts": {"train": 3}}')
    with pytest.raises(FileFormatError, match="cannot be read as the record of a run"):
        run_data(folder)


def test_a_streamed_run_is_judged_too(run: Run, tmp_path: Path) -> None:
    write_dataset(tmp_path / "long.h5", grouped(100, 0))
    result = trained(tmp_path, train="long.h5", validation_fraction=0.1, memory_mib=0.3)
    target = tmp_path / "errors.json"
    assert run("evaluate", tmp_path / "run", "--split", "validation", "--json", target, "--quiet")[0] == 0
    values = {r["property"]: r["value"] for r in json.loads(target.read_text()) if r["metric"] == "rmse"}
    assert values["energy"] == pytest.approx(result.scores["energy_rmse"], rel=1e-9)


def test_a_part_that_is_larger_than_the_limit_is_read(tmp_path: Path) -> None:
    write_dataset(tmp_path / "long.h5", grouped(100, 0))
    trained(tmp_path, train="long.h5", validation_fraction=0.1, memory_mib=0.3)
    part, whole = run_data(tmp_path / "run", "train"), read_dataset(tmp_path / "long.h5")
    held_out = set(run_data(tmp_path / "run").ids)
    assert part.ids == tuple(name for name in whole.ids if name not in held_out)
    assert part.content_hash() == whole.with_ids(part.ids).content_hash()
    assert part.metadata == whole.metadata


def test_tables_of_the_worst_and_their_files(run: Run, folder: Path) -> None:
    groups, structures = folder.parent / "groups.json", folder.parent / "structures.json"
    options = ("--groups", groups, "--structures", structures, "--worst", "2", "--quiet")
    code, out, _ = run("evaluate", folder, folder.parent / "b.h5", *options)
    assert code == 0
    assert "b · worst 2 of 3 groups by forces" in out
    assert "b · worst 2 of 6 structures by forces" in out
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("molecule-")]
    assert len(listed) == 4
    assert set(listed[:2]) < {"molecule-20", "molecule-21", "molecule-22"}
    assert set(listed[2:]) < set(read_dataset(folder.parent / "b.h5").ids)
    rows = json.loads(groups.read_text())
    types = {"dataset": str, "group": str, "property": str, "metric": str, "value": float, "unit": str, "n": int,
             "structures": int}  # fmt: skip
    assert all({k: type(v) for k, v in row.items()} == types for row in rows)
    assert {row["group"] for row in rows} == {"molecule-20", "molecule-21", "molecule-22"}
    details = json.loads(structures.read_text())
    assert list(details[0]) == ["dataset", "id", "group", "tag", "property", "metric", "value", "unit", "n"]
    assert len({row["id"] for row in details}) == 6
    plain = run("evaluate", folder, folder.parent / "b.h5", "--worst", "0", "--quiet")[1]
    assert "worst" not in plain
    sorted_by_energy = run("evaluate", folder, folder.parent / "b.h5", "--rank-by", "energy_per_atom", "--quiet")[1]
    assert "by energy per atom" in sorted_by_energy
