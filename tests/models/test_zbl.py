"""The screened nuclear repulsion against its equation in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.data import covalent_radii

from hesse.curvature import evaluate
from hesse.models import Zbl, ZblConfig
from hesse.structures import Request, Structure, collate
from oracles import atom, crystal, image_pairs, molecules


def pair(z1: int, z2: int, r: float, reach: float = 1.0) -> float:
    """eV, from constants given as numbers: e²/4πε0 = 14.399645 eV Å, a0 = 0.529177 Å."""
    a = 0.8854 * 0.52917721 / (z1**0.23 + z2**0.23)
    x = r / a
    phi = (
        0.18175 * np.exp(-3.1998 * x)
        + 0.50986 * np.exp(-0.94229 * x)
        + 0.28022 * np.exp(-0.4029 * x)
        + 0.02817 * np.exp(-0.20162 * x)
    )
    t = min(r / (reach * (covalent_radii[z1] + covalent_radii[z2])), 1.0)
    fade = 1 - 35 * t**4 + 84 * t**5 - 70 * t**6 + 20 * t**7
    return 14.39964548 * z1 * z2 / r * phi * fade


def squeezed(factor: float) -> list[Structure]:
    return [s.with_positions(s.positions * factor, id=s.id) for s in molecules([2, 4, 6], seed=5)]


@pytest.mark.parametrize(("factor", "reach"), [(0.5, 1.0), (0.8, 1.7), (1.0, 3.0)])
def test_energies_are_those_of_the_equation(factor: float, reach: float) -> None:
    structures = [*squeezed(factor), crystal(1, size=2.2)]
    model = Zbl(ZblConfig(reach=reach))
    energies = evaluate(model, collate(structures, model.cutoff), Request()).energy
    assert energies is not None
    for energy, s in zip(energies.tolist(), structures, strict=True):
        expected = sum(
            0.5 * pair(int(s.numbers[i]), int(s.numbers[j]), float(np.linalg.norm(gap)), reach)
            for i, j, gap in image_pairs(s, model.cutoff)
        )
        assert expected > 0
        assert energy == pytest.approx(expected, rel=1e-6)


def test_it_is_zero_at_bond_lengths_and_smooth_at_its_cutoff() -> None:
    model = Zbl(elements=(6,))
    end = 2 * covalent_radii[6]
    assert model.cutoff == pytest.approx(end)

    def derivatives(r: float) -> np.ndarray:
        x = torch.tensor(r, dtype=torch.float64, requires_grad=True)
        batch = collate([Structure([6, 6], [[0, 0, 0], [0, 0, 1.0]], id="pair")], 5.0)
        moved = batch.with_positions(
            positions=torch.stack([torch.zeros(3, dtype=torch.float64), x * torch.eye(3)[2].double()])
        )
        value = model(moved).sum()
        derivatives = [value]
        for _ in range(3):
            (value,) = torch.autograd.grad(value, x, create_graph=True)
            derivatives.append(value)
        return np.array([f.item() for f in derivatives])

    assert (derivatives(end * 1.001) == 0).all()
    # Each further derivative vanishes one power of the distance later: E like δ⁴, E''' like δ.
    deltas = np.array([0.02, 0.01])
    near = np.array([derivatives(end - d) for d in deltas])
    orders = np.log2(np.abs(near[0] / near[1]))
    np.testing.assert_allclose(orders, [4, 3, 2, 1], atol=0.12)


def test_isolated_atoms_dtype_and_elements() -> None:
    model = Zbl(elements=(8, 1))
    assert model.elements == (1, 8)
    result = evaluate(model, collate([atom(1), atom(8)], model.cutoff), Request(forces=True, hessian=True))
    assert result.hessian is not None
    assert result.energy is not None
    assert (result.energy == 0).all()
    assert (result.hessian == 0).all()
    model = Zbl()
    wide = evaluate(model, collate(squeezed(0.6)[:1], 6.0), Request(forces=True))
    narrow = evaluate(model, collate(squeezed(0.6)[:1], 6.0, dtype=torch.float32), Request(forces=True))
    assert wide.forces is not None
    assert narrow.forces is not None
    assert narrow.forces.dtype == torch.float32
    torch.testing.assert_close(narrow.forces.double(), wide.forces, rtol=1e-5, atol=1e-4)
