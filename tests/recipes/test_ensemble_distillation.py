"""The recipe ensemble-distillation, tiny: its stages, labels, weights, resumption and replies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_recipe import TRAINING, data

from hesse.curvature import evaluate_structures
from hesse.datasets import Dataset, read_dataset, write_dataset
from hesse.errors import (
    ConfigError,
    FileFormatError,
    MissingLabelError,
    RequestError,
    UnknownElementError,
    UnknownOptionError,
)
from hesse.labelling import spread_weights
from hesse.models import Ensemble, load_model
from hesse.recipes.protocols import plan_recipe, run_recipe
from hesse.structures import Request, Structure
from oracles import molecules

NAME = "ensemble-distillation"
FURTHER = molecules([4, 5, 3], seed=7)


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "output": str(folder / "run"), "train": data(), "unlabeled": [data().structures[0], *FURTHER], "teachers": 2,
        "probes": 2, "training": TRAINING, "validation_fraction": 0.25,
        "test": {"held out": data((4, 5, 3, 4), seed=9, hessian=True)},
    }  # fmt: skip
    return {**config, **changes}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("distillation")
    config = options(folder, compare=["forces-only", "equal-weights", "true-forces"])
    return folder, config, run_recipe(NAME, config, quiet=True)


def test_the_labels_are_true_energies_and_means_of_the_teachers(finished: Any) -> None:
    folder, _, result = finished
    assert list(result.records)[:4] == ["teachers/0", "teachers/1", "ensemble", "labels"]
    labels = read_dataset(result.file("labels", "labels.h5"))
    assert labels.ids == (*data().ids, *(s.id for s in FURTHER))
    members = [load_model(folder / "run" / "teachers" / str(k) / "model.hesse") for k in range(2)]
    assert not torch.equal(*(next(iter(m.parameters())) for m in members))
    ensemble = load_model(result.file("ensemble", "model.hesse"))
    assert isinstance(ensemble, Ensemble)
    request = Request(forces=True, probes=labels.labels.probes)
    expected = evaluate_structures(ensemble, labels.structures, request)
    torch.testing.assert_close(labels.labels.forces, expected.forces)
    torch.testing.assert_close(labels.labels.hvp, expected.hvp)
    assert labels.mask("energy").tolist() == 12 * [True] + 3 * [False]
    torch.testing.assert_close(labels.labels.energy[:12], data().labels.energy)
    torch.testing.assert_close(labels.labels.weight, spread_weights(labels.labels))
    forces = [evaluate_structures(m, labels.structures[:1], Request(forces=True)).forces for m in members]
    spread = float((forces[0] - forces[1]).square().mean().sqrt() / 2**0.5)
    assert float(labels.labels.forces_error[0]) == pytest.approx(spread, rel=1e-6)


def test_teachers_see_energies_only_and_students_what_they_are_called(finished: Any) -> None:
    folder, _, result = finished
    losses = {}
    for name in ("teachers/0", "teachers/1", "student/seed-0", "forces-only/seed-0", "equal-weights/seed-0",
                 "true-forces/seed-0"):  # fmt: skip
        rows = [json.loads(line) for line in (folder / "run" / name / "metrics.jsonl").read_text().splitlines()]
        losses[name] = {key for row in rows if row["kind"] == "train" for key in row}
    assert all("energy" in terms for terms in losses.values())
    assert ["forces" in terms for terms in losses.values()] == [False, False, True, True, True, True]
    assert ["hvp" in terms for terms in losses.values()] == [False, False, True, False, True, False]
    loss = {name: record.options.get("loss") for name, record in result.records.items()}
    weighted = {name: [t["structure_weights"] for t in terms] for name, terms in loss.items() if terms}
    assert weighted["student/seed-0"] == [False, True, True]
    assert weighted["equal-weights/seed-0"] == [False, False, False]
    assert result.records["true-forces/seed-0"].inputs != result.records["student/seed-0"].inputs


def test_errors_and_calibration_are_reported(finished: Any) -> None:
    _, _, result = finished
    rows = result.records["errors"].results["rows"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    assert models == ["teacher 0", "teacher 1", "ensemble", "student 0", "forces-only 0", "equal-weights 0",
                      "true-forces 0"]  # fmt: skip
    assert {row["property"] for row in rows} >= {"energy", "forces", "hessian"}
    assert "spread of the teachers" in result.summary
    assert "have not learned the energies" in result.summary  # in six steps
    assert "student 0" in result.summary
    rows = {(r["dataset"], r["property"]): r for r in result.records["calibration"].results["rows"]}
    assert rows.keys() == {("held out", "energy"), ("held out", "forces"), ("held out", "hvp")}
    for row in rows.values():
        assert row["error_over_spread"] > 0
        assert -1 <= row["rank_correlation"] <= 1


def test_the_same_call_does_nothing_again(finished: Any) -> None:
    folder, config, result = finished
    files = {p: p.stat().st_mtime_ns for p in (folder / "run").rglob("*.hesse")}
    again = run_recipe(NAME, config, quiet=True)
    assert {p: p.stat().st_mtime_ns for p in (folder / "run").rglob("*.hesse")} == files
    assert again.summary == result.summary
    with pytest.raises(ConfigError, match=r"labels: this stage was finished with other options: .*probes"):
        run_recipe(NAME, {**config, "probes": 3}, quiet=True)


def test_a_recipe_from_a_file(tmp_path: Path) -> None:
    write_dataset(tmp_path / "energies.h5", data())
    config = {"output": "run", "train": "energies.h5", "teachers": 2, "probes": 0, "structure_weights": "equal",
              "training": TRAINING}  # fmt: skip
    (tmp_path / "ekd.yaml").write_text(yaml.safe_dump(config))
    plan = plan_recipe(NAME, tmp_path / "ekd.yaml")
    assert list(plan.states) == ["teachers/0", "teachers/1", "ensemble", "labels", "student/seed-0"]
    assert not (tmp_path / "run").exists()
    result = run_recipe(NAME, tmp_path / "ekd.yaml", quiet=True)
    labels = read_dataset(result.file("labels", "labels.h5"))
    assert labels.labels.hvp is None
    assert labels.labels.weight is None
    assert "without test sets" in result.summary


def _level(first: Dataset, level: str) -> Dataset:
    return Dataset(first.structures, first.labels, metadata={"level": level})


@pytest.mark.parametrize(
    ("changes", "error", "reply"),
    [
        ({"train": data(forces=False), "compare": ["true-forces"]}, MissingLabelError, "leave true-forces out"),
        ({"train": molecules([3, 4])}, MissingLabelError, "no structure has an energy"),
        ({"train": "nowhere.h5"}, FileFormatError, "nowhere.h5"),
        ({"train": _level(data(), "PBE; GFN2-xTB")}, RequestError, "several levels of theory: PBE; GFN2-xTB"),
        ({"unlabeled": [Structure([17, 1], [[0, 0, 0], [0, 0, 1.3]], id="hcl")]}, UnknownElementError,
         '"hcl" holds Cl, which no labeled'),
        ({"unlabeled": data().structures[:2]}, RequestError, "all structures are in .* too"),
        ({"unlabeled": [Structure([6, 1], [[0, 0, 0], [0, 0, 1.3]], id=data().ids[0])]}, RequestError,
         "1 structures have ids of labeled ones with other geometries"),
        ({"train": data((3, 4))}, RequestError, "2 structures in 2 groups .* too few to hold out"),
        ({"teachers": 1}, ConfigError, "teachers"),
        ({"teacher": {"weights": {"forces": 1.0}}}, ConfigError, "teacher: leave out weights"),
        ({"training": {**TRAINING, "stepss": 3}}, UnknownOptionError, "steps"),
        ({"weights": {"atomic_energies": 1.0}}, ConfigError, "no term atomic_energies"),
        ({"weights": {"energy": 0.0, "forces": 0.0, "hvp": 0.0}}, ConfigError, "all are zero"),
        ({"compare": ["forces"]}, UnknownOptionError, "true-forces"),
        ({"probe": "rademacherr"}, UnknownOptionError, "rademacher"),
    ],
)  # fmt: skip
def test_replies_before_any_work(tmp_path: Path, changes: dict[str, Any], error: type[Exception], reply: str) -> None:
    with pytest.raises(error, match=reply):
        run_recipe(NAME, options(tmp_path, **changes), quiet=True)
    assert not list(tmp_path.rglob("stage.json"))
    assert not list(tmp_path.rglob("metrics.jsonl"))
