"""The recipe teacher-student, tiny: any potential as teacher, any mix of targets, replies before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_recipe import TRAINING, data

from hesse.curvature import evaluate_structures
from hesse.datasets import Dataset, read_dataset
from hesse.errors import (
    ConfigError,
    FileFormatError,
    InconsistentLabelsError,
    MissingLabelError,
    RequestError,
    UnknownElementError,
    UnknownOptionError,
)
from hesse.models import Hipnn, HipnnConfig, fit_reference_energies, load_model, save_model
from hesse.recipes.protocols import run_recipe
from hesse.structures import Request, segment_ids
from hesse.training import train

NAME = "teacher-student"
REFERENCES = torch.tensor([-13.0, -1030.0, -2040.0], dtype=torch.float64)


def network(folder: Path, seed: int = 1, *, elements: tuple[int, ...] = (1, 6, 8), level: str = "") -> str:
    """The file of a network that is larger than the student."""
    torch.manual_seed(seed)
    potential = Hipnn(HipnnConfig(features=8, l_max=0), elements, REFERENCES[: len(elements)]).double()
    path = folder / f"teacher-{seed}-{len(elements)}-{level or 'unknown'}.hesse"
    save_model(path, potential, {"level": level})
    return str(path)


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "output": str(folder / "run"), "train": data(), "training": TRAINING, "validation_fraction": 0.25,
        "md_steps": 0,
    }  # fmt: skip
    return {**config, **changes}


def teacher_of_the_labels(folder: Path) -> str:
    """A network that was trained on the labels, well enough to be told from a wrong one."""
    result = train(
        data(), None, {**TRAINING, "steps": 150, "weights": {"energy": 4.0, "forces": 0.3, "hvp": 0.0},
                       "optimizer": {"learning_rate": 0.02}},
        output=folder / "teacher", quiet=True,
    )  # fmt: skip
    return str(result.model_file)


@pytest.fixture(scope="module")
def trained_teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return teacher_of_the_labels(tmp_path_factory.mktemp("teacher"))


def test_all_targets_of_the_teacher(tmp_path: Path) -> None:
    config = options(tmp_path, teacher=network(tmp_path), test=data((4, 5, 3), seed=9, hessian=True), md_steps=5)
    result = run_recipe(NAME, config, quiet=True)
    assert list(result.records) == ["labels", "student/seed-0", "teacher", "errors", "costs"]
    labels = read_dataset(result.file("labels", "labels.h5"))
    request = Request(forces=True, probes=labels.labels.probes, atomic_energies=True)
    expected = evaluate_structures(load_model(config["teacher"]), labels.structures, request)
    for name in ("energy", "forces", "hvp", "atomic_energies"):
        torch.testing.assert_close(labels.labels[name], expected[name], msg=name)
    assert labels.labels.hvp.shape[0] == 2
    assert labels.labels.weight is None
    student = load_model(result.file("student/seed-0", "model.hesse"))
    means = [float(labels.labels.atomic_energies[labels.numbers == z].mean()) for z in (1, 6, 8)]
    assert student.references.energies.tolist() == pytest.approx(means, abs=1.0)  # a part of the data is held out
    rows = result.records["teacher"].results["rows"] + result.records["errors"].results["rows"]
    assert {row["model"] for row in rows} == {"teacher", "student 0"}
    assert {row["property"] for row in rows} >= {"energy", "forces", "hessian"}
    costs = result.records["costs"].results["models"]
    assert costs["teacher"]["parameters"] > costs["student"]["parameters"]
    assert costs["teacher"]["mib"] > costs["student"]["mib"]
    assert "MD steps a second" in result.summary
    assert "times the memory" in result.summary


def test_true_energies_shift_the_energies_of_atoms(tmp_path: Path, trained_teacher: str) -> None:
    """Teacher and labels differ by energies per element: the sums of the atoms follow the labels."""
    shift = {1: 5.0, 6: -3.0, 8: 40.0}
    moved = data()
    per_atom = torch.tensor([shift[z] for z in moved.numbers.tolist()], dtype=torch.float64)
    sums = torch.zeros(len(moved), dtype=torch.float64).index_add(0, segment_ids(moved.n_atoms), per_atom)
    moved = Dataset(moved.structures, moved.labels.replace(energy=moved.labels.energy + sums), source="moved")
    config = options(tmp_path, teacher=trained_teacher, train=moved, true_labels=["energy"],
                     weights={"energy": 1.0, "forces": 0.3, "hvp": 0.0, "atomic_energies": 1.0})  # fmt: skip
    result = run_recipe(NAME, config, quiet=True)
    labels = read_dataset(result.file("labels", "labels.h5"))
    torch.testing.assert_close(labels.labels.energy, moved.labels.energy)
    assert labels.labels.hvp is None
    predicted = evaluate_structures(load_model(trained_teacher), labels.structures, Request(atomic_energies=True))
    difference = labels.labels.replace(energy=moved.labels.energy - predicted.energy)
    fitted = fit_reference_energies(labels.numbers, difference, (1, 6, 8))
    added = labels.labels.atomic_energies - predicted.atomic_energies
    for k, z in enumerate((1, 6, 8)):
        torch.testing.assert_close(added[labels.numbers == z], fitted[k].expand(int((labels.numbers == z).sum())))


def test_several_teachers_and_fresh_directions(tmp_path: Path) -> None:
    teachers = [network(tmp_path, seed) for seed in (1, 2, 3)]
    config = options(tmp_path, teacher=teachers, products="fresh", weights={"atomic_energies": 0.0},
                     compare={"energy and forces": {"hvp": 0.0}})  # fmt: skip
    result = run_recipe(NAME, config, quiet=True)
    labels = read_dataset(result.file("labels", "labels.h5"))
    assert labels.labels.weight is not None
    assert labels.labels.atomic_energies is None
    assert labels.labels.hvp is None
    request = Request(hessian=True)
    mean = sum(evaluate_structures(load_model(t), labels.structures[:1], request).hessian_of(0) for t in teachers) / 3
    torch.testing.assert_close(labels.labels.hessian_of(0), mean)
    assert result.records["student/seed-0"].options["probe"]["source"] == "fresh"
    other = result.records["energy and forces/seed-0"].options
    assert [term["quantity"] for term in other["loss"]] == ["energy", "forces"]
    assert labels.metadata["level"].startswith("model:mean of 3 teachers@")


def test_a_result_of_training_is_a_teacher_from_python(tmp_path: Path) -> None:
    teacher = train(data(), None, {**TRAINING, "weights": {"hvp": 0.0}}, output=tmp_path / "teacher", quiet=True)
    result = run_recipe(NAME, options(tmp_path, teacher=teacher), quiet=True)
    assert result.records["labels"].options["teachers"] == ["model.hesse"]


def wrong(folder: Path) -> dict[str, tuple[dict[str, Any], type[Exception], str]]:
    """Changes of the options, the error, and a part of the reply."""
    good, leveled = network(folder), Dataset(data().structures, data().labels, metadata={"level": "PBE"})
    dft, xtb = network(folder, level="wB97X"), network(folder, 2, level="GFN2-xTB")
    whole = "python:closed_form_engines:whole_molecules"
    return {
        "no atomic energies": ({"teacher": whole}, RequestError, "its atoms have no energies"),
        "other elements": ({"teacher": network(folder, elements=(1, 6))}, UnknownElementError, "knows H, C only"),
        "an engine": ({"teacher": "gfn2"}, RequestError, "GFN2-xTB is none.*hesse label"),
        "other test": ({"teacher": good, "test": data((3, 4), elements=(1, 9))}, UnknownElementError,
                       "the test set test holds F, which no training data have"),
        "no file": ({"teacher": str(folder / "none.hesse")}, FileFormatError, "none.hesse"),
        "two levels": ({"teacher": [dft, xtb]}, RequestError, "several levels of theory: wB97X; GFN2-xTB"),
        "mixed with labels": (
            {"teacher": dft, "train": leveled, "true_labels": ["energy"]}, RequestError, "are of PBE, and .*on wB97X"),
        "disagrees": ({"teacher": good, "true_labels": ["energy"]}, InconsistentLabelsError,
                      "Energies per element do not explain that"),
        "label is missing": ({"teacher": good, "train": data(forces=False), "true_labels": ["forces"]},
                             MissingLabelError, "no structure has forces"),
        "no such label": ({"teacher": good, "true_labels": ["force"]}, ConfigError, "no label 'force'"),
        "spread of one": ({"teacher": good, "structure_weights": "spread"}, ConfigError, "several teachers"),
        "a potential in memory": ({"teacher": load_model(good)}, ConfigError, "hesse.save_model"),
        "labels that are not made": (
            {"teacher": good, "weights": {"hvp": 0.0}, "compare": {"h": {"hvp": 1.0}}}, ConfigError, "no such labels"),
        "no teacher": ({"teacher": []}, ConfigError, "teacher"),
        "no target": ({"teacher": good, "weights": dict.fromkeys(["energy", "forces", "hvp", "atomic_energies"], 0.0)},
                      ConfigError, "nothing to train"),
        "option": ({"teacher": good, "product": "fresh"}, UnknownOptionError, "products"),
        "weights inside": ({"teacher": good, "training": {"weights": {"energy": 1.0}}}, ConfigError, "beside training"),
    }  # fmt: skip


def test_replies_before_any_work(tmp_path: Path) -> None:
    for name, (changes, error, reply) in wrong(tmp_path).items():
        with pytest.raises(error, match=reply):
            run_recipe(NAME, options(tmp_path / name, **changes), quiet=True)
        assert not list((tmp_path / name).rglob("stage.json")), name
        assert not list((tmp_path / name).rglob("labels.h5")), name


def test_mixed_levels_are_possible_if_that_is_meant(tmp_path: Path, trained_teacher: str) -> None:
    other = Dataset(data().structures, data().labels, metadata={"level": "another level"})
    config = options(tmp_path, teacher=trained_teacher, train=other, true_labels=["energy"])
    with pytest.raises(RequestError, match="allow_mixed_levels"):
        run_recipe(NAME, config, quiet=True)
    assert run_recipe(NAME, {**config, "allow_mixed_levels": True}, quiet=True).records["student/seed-0"]
