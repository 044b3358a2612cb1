"""Layouts of other frameworks: the same atoms and pairs, and the same derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hesse.errors import RequestError
from hesse.models.adapters import check_not_periodic, edge_list, pad_structures
from hesse.structures import collate
from oracles import atom, crystal, image_pairs, molecules

MIXED = [*molecules([3, 5], seed=1), atom(8), *molecules([2], seed=2)]


def test_padded_arrays_hold_every_atom_once() -> None:
    batch = collate(MIXED, 4.0)
    result = pad_structures(batch)
    assert result.numbers.shape == (4, 5)
    for row, structure in enumerate(MIXED):
        n = len(structure)
        assert result.mask[row].tolist() == [True] * n + [False] * (5 - n)
        assert result.numbers[row].tolist() == structure.numbers.tolist() + [-1] * (5 - n)
        np.testing.assert_array_equal(result.positions[row, :n], structure.positions)
        assert bool((result.positions[row, n:] == 0).all())
    assert torch.equal(result.unpad(result.positions), batch.positions)
    assert torch.equal(result.unpad(result.numbers), batch.numbers)
    assert int(pad_structures(batch, pad_number=0).numbers.min()) == 0


def test_padded_positions_are_differentiable() -> None:
    batch = collate(MIXED, 4.0)
    leaf = batch.positions.clone().requires_grad_(True)
    rows = pad_structures(batch.with_positions(positions=leaf)).positions
    weights = torch.randn(rows.shape, dtype=torch.float64)
    (weights * rows.square()).sum().backward()
    torch.testing.assert_close(leaf.grad, 2 * leaf.detach() * pad_structures(batch).unpad(weights))


@pytest.mark.parametrize("cutoff", [1.5, 2.5, 4.0])
def test_edges_equal_a_brute_force_search(cutoff: float) -> None:
    structures = [*molecules([4, 6], seed=3), crystal(0), atom(1), crystal(1, size=2.5)]
    batch = collate(structures, 4.0)  # the neighbor matrix may reach further
    result = edge_list(batch, cutoff)
    starts = np.concatenate([[0], np.cumsum([len(s) for s in structures])])
    expected = sorted(
        (int(starts[k] + i), int(starts[k] + j), *np.round(gap, 9))
        for k, s in enumerate(structures)
        for i, j, gap in image_pairs(s, cutoff)
    )
    rows = zip(result.centers.tolist(), result.neighbors.tolist(), np.round(result.vectors.numpy(), 9), strict=True)
    assert sorted((i, j, *gap) for i, j, gap in rows) == [pytest.approx(w) for w in expected]
    assert bool((result.centers.diff() >= 0).all())
    lattice = batch.cell[batch.structure_index[result.centers]]
    torch.testing.assert_close(result.translations, torch.einsum("ea,eab->eb", result.cell_shifts, lattice))


def test_edges_are_differentiable_in_positions_and_cell() -> None:
    batch = collate([crystal(0)], 3.0)
    positions, cell = batch.positions.clone().requires_grad_(True), batch.cell.clone().requires_grad_(True)
    result = edge_list(batch.with_positions(positions=positions, cell=cell), 3.0)
    result.vectors.square().sum().backward()
    assert positions.grad is not None
    assert cell.grad is not None
    step, slope = 1e-6, []
    for sign in (1, -1):
        moved = batch.with_positions(positions=batch.positions, cell=batch.cell + sign * step * torch.eye(3))
        slope.append(edge_list(moved, 3.0).vectors.square().sum())
    assert float((slope[0] - slope[1]) / (2 * step)) == pytest.approx(float(cell.grad[0].trace()), rel=1e-6)


def test_periodic_structures_are_refused() -> None:
    check_not_periodic(collate(MIXED, 4.0), "this model")
    with pytest.raises(RequestError, match='"crystal-0" is periodic, but this model ignores lattices'):
        check_not_periodic(collate([*MIXED, crystal(0)], 4.0), "this model")
