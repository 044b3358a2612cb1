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

__all__ = ["ATOMS", "smallest_size", "with_companion", "with_zeros"]

ATOMS = 3
SIDE = 1.5
"""Å. Three atoms of an element that the batch has, in a triangle: each has two neighbours, which make a triple."""


def smallest_size(batch: Batch) -> int:
    """The smallest of the sizes that differ between batches, those of its tables included."""
    return min((size for tensor in _tensors(batch) for size in tensor.shape), default=0)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Batch):
        yield from (value.n_atoms, value.numbers, value.neighbours)
        yield from _tensors(value.tables)
    elif isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _tensors(part)


def with_companion(batch: Batch) -> Batch:
    """The batch, without its tables, and after its structures a triangle of atoms of its first element."""
    atoms, given = batch.neighbours.shape
    width = max(given, ATOMS - 1)
    place = torch.arange(atoms + ATOMS, device=batch.numbers.device)
    neighbours = place[:, None].repeat(1, width)
    neighbours[:atoms, :given] = batch.neighbours
    mask = torch.zeros_like(neighbours, dtype=torch.bool)
    mask[:atoms, :given] = batch.neighbour_mask
    for step in range(1, ATOMS):
        neighbours[atoms:, step - 1] = atoms + (place[:ATOMS] + step) % ATOMS
    mask[atoms:, : ATOMS - 1] = True
    corners = batch.positions.new_tensor([[0.0, 0.0, 0.0], [SIDE, 0.0, 0.0], [0.5 * SIDE, 0.75**0.5 * SIDE, 0.0]])
    shifts = None
    if batch.shifts is not None:
        shifts = batch.shifts.new_zeros(atoms + ATOMS, width, 3)
        shifts[:atoms, :given] = batch.shifts
    return replace(
        batch,
        numbers=torch.cat([batch.numbers, batch.numbers[:1].expand(ATOMS)]),
        positions=torch.cat([batch.positions, corners]),
        n_atoms=torch.cat([batch.n_atoms, batch.n_atoms.new_tensor([ATOMS])]),
        owner=torch.cat([batch.owner, batch.owner.new_full((ATOMS,), len(batch))]),
        cell=with_zeros(batch.cell, 1),
        pbc=with_zeros(batch.pbc, 1),
        neighbours=neighbours,
        neighbour_mask=mask,
        shifts=shifts,
        keys=with_zeros(batch.keys, 1),
        ids=(*batch.ids, ""),
        tables=None,
    )


def with_zeros(values: Tensor, more: int, dim: int = 0) -> Tensor:
    """Values of atoms or structures, and zeros for `more` of them."""
    shape = list(values.shape)
    shape[dim] = more
    return torch.cat([values, values.new_zeros(shape)], dim=dim)
