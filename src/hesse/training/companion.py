"""Batches too small to be compiled for all sizes, made larger by a structure that no loss looks at.

A compiler takes sizes of 0 and 1 for constants: a batch of a single structure, of diatomic molecules, or without
triples of atoms would each be compiled anew, and differently.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hesse.structures import Batch

__all__ = ["DUMMY_ATOMS", "min_dimension", "pad_with_dummy", "append_zeros"]

DUMMY_ATOMS = 3
DUMMY_EDGE = 1.5
"""Å. Three atoms of an element that the batch has, in a triangle: each has two neighbours, which make a triple."""


def min_dimension(batch: Batch) -> int:
    """The smallest of the sizes that differ between batches, those of its tables included."""
    return min((size for tensor in _iter_tensors(batch) for size in tensor.shape), default=0)


def _iter_tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Batch):
        yield from (value.n_atoms, value.numbers, value.neighbours)
        yield from _iter_tensors(value.precomputed)
    elif isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _iter_tensors(item)


def pad_with_dummy(batch: Batch) -> Batch:
    """The batch, without its tables, and after its structures a triangle of atoms of its first element."""
    atoms, old_width = batch.neighbours.shape
    width = max(old_width, DUMMY_ATOMS - 1)
    atom_index = torch.arange(atoms + DUMMY_ATOMS, device=batch.numbers.device)
    neighbours = atom_index[:, None].repeat(1, width)
    neighbours[:atoms, :old_width] = batch.neighbours
    mask = torch.zeros_like(neighbours, dtype=torch.bool)
    mask[:atoms, :old_width] = batch.neighbour_mask
    for step in range(1, DUMMY_ATOMS):
        neighbours[atoms:, step - 1] = atoms + (atom_index[:DUMMY_ATOMS] + step) % DUMMY_ATOMS
    mask[atoms:, : DUMMY_ATOMS - 1] = True
    corners = batch.positions.new_tensor([[0.0, 0.0, 0.0], [DUMMY_EDGE, 0.0, 0.0], [0.5 * DUMMY_EDGE, 0.75**0.5 * DUMMY_EDGE, 0.0]])
    shifts = None
    if batch.cell_shifts is not None:
        shifts = batch.cell_shifts.new_zeros(atoms + DUMMY_ATOMS, width, 3)
        shifts[:atoms, :old_width] = batch.cell_shifts
    return replace(
        batch,
        numbers=torch.cat([batch.numbers, batch.numbers[:1].expand(DUMMY_ATOMS)]),
        positions=torch.cat([batch.positions, corners]),
        n_atoms=torch.cat([batch.n_atoms, batch.n_atoms.new_tensor([DUMMY_ATOMS])]),
        structure_index=torch.cat([batch.structure_index, batch.structure_index.new_full((DUMMY_ATOMS,), len(batch))]),
        cell=append_zeros(batch.cell, 1),
        pbc=append_zeros(batch.pbc, 1),
        neighbours=neighbours,
        neighbour_mask=mask,
        cell_shifts=shifts,
        rng_keys=append_zeros(batch.rng_keys, 1),
        ids=(*batch.ids, ""),
        precomputed=None,
    )


def append_zeros(values: Tensor, count: int, dim: int = 0) -> Tensor:
    """Values of atoms or structures, and zeros for `more` of them."""
    shape = list(values.shape)
    shape[dim] = count
    return torch.cat([values, values.new_zeros(shape)], dim=dim)
