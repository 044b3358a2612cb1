"""Batches: concatenation of structures, neighbor matrix, segments. Structures must not influence each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hesse.structures import Batch, Structure, collate, segment_ids, segment_indices, segment_offsets
from oracles import atom, crystal, image_pairs, linear, molecule

MIXED = [molecule(5, 1), atom(), crystal(2), linear(), molecule(9, 2), crystal(3, atoms=2)]


def vectors_of(batch: Batch) -> list[list[tuple[float, ...]]]:
    """For each atom, the sorted vectors to its neighbors."""
    vectors = batch.neighbor_vectors()
    return [
        sorted(map(tuple, vectors[a][batch.neighbor_mask[a]].round(decimals=8).tolist())) for a in range(len(vectors))
    ]


@pytest.mark.parametrize("structures", [MIXED, MIXED[:2], [atom()], [crystal()]], ids=["mixed", "open", "one", "cell"])
def test_a_batch_is_the_concatenation_of_singles(structures: list[Structure]) -> None:
    batch = collate(structures, 4.5)
    singles = [collate([s], 4.5) for s in structures]
    for name in ("numbers", "positions", "n_atoms", "cell", "pbc", "rng_keys"):
        torch.testing.assert_close(getattr(batch, name), torch.cat([getattr(b, name) for b in singles]))
    assert batch.ids == tuple(s.id for s in structures)
    assert vectors_of(batch) == [v for b in singles for v in vectors_of(b)]
    owner = batch.structure_index.tolist()
    assert owner == [k for k, s in enumerate(structures) for _ in range(len(s))]
    # Neighbors belong to the same structure; unused entries contain the atom itself and give zero vectors.
    assert bool((batch.structure_index[batch.neighbors] == batch.structure_index[:, None]).all())
    unused = ~batch.neighbor_mask
    assert bool((batch.neighbors == torch.arange(len(owner))[:, None])[unused].all())
    assert not batch.neighbor_vectors()[unused].any()


@pytest.mark.parametrize("structure", MIXED, ids=lambda s: s.id)
def test_neighbor_vectors_equal_brute_force(structure: Structure) -> None:
    got = vectors_of(collate([structure], 4.0))
    want: list[list[tuple[float, ...]]] = [[] for _ in range(len(structure))]
    for i, _, vector in image_pairs(structure, 4.0):
        want[i].append(tuple(np.round(vector, 8)))
    for actual, reference in zip(got, want, strict=True):
        np.testing.assert_allclose(np.array(actual), np.array(sorted(reference)), atol=1e-6)


def test_strain_moves_images_with_the_cell() -> None:
    s = crystal(4)
    batch = collate([s], 4.0)
    stretch = torch.diag(torch.tensor([1.01, 1.0, 1.0], dtype=torch.float64))
    strained = batch.with_positions(positions=batch.positions @ stretch, cell=batch.cell @ stretch)
    torch.testing.assert_close(strained.neighbor_vectors(), batch.neighbor_vectors() @ stretch)


def test_sums_over_atoms_and_float32() -> None:
    batch = collate(MIXED, 4.0, dtype=torch.float32)
    assert batch.positions.dtype == batch.cell.dtype == torch.float32
    assert batch.rng_keys.dtype == torch.int64
    ones = batch.sum_over_atoms(torch.ones(len(batch.numbers)))
    assert ones.tolist() == [len(s) for s in MIXED]


def test_segment_indices_are_concatenated_ranges() -> None:
    starts, lengths = torch.tensor([7, 0, 3, 3]), torch.tensor([2, 3, 0, 1])
    assert segment_indices(starts, lengths).tolist() == [7, 8, 0, 1, 2, 3]
    assert segment_offsets(lengths).tolist() == [0, 2, 5, 5, 6]
    assert segment_ids(lengths).tolist() == [0, 0, 1, 1, 1, 3]
