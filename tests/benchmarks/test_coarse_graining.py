"""The experiments of benchmarks/coarse_graining, tiny: what is trained on what, and how it is judged."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import hesse
from hesse.datasets import Dataset
from hesse.models import HipnnConfig, build_model, save_model
from hesse.structures import Properties, Structure, bead_number

FOLDER = str(Path(__file__).parents[2] / "benchmarks" / "coarse_graining")
SMALL = {
    "kind": "hipnn", "l_max": 0, "features": 4, "sensitivities": 4, "blocks": 1, "onsite_layers": 1, "cutoff": 4.5,
    "shortest": 2.2, "longest": 4.0,
}  # fmt: skip
TAG, FRAMES = "300K 1.000g/cm3", 15


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    for name in ("transferability", "bead_distillation", "water_curvature"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def liquid() -> Dataset:
    """Eight beads near a grid in a box, with random forces."""
    rng = np.random.default_rng(0)
    grid = 4.0 * np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), -1).reshape(-1, 3)
    structures = tuple(
        Structure(
            np.full(8, bead_number("W")), grid + rng.uniform(-0.4, 0.4, size=grid.shape), id=f"frame {k}",
            cell=8 * np.eye(3), pbc=(True,) * 3, masses=np.full(8, 18.0), tag=TAG, group=f"frame {k}",
        )
        for k in range(FRAMES)
    )  # fmt: skip
    forces = torch.from_numpy(0.1 * rng.normal(size=(8 * FRAMES, 3)))
    return Dataset(structures, Properties(n_atoms=torch.full((FRAMES,), 8), forces=forces))


def prepare(module: str, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    loaded = importlib.import_module(module)
    monkeypatch.setattr(loaded, "mapped", lambda reference, out: liquid())
    monkeypatch.setattr(loaded, "MODEL", SMALL)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    loaded.main()


@pytest.mark.slow
def test_curvature_matching_has_runs_of_equal_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "T300-d1.00-hvp.npz", **{k: rng.normal(size=(FRAMES, 8, 3)) for k in ("probes", "hvps")})
    prepare(
        "water_curvature", monkeypatch,
        [str(tmp_path), str(tmp_path / "out"), "--seeds", "1", "--steps", "2", "--time", "0", "--weight", "1", "10",
         "--frames", "4"],
    )  # fmt: skip
    rows = json.loads((tmp_path / "out" / "rows.json").read_text())
    assert [row["kind"] for row in rows] == [
        "forces, 4 frames", "forces and products (weight 1), 4 frames", "forces and products (weight 10), 4 frames",
        "forces, 12 frames", "forces and products (weight 1), 12 frames", "forces and products (weight 10), 12 frames",
    ]  # fmt: skip
    log = (tmp_path / "out" / "products-4-weight10-0" / "run" / "metrics.jsonl").read_text().splitlines()
    assert any("hvp" in json.loads(line) for line in log)
    assert "| of products |" in capsys.readouterr().out


def test_a_model_explains_its_own_products(tmp_path: Path) -> None:
    from water_curvature import explained_products, with_products

    options = {key: value for key, value in SMALL.items() if key != "kind"}
    potential = build_model(HipnnConfig(**options), (bead_number("W"),))
    model = tmp_path / "model.hesse"
    save_model(model, potential.double())
    data = liquid()
    probes = np.random.default_rng(2).normal(size=(FRAMES, 8, 3))
    request = hesse.Request(probes=torch.from_numpy(probes.reshape(1, -1, 3)))
    products = hesse.evaluate_structures(potential, data.structures, request).hvp
    np.savez(tmp_path / "own-hvp.npz", probes=probes, hvps=products.numpy().reshape(FRAMES, 8, 3))
    assert explained_products(model, with_products(data, tmp_path, "own")) == pytest.approx(1.0, abs=1e-12)
    np.savez(tmp_path / "twice-hvp.npz", probes=probes, hvps=2 * products.numpy().reshape(FRAMES, 8, 3))
    assert explained_products(model, with_products(data, tmp_path, "twice")) == pytest.approx(0.75, abs=1e-12)


@pytest.mark.slow
def test_distillation_judges_teachers_mean_and_students(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(
        "bead_distillation", monkeypatch,
        [str(tmp_path), str(tmp_path / "out"), "--teachers", "2", "--seeds", "1", "--steps", "2", "--time", "0"],
    )  # fmt: skip
    rows = json.loads((tmp_path / "out" / "rows.json").read_text())
    assert [row["kind"] for row in rows] == ["one teacher", "one teacher", "mean of the teachers", "student"]
    assert "| mean of the teachers |" in capsys.readouterr().out
