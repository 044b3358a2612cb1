"""Ensemble distillation where there are no energies: beads, with noisy forces and a prior."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny_recipe import TRAINING, data

from hesse.coarse import fit_prior
from hesse.curvature import evaluate_structures
from hesse.datasets import Dataset, read_dataset, write_dataset
from hesse.errors import ConfigError, FileFormatError, MissingLabelError, RequestError, UnknownElementError
from hesse.models import Ensemble, load_model, save_model
from hesse.recipes.protocols import plan_recipe, run_recipe
from hesse.structures import Properties, Request, Structure, bead_number

NAME = "ensemble-distillation"
BEAD = bead_number("A")


def liquid(frames: int = 8, seed: int = 0) -> Dataset:
    """Eight beads near a grid in a box, with random forces."""
    rng = np.random.default_rng(seed)
    grid = 4.0 * np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), -1).reshape(-1, 3)
    structures = [
        Structure(
            np.full(8, BEAD), grid + rng.uniform(-0.4, 0.4, size=grid.shape), id=f"{seed}/{k}", cell=8 * np.eye(3),
            pbc=(True,) * 3, masses=np.full(8, 30.0), tag="300K", group=f"frame {k}",
        )
        for k in range(frames)
    ]  # fmt: skip
    forces = torch.from_numpy(rng.normal(size=(8 * frames, 3)))
    return Dataset(tuple(structures), Properties(n_atoms=torch.full((frames,), 8), forces=forces))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("beads")
    write_dataset(folder / "beads.h5", liquid())
    write_dataset(folder / "test.h5", liquid(3, seed=5))
    save_model(folder / "prior.hesse", fit_prior(liquid()).potential)
    config = {"output": "run", "train": "beads.h5", "test": "test.h5", "train_on": "forces", "teachers": 2, "probes": 1,
              "validation_fraction": 0.25, "training": {**TRAINING, "baseline": "prior.hesse"}}  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(config))
    return folder, run_recipe(NAME, folder / "recipe.yaml", quiet=True)


def test_no_run_sees_energies(finished: Any) -> None:
    folder, result = finished
    for name in ("teachers/0", "teachers/1", "student/seed-0"):
        rows = [json.loads(line) for line in (folder / "run" / name / "metrics.jsonl").read_text().splitlines()]
        terms = {key for row in rows if row["kind"] == "train" for key in row}
        assert "forces" in terms, name
        assert "energy" not in terms, name
        assert ("hvp" in terms) == (name == "student/seed-0")
    assert "energ" not in result.summary
    assert not read_dataset(result.file("labels", "labels.h5")).has("energy")
    assert "spread of the teachers" in result.summary
    assert {row["property"] for row in result.records["errors"].results["rows"]} == {"forces"}


def test_the_student_learns_the_mean_of_the_teachers(finished: Any) -> None:
    folder, result = finished
    labels = read_dataset(result.file("labels", "labels.h5"))
    teachers = [load_model(folder / "run" / f"teachers/{k}/model.hesse").double() for k in range(2)]
    mean = evaluate_structures(Ensemble(teachers), labels.structures, Request(forces=True))
    torch.testing.assert_close(labels.labels.forces, mean.forces)
    assert not torch.allclose(labels.labels.forces, liquid().labels.forces)


def test_the_prior_is_that_beside_the_recipe(finished: Any) -> None:
    folder, result = finished
    config = yaml.safe_load((folder / "run" / "teachers" / "0" / "config.yaml").read_text())
    assert Path(config["baseline"]).resolve() == (folder / "prior.hesse").resolve()
    for name in ("teachers/0", "student/seed-0"):
        assert str((folder / "prior.hesse").resolve()) in [file for file, _ in result.records[name].inputs]
    save_model(folder / "prior.hesse", fit_prior(liquid(seed=1)).potential)
    with pytest.raises(ConfigError, match=r"prior\.hesse"):
        run_recipe(NAME, folder / "recipe.yaml", quiet=True)


@pytest.mark.parametrize(
    ("changes", "error", "reply"),
    [
        ({"train_on": "energies"}, MissingLabelError, r"no structure has an energy.*For beads: train_on: forces"),
        ({"train": data(forces=False)}, MissingLabelError, "no structure has forces"),
        ({"weights": {"energy": 1.0, "forces": 1.0}}, ConfigError, "teachers trained on forces give no energies"),
        ({"compare": ["true-forces"]}, ConfigError, "what every teacher is"),
        ({"train_on": "stress"}, ConfigError, "energies"),
        ({"training": {**TRAINING, "baseline": "nowhere.hesse"}}, FileFormatError, r"nowhere\.hesse: there is no such"),
        ({"test": data((3, 4))}, UnknownElementError, "the test set test holds .*, which no training data have"),
        ({"train": liquid(1)}, RequestError, "too few to hold out"),
    ],
)
def test_replies_before_any_work(tmp_path: Path, changes: dict[str, Any], error: type[Exception], reply: str) -> None:
    config: dict[str, Any] = {"output": str(tmp_path / "run"), "train": liquid(), "train_on": "forces", "teachers": 2,
                              "validation_fraction": 0.25, "training": TRAINING}  # fmt: skip
    for call in (plan_recipe, run_recipe):
        with pytest.raises(error, match=reply):
            call(NAME, {**config, **changes})
    assert not list(tmp_path.rglob("stage.json"))
    assert not list(tmp_path.rglob("recipe.json"))


def test_a_prior_of_other_beads_is_refused_before_any_work(tmp_path: Path) -> None:
    other = liquid()
    structures = [replace(s, numbers=np.full(8, bead_number("B"))) for s in other.structures]
    save_model(tmp_path / "prior.hesse", fit_prior(Dataset(tuple(structures), other.labels)).potential)
    config = {"output": str(tmp_path / "run"), "train": liquid(), "train_on": "forces", "teachers": 2,
              "training": {**TRAINING, "baseline": str(tmp_path / "prior.hesse")}}  # fmt: skip
    with pytest.raises(UnknownElementError, match=r"holds A, which the baseline .*prior.hesse does not know"):
        plan_recipe(NAME, config)
