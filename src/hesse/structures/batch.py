"""A batch: structures laid end to end without padding of atoms, with a neighbour matrix.

The neighbour matrix lists, for each atom, up to K neighbours and a mask for the unused places. Messages are then a
gather and a batched matrix product, which runs 7 to 8 times faster than an edge list with scattered sums on small
molecules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hesse.structures.ragged import owners_of
from hesse.structures.structure import Structure, structure_key

__all__ = ["Batch", "assemble", "collate"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """Structures, end to end.

    Attributes:
        numbers: atomic numbers.
        positions: Å; what energies are differentiated by.
        n_atoms: size of each structure.
        owner: the structure that each atom belongs to.
        cell: lattice vectors as rows, Å; zeros where there is none.
        neighbours: for each atom, the indices of its neighbours in this batch; unused places point to the atom itself.
        neighbour_mask: which places are used.
        shifts: lattice translations of each neighbour (whole numbers), or None when no structure is periodic.
        keys: a 63-bit number per structure, from its id: random probes are drawn from it.
        ids: the ids, for messages.
        cutoff: Å; the neighbour matrix holds all pairs below it.
        tables: what a potential found ahead in this batch for itself (`Potential.prepare`); None for nothing.
    """

    numbers: Int[Tensor, "atoms"]
    positions: Float[Tensor, "atoms 3"]
    n_atoms: Int[Tensor, "structures"]
    owner: Int[Tensor, "atoms"]
    cell: Float[Tensor, "structures 3 3"]
    pbc: Bool[Tensor, "structures 3"]
    neighbours: Int[Tensor, "atoms k"]
    neighbour_mask: Bool[Tensor, "atoms k"]
    shifts: Float[Tensor, "atoms k 3"] | None
    keys: Int[Tensor, "structures"]
    ids: tuple[str, ...]
    cutoff: float
    tables: Any = None

    def __len__(self) -> int:
        return len(self.n_atoms)

    def replace(
        self, *, positions: Float[Tensor, "atoms 3"], cell: Float[Tensor, "structures 3 3"] | None = None
    ) -> Batch:
        """The same structures with other positions (and cells); neighbour matrix and tables are kept as they are: where
        atoms move far, make a new batch."""
        return replace(self, positions=positions, cell=self.cell if cell is None else cell)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Batch:
        """On another device, and floating-point values in another type."""
        return replace(
            self,
            numbers=self.numbers.to(device),
            positions=self.positions.to(device=device, dtype=dtype),
            n_atoms=self.n_atoms.to(device),
            owner=self.owner.to(device),
            cell=self.cell.to(device=device, dtype=dtype),
            pbc=self.pbc.to(device),
            neighbours=self.neighbours.to(device),
            neighbour_mask=self.neighbour_mask.to(device),
            shifts=None if self.shifts is None else self.shifts.to(device=device, dtype=dtype),
            keys=self.keys.to(device),
        )

    def pair_vectors(self) -> Float[Tensor, "atoms k 3"]:
        """From each atom to each of its neighbours (the right image), Å; zero in unused places."""
        k = self.neighbours.shape[1]
        there = self.positions.index_select(0, self.neighbours.reshape(-1)).reshape(-1, k, 3)
        vectors = there - self.positions[:, None]
        if self.shifts is not None:
            vectors = vectors + self.shifts @ self.cell.index_select(0, self.owner)
        return vectors

    def sum_by_structure(self, values: Float[Tensor, "atoms *rest"]) -> Float[Tensor, "structures *rest"]:
        """Sum of per-atom values over each structure."""
        zeros = values.new_zeros(len(self.n_atoms), *values.shape[1:])
        return zeros.index_add(0, self.owner, values)


def collate(
    structures: Sequence[Structure],
    cutoff: float,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Batch:
    """A batch from structures, with all pairs below `cutoff` Å. Neighbour lists stay with the structures."""
    n_atoms = torch.tensor([len(s) for s in structures])
    lists = [s.neighbours(cutoff) for s in structures]
    starts = np.concatenate([[0], np.cumsum([len(s) for s in structures])])
    counts = torch.from_numpy(np.concatenate([pairs.counts for pairs in lists]))
    second = torch.from_numpy(np.concatenate([p.second + o for p, o in zip(lists, starts, strict=False)]))
    periodic = any(s.periodic for s in structures)
    shifts = torch.from_numpy(np.concatenate([p.shifts for p in lists])) if periodic else None
    return assemble(
        numbers=torch.from_numpy(np.concatenate([s.numbers for s in structures])),
        positions=torch.from_numpy(np.concatenate([s.positions for s in structures])),
        n_atoms=n_atoms,
        cell=torch.from_numpy(np.stack([s.cell for s in structures])),
        pbc=torch.tensor([s.pbc for s in structures]),
        pair_counts=counts,
        pair_starts=counts.cumsum(0) - counts,
        pair_second=second,
        pair_shifts=shifts,
        keys=torch.tensor([structure_key(s.id) for s in structures]),
        ids=tuple(s.id for s in structures),
        cutoff=cutoff,
    ).to(device, dtype)


def assemble(
    *,
    numbers: Int[Tensor, "atoms"],
    positions: Float[Tensor, "atoms 3"],
    n_atoms: Int[Tensor, "structures"],
    cell: Float[Tensor, "structures 3 3"],
    pbc: Bool[Tensor, "structures 3"],
    pair_counts: Int[Tensor, "atoms"],
    pair_starts: Int[Tensor, "atoms"],
    pair_second: Int[Tensor, "pairs"],
    pair_shifts: Int[Tensor, "pairs 3"] | None,
    keys: Int[Tensor, "structures"],
    ids: tuple[str, ...],
    cutoff: float,
) -> Batch:
    """A batch from flat arrays; the one place where pair lists become a neighbour matrix.

    The neighbours of atom `a` are `pair_second[pair_starts[a] : pair_starts[a] + pair_counts[a]]`, as indices into this
    batch.
    """
    atoms = len(numbers)
    width = max(int(pair_counts.max()), 1) if atoms else 1
    place = torch.arange(width, device=numbers.device)
    mask = place[None] < pair_counts[:, None]
    if len(pair_second):
        pairs = (pair_starts[:, None] + place[None]).clamp(max=len(pair_second) - 1)
        neighbours = torch.where(mask, pair_second[pairs], torch.arange(atoms, device=numbers.device)[:, None])
        shifts = None if pair_shifts is None else torch.where(mask[..., None], pair_shifts[pairs], 0)
    else:
        neighbours = torch.arange(atoms, device=numbers.device)[:, None].expand(atoms, width).contiguous()
        shifts = None
    return Batch(
        numbers=numbers,
        positions=positions,
        n_atoms=n_atoms,
        owner=owners_of(n_atoms),
        cell=cell,
        pbc=pbc,
        neighbours=neighbours,
        neighbour_mask=mask,
        shifts=None if shifts is None else shifts.to(positions.dtype),
        keys=keys,
        ids=ids,
        cutoff=cutoff,
    )
