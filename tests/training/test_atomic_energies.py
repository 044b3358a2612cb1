"""Energies of atoms as labels: reference energies, training, validation and evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_run import config

from hesse.datasets import Dataset
from hesse.errors import RequestError
from hesse.evaluation import evaluate_model
from hesse.labelling import teacher_labels
from hesse.models import Hipnn, HipnnConfig
from hesse.models.adapters import CallablePotential
from hesse.training import train
from oracles import molecules

STRUCTURES = molecules([3, 4, 5, 3, 4, 5, 4, 3], seed=5)


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Labels of a network whose energies per element are large."""
    torch.manual_seed(1)
    references = torch.tensor([-13.0, -1030.0, -2040.0], dtype=torch.float64)
    teacher = Hipnn(HipnnConfig(features=4, l_max=0), (1, 6, 8), references).double()
    return teacher_labels(STRUCTURES, teacher, probes=1, atomic_energies=True, quiet=True)


def run(data: Dataset, folder: Path, **changes: object):
    weights = {"energy": 0.0, "forces": 0.1, "hvp": 0.0, "atomic_energies": 1.0}
    return train(
        data, data[:4], config(weights=weights, allow_shared_structures=True, **changes), output=folder, quiet=True
    )


def test_reference_energies_are_the_means_of_the_atoms(data: Dataset, tmp_path: Path) -> None:
    model = run(data, tmp_path, steps=1).potential
    for z, energy in zip(model.elements, model.references.energies.tolist(), strict=True):
        assert energy == pytest.approx(float(data.labels.atomic_energies[data.numbers == z].mean()), rel=1e-12)


@pytest.mark.slow
def test_a_network_learns_them(data: Dataset, tmp_path: Path) -> None:
    result = run(data, tmp_path / "run", steps=120, optimizer={"learning_rate": 0.02})
    first, last = (evaluate_model(m, data).row("atomic_energies") for m in (run(data, tmp_path / "0", steps=1), result))
    assert last.unit == "eV"
    assert last.value < 0.3 * first.value
    error = evaluate_model(result, data[:4]).row("atomic_energies").value
    assert result.scores["atomic_energies_rmse"] == pytest.approx(error, rel=1e-6)


def test_a_potential_without_atomic_energies_is_told_at_the_start(data: Dataset, tmp_path: Path) -> None:
    scale = torch.nn.Linear(1, 1).double()

    class Springs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = scale

        def forward(self, positions: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            return self.scale(positions.square().sum()[None]).sum()

    weights = {"energy": 1.0, "forces": 0.0, "hvp": 0.0, "atomic_energies": 1.0}
    with pytest.raises(RequestError, match="gives energies of whole structures only"):
        train(data, None, config(weights=weights), output=tmp_path, potential=CallablePotential(Springs()), quiet=True)
