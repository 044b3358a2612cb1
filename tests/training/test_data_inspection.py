"""What a run says about its data before the first step: shared structures, outliers, levels of theory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_run_from_config import data as grouped
from test_run_from_config import hesse, write_config
from tiny_run import ORACLE, config, record

from hesse.datasets import Dataset, write_dataset
from hesse.errors import LabelValueError, RequestError
from hesse.structures import Structure
from hesse.training import load_config, train
from hesse.training.config_file import run_from_config
from hesse.training.data_inspection import inspect_data, level_messages, shared_structure_messages
from oracles import labeled, molecules, rotation


def data(n: int = 12, seed: int = 1) -> Dataset:
    return labeled(ORACLE, molecules([3 + k % 3 for k in range(n)], seed=seed))


def turned(structure: Structure, name: str) -> Structure:
    """The same molecule in another frame, with its atoms in reverse order."""
    positions = structure.positions @ rotation(5) + 1.0
    return replace(structure, id=name, positions=positions[::-1], numbers=structure.numbers[::-1])


def test_different_data_have_no_message() -> None:
    assert inspect_data(data(), data(seed=2), config()) == []
    assert inspect_data(data(), None, config()) == []


def test_some_shared_structures_are_counted_and_named() -> None:
    training = data()
    copies = [training.structures[4], turned(training.structures[7], "copy")]
    validation = labeled(ORACLE, [*data(3, seed=2).structures, *copies])
    (message,) = shared_structure_messages(training, validation)
    assert message.startswith("warning: 2 of 5 validation structures are in the training data too")
    assert f'"{training.ids[4]}", "copy" ("{training.ids[7]}" in the training data)' in message


def test_all_shared_structures_are_refused(tmp_path: Path) -> None:
    training = data()
    validation = labeled(ORACLE, [turned(s, f"copy-{k}") for k, s in enumerate(training.structures[:7])])
    with pytest.raises(RequestError, match="all 7 validation structures are training structures too") as refused:
        train(training, validation, config(), output=tmp_path / "run", quiet=True)
    assert '"copy-0" ("molecule-3-1000" in the training data)' in str(refused.value)
    assert "and 2 more" in str(refused.value)
    allowed = config(steps=2, allow_shared_structures=True)
    train(training, validation, allowed, output=tmp_path / "run", quiet=True)
    notes = [row["text"] for row in record(tmp_path / "run") if row["kind"] == "note"]
    assert any("warning: 7 of 7 validation structures are in the training data too" in note for note in notes)


def test_equal_ids_of_other_geometries_are_told() -> None:
    training = data()
    validation = labeled(ORACLE, [replace(s, id=training.ids[k]) for k, s in enumerate(data(3, seed=2).structures)])
    (message,) = shared_structure_messages(training, validation)
    assert message.startswith("warning: 3 ids of validation structures are ids of other geometries")


def test_levels_of_theory() -> None:
    one, two = (replace(data(), metadata={"level": level}) for level in ("GFN2-xTB", "wB97X/6-31G(d)"))
    assert level_messages(one, one) == []
    assert level_messages(one, replace(data(), metadata={})) == []
    assert "GFN2-xTB, the validation labels of wB97X/6-31G(d)" in level_messages(one, two)[0]
    joined = one + replace(two, structures=tuple(replace(s, id=f"b-{s.id}") for s in two.structures))
    assert "different levels of theory: GFN2-xTB; wB97X/6-31G(d)" in level_messages(joined, None)[0]


def with_energy(plain: Dataset, index: int, energy: float) -> Dataset:
    assert plain.labels.energy is not None
    energies = plain.labels.energy.clone()
    energies[index] = energy
    return replace(plain, labels=plain.labels.replace(energy=energies))


def test_an_impossible_energy_is_refused_before_any_step(tmp_path: Path) -> None:
    with pytest.raises(LabelValueError) as refused:
        train(with_energy(data(), 4, 1e9), None, config(), output=tmp_path, quiet=True)
    assert '"molecule-4-1004" (energy 1e+09 eV) (1 of 12 training structures)' in str(refused.value)
    assert "--flag-suspect" in str(refused.value)
    assert not (tmp_path / "model.hesse").exists()
    with pytest.raises(LabelValueError, match="of 12 validation structures"):
        inspect_data(data(), with_energy(data(seed=2), 3, -1e9), config())


def test_labels_that_are_not_used_are_not_judged() -> None:
    wrong = with_energy(data(), 4, 1e9)
    assert inspect_data(wrong, None, config(weights={"energy": 0.0})) == []


def test_an_outlier_is_named_with_what_is_typical() -> None:
    plain = data(30)
    (message,) = inspect_data(with_energy(plain, 4, 900.0), None, config())
    assert message.startswith("warning: training data: energies far from those of the other structures")
    assert '"molecule-4-1004" (energy 900 eV, 22' in message
    assert "1 of 30 structures" in message
    forces = plain.labels.forces
    assert forces is not None
    forces = forces.clone()
    forces[0] = torch.tensor([0.0, 0.0, 2e3])
    (message,) = inspect_data(replace(plain, labels=plain.labels.replace(forces=forces)), None, config())
    assert '"molecule-3-1000" (forces 2000 eV/Å)' in message


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "train.h5", grouped([3, 4, 5, 2, 4, 3]))
    write_dataset(tmp_path / "more.h5", grouped([3, 4], seed=20))
    write_dataset(tmp_path / "validation.h5", grouped([4, 3], seed=40))
    return write_config(tmp_path / "run.yaml")


def test_the_same_file_twice_is_refused_before_it_is_read(path: Path) -> None:
    (path.parent / "link.h5").symlink_to(path.parent / "train.h5")
    for validation in ("train.h5", "link.h5", ["validation.h5", "./train.h5"]):
        settings = load_config(write_config(path, data={"train": ["train.h5", "more.h5"], "validation": validation}))
        with pytest.raises(RequestError, match=r"is in data\.train and in data\.validation"):
            run_from_config(settings, quiet=True)


def test_several_files_are_the_joined_file(path: Path) -> None:
    """Words, lists and `hesse convert` give the same run, whose hash covers all files."""
    folder = path.parent
    joined = grouped([3, 4, 5, 2, 4, 3]) + grouped([3, 4], seed=20)
    write_dataset(folder / "all.h5", joined)
    lists = {"train": ["train.h5", "more.h5"], "validation": ["validation.h5"]}
    one = run_from_config(load_config(write_config(path, data=lists, output="lists")), quiet=True)
    words = [f"data.train={folder}/train.h5,{folder}/more.h5", f"output={folder}/words"]
    two = run_from_config(load_config(path, words), quiet=True)
    single = {"train": "all.h5", "validation": "validation.h5"}
    three = run_from_config(load_config(write_config(path, data=single, output="single")), quiet=True)
    assert one.scores == two.scores == three.scores
    record = json.loads((folder / "lists" / "data.json").read_text())["parts"]
    assert record["train"]["files"] == [str(folder / "train.h5"), str(folder / "more.h5")]
    assert record["train"]["data_hash"] == joined.content_hash()
    assert record["train"]["structures"] == 16
    again = load_config(folder / "lists" / "config.yaml")
    assert again.data.train_files == (folder / "train.h5", folder / "more.h5")
    assert run_from_config(again, quiet=True).scores == one.scores


def test_a_list_in_python(path: Path) -> None:
    folder = path.parent
    files = [folder / "train.h5", str(folder / "more.h5")]
    one = train(files, [folder / "validation.h5"], config(steps=4), output=folder / "a", quiet=True)
    joined = grouped([3, 4, 5, 2, 4, 3]) + grouped([3, 4], seed=20)
    two = train(joined, folder / "validation.h5", config(steps=4), output=folder / "b", quiet=True)
    assert one.scores == two.scores


def test_a_path_with_a_comma_is_one_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path.parent / "train.h5").rename(path.parent / "a,b.h5")
    monkeypatch.chdir(path.parent)
    assert load_config(path, ["data.train=a,b.h5"]).data.train_files == (Path("a,b.h5"),)
    assert load_config(path, ["data.train=a.h5, b.h5"]).data.train_files == (Path("a.h5"), Path("b.h5"))
    assert load_config(path, ["data.train=[a.h5, b.h5]"]).data.train_files == (Path("a.h5"), Path("b.h5"))


@pytest.mark.slow
def test_the_command_line_says_it(path: Path) -> None:
    shared = grouped([3, 4, 5, 2, 4, 3]).select([0, 5]) + grouped([4], seed=40)
    write_dataset(path.parent / "validation.h5", shared)
    write_config(path, steps=2, data={"train": "train.h5", "validation": "validation.h5"})
    done = hesse("train", path)
    assert done.returncode == 0, done.stderr
    assert "warning: 2 of 4 validation structures are in the training data too" in done.stderr
    refused = hesse("train", path, f"data.validation={path.parent}/train.h5", "--restart")
    assert refused.returncode == 2
    assert "is in data.train and in data.validation" in refused.stderr
    assert "Traceback" not in refused.stderr
