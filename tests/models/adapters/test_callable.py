"""Any energy function as a potential: energies and derivatives in eV and Å, units, shapes, parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import units
from torch import Tensor, nn

from hesse.curvature import evaluate
from hesse.errors import LabelShapeError, RequestError, UnitError
from hesse.models.adapters import CallablePotential
from hesse.structures import Request, collate
from oracles import LennardJones, crystal, molecules

STRUCTURES = molecules([3, 5, 2], seed=2)


def lennard_jones(positions: Tensor, numbers: Tensor, cell: Tensor, pbc: Tensor) -> Tensor:
    """Of all pairs, in eV and Å, as `oracles.LennardJones` without its cutoff."""
    i, j = torch.triu_indices(len(positions), len(positions), offset=1)
    sixth = (1.1**2 / (positions[i] - positions[j]).square().sum(-1)) ** 3
    return 4 * 0.3 * (sixth * sixth - sixth).sum()


def test_derivatives_are_those_of_the_function() -> None:
    probes = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 10, 3)))
    request = Request(forces=True, probes=probes, hessian=True)
    result = evaluate(CallablePotential(lennard_jones), collate(STRUCTURES, 1.0), request)
    expected = evaluate(LennardJones(), collate(STRUCTURES, 6.0), request)
    for name in ("energy", "forces", "hvp", "hessian"):
        torch.testing.assert_close(getattr(result, name), getattr(expected, name), rtol=1e-10, atol=1e-10)


def test_units_are_converted() -> None:
    """The same physics computed in bohr and hartree."""

    def atomic(positions: Tensor, numbers: Tensor, cell: Tensor, pbc: Tensor) -> Tensor:
        return lennard_jones(positions * units.Bohr, numbers, cell, pbc) / units.Hartree

    request = Request(forces=True, hessian=True)
    batch = collate(STRUCTURES, 1.0)
    result = evaluate(CallablePotential(atomic, length_unit="bohr", energy_unit="hartree"), batch, request)
    expected = evaluate(CallablePotential(lennard_jones), batch, request)
    for name in ("energy", "forces", "hessian"):
        torch.testing.assert_close(getattr(result, name), getattr(expected, name), rtol=1e-10, atol=1e-10)
    with pytest.raises(UnitError, match='unknown energy unit "hartre"'):
        CallablePotential(atomic, energy_unit="hartre")


def test_the_lattice_reaches_the_function_and_gives_stress() -> None:
    """An energy ½k·tr(C Cᵀ) of the cell alone has the strain derivative k C Cᵀ, up to symmetry."""
    structure = crystal(0)

    def of_cell(positions: Tensor, numbers: Tensor, cell: Tensor, pbc: Tensor) -> Tensor:
        assert bool(pbc.all())
        assert positions.shape == (3, 3)
        return 0.5 * cell.square().sum() + 0.0 * positions.sum()

    result = evaluate(CallablePotential(of_cell), collate([structure], 1.0), Request(stress=True))
    assert result.stress is not None
    expected = structure.cell.T @ structure.cell / abs(np.linalg.det(structure.cell))
    np.testing.assert_allclose(result.stress[0], expected, rtol=1e-10)


def test_atomic_energies() -> None:
    def springs(positions: Tensor, numbers: Tensor, cell: Tensor, pbc: Tensor) -> Tensor:
        return positions.square().sum(-1) * numbers

    result = evaluate(CallablePotential(springs, atomic=True), collate(STRUCTURES, 1.0), Request(atomic_energies=True))
    flat = np.concatenate([(s.positions**2).sum(-1) * s.numbers for s in STRUCTURES])
    assert result.atomic_energies is not None
    np.testing.assert_allclose(result.atomic_energies, flat)
    whole = CallablePotential(lambda *of: springs(*of).sum())
    with pytest.raises(RequestError, match="its atoms have no energies"):
        evaluate(whole, collate(STRUCTURES, 1.0), Request(atomic_energies=True))
    with pytest.raises(LabelShapeError, match="expected a scalar"):
        evaluate(CallablePotential(springs), collate(STRUCTURES, 1.0), Request())
    with pytest.raises(LabelShapeError, match=r"expected \(3,\): one per atom"):
        evaluate(CallablePotential(lennard_jones, atomic=True), collate(STRUCTURES, 1.0), Request())
    with pytest.raises(LabelShapeError, match="returned a float, expected a tensor"):
        evaluate(CallablePotential(lambda *of: 3.0), collate(STRUCTURES, 1.0), Request())
    with pytest.raises(RequestError, match=r"expected a function .* got str"):
        CallablePotential("springs")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="must be atomic numbers"):
        CallablePotential(springs, elements=("H", "O"))  # type: ignore[arg-type]


def test_parameters_of_a_module_are_those_of_the_potential() -> None:
    class Spring(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

        def forward(self, positions: Tensor, numbers: Tensor, cell: Tensor, pbc: Tensor) -> Tensor:
            return 0.5 * self.k * positions.square().sum()

    model = CallablePotential(Spring())
    assert [name for name, _ in model.named_parameters()] == ["energy.k"]
    probes = torch.ones(1, 10, 3, dtype=torch.float64)
    result = evaluate(model, collate(STRUCTURES, 1.0), Request(probes=probes), create_graph=True)
    assert result.hvp is not None
    result.hvp.sum().backward()
    assert model.energy.k.grad.item() == pytest.approx(30.0)  # d(k v)/dk summed over 10 atoms
