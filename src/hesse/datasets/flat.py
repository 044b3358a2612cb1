"""Structures and labels as flat tensors in the type and on the device of their use; batches are made by indexing there.

All sizes are known on the host. What a batch needs of indices is worked out there and sent in one piece, so that
nothing waits for an accelerator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from hesse.datasets.pairs import PairTable, find_pairs
from hesse.structures import Batch, Labels, ragged_indices

__all__ = ["FlatData", "FlatStructures", "flat_columns", "joined_labels"]


@dataclass(frozen=True, eq=False, kw_only=True)
class FlatStructures:
    """Geometry of structures laid end to end.

    Attributes:
        numbers: atomic numbers.
        positions: Å.
        cell: lattice vectors as rows, Å; zeros where there is none.
        pbc: which directions repeat.
        keys: a number per structure, from its id (`hesse.structures.structure_key`).
        ids: the ids, `[structures]`, Python strings.
        n_atoms: size of each structure, on the host.
    """

    numbers: Int[Tensor, "atoms"]
    positions: Float[Tensor, "atoms 3"]
    cell: Float[Tensor, "structures 3 3"]
    pbc: Bool[Tensor, "structures 3"]
    keys: Int[Tensor, "structures"]
    ids: NDArray[np.object_]
    n_atoms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.n_atoms)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> FlatStructures:
        """On another device, with positions and cells in another type."""
        return replace(
            self,
            numbers=self.numbers.to(device),
            positions=self.positions.to(device, dtype),
            cell=self.cell.to(device, dtype),
            pbc=self.pbc.to(device),
            keys=self.keys.to(device),
        )

    def select(self, indices: NDArray[np.int64]) -> FlatStructures:
        """The structures `indices`, in that order. Tensors must be on the host."""
        chosen, n = torch.from_numpy(indices), self.n_atoms[indices]
        first = (np.cumsum(self.n_atoms) - self.n_atoms)[indices]
        atoms = ragged_indices(torch.from_numpy(first), torch.from_numpy(n))
        return FlatStructures(
            numbers=self.numbers[atoms],
            positions=self.positions[atoms],
            cell=self.cell[chosen],
            pbc=self.pbc[chosen],
            keys=self.keys[chosen],
            ids=self.ids[indices],
            n_atoms=n,
        )

    def pairs(self, cutoff: float) -> PairTable:
        """All neighbour pairs below `cutoff` Å. Positions must be on the host and in float64."""
        return find_pairs(self.positions.numpy(), self.n_atoms, self.cell.numpy(), self.pbc.numpy(), cutoff)


class FlatData:
    """Flat tensors of structures, their labels and neighbour pairs.

    Args:
        structures: geometry.
        labels: of the same structures.
        pairs: all neighbour pairs below `cutoff`.
        cutoff: Å.
    """

    def __init__(self, structures: FlatStructures, labels: Labels, pairs: PairTable, cutoff: float) -> None:
        self.structures, self.labels, self.pairs, self.cutoff = structures, labels, pairs, cutoff
        n = structures.n_atoms
        self._first = np.cumsum(n) - n
        counts = pairs.counts.cpu().numpy()
        some = len(n) > 0
        # Every structure has an atom, so no block is empty.
        self._width = np.maximum.reduceat(counts, self._first) if some else counts
        lengths = labels.hessian_lengths().cpu().numpy() if labels.hessian is not None else np.zeros_like(n)
        self._lengths, self._elements = lengths, np.cumsum(lengths) - lengths

    def __len__(self) -> int:
        return len(self.structures)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> FlatData:
        """On another device, and floating-point values in another type (energies stay in float64)."""
        return FlatData(
            self.structures.to(device, dtype), self.labels.to(device, dtype), self.pairs.to(device), self.cutoff
        )

    @classmethod
    def joined(cls, parts: Sequence[FlatData]) -> FlatData:
        """All structures of `parts`, end to end. The parts must hold the same labels, for one cutoff."""
        tensors = {
            name: torch.cat([getattr(part.structures, name) for part in parts])
            for name in ("numbers", "positions", "cell", "pbc", "keys")
        }
        structures = FlatStructures(
            **tensors,
            ids=np.concatenate([part.structures.ids for part in parts]),
            n_atoms=np.concatenate([part.structures.n_atoms for part in parts]),
        )
        tables = [part.pairs for part in parts]
        counts = torch.cat([table.counts for table in tables])
        shifts = None
        if any(table.shifts is not None for table in tables):
            filled = [t.second.new_zeros(len(t.second), 3) if t.shifts is None else t.shifts for t in tables]
            shifts = torch.cat(filled)
        pairs = PairTable(counts, counts.cumsum(0) - counts, torch.cat([table.second for table in tables]), shifts)
        return cls(structures, joined_labels([part.labels for part in parts]), pairs, parts[0].cutoff)

    def bytes(self) -> int:
        """What the tensors take."""
        held = [vars(record).values() for record in (self.structures, self.labels, self.pairs)]
        return sum(v.numel() * v.element_size() for values in held for v in values if isinstance(v, Tensor))

    def batch(self, indices: Sequence[int] | Int[Tensor, "chosen"] | NDArray[np.int64]) -> tuple[Batch, Labels]:
        """Structures `indices` as a batch with their labels. Indexing only: no loop over structures."""
        flat = self.structures
        chosen = np.asarray(indices, dtype=np.int64)
        n = flat.n_atoms[chosen]
        begin = np.cumsum(n) - n
        total = int(n.sum())
        owner = np.repeat(np.arange(len(chosen)), n)
        atom = np.arange(total)
        place = self._sent(owner, n, chosen, atom + (self._first[chosen] - begin)[owner], begin[owner])
        owners, sizes, structures, atoms, first = place
        neighbours, mask, shifts = self._neighbours(chosen, atoms, first)
        batch = Batch(
            numbers=flat.numbers.index_select(0, atoms),
            positions=flat.positions.index_select(0, atoms),
            n_atoms=sizes,
            owner=owners,
            cell=flat.cell.index_select(0, structures),
            pbc=flat.pbc.index_select(0, structures),
            neighbours=neighbours,
            neighbour_mask=mask,
            shifts=shifts,
            keys=flat.keys.index_select(0, structures),
            ids=tuple(flat.ids[chosen]),
            cutoff=self.cutoff,
        )
        elements = None
        if self.labels.hessian is not None:
            starts, lengths = self._sent(self._elements[chosen], self._lengths[chosen])
            elements = ragged_indices(starts, lengths, int(self._lengths[chosen].sum()))
        return batch, self.labels.gather(structures, atoms, elements, n_atoms=sizes)

    def _neighbours(
        self, chosen: NDArray[np.int64], atoms: Int[Tensor, "some"], first: Int[Tensor, "some"]
    ) -> tuple[Int[Tensor, "some k"], Bool[Tensor, "some k"], Float[Tensor, "some k 3"] | None]:
        """The neighbour matrix of the atoms, straight from the pairs; unused places point to the atom itself."""
        pairs, device = self.pairs, atoms.device
        width = int(self._width[chosen].max()) if len(chosen) else 0
        own = torch.arange(len(atoms), device=device)[:, None]
        if width == 0:
            return own.clone(), torch.zeros_like(own, dtype=torch.bool), None
        place = torch.arange(width, device=device)
        mask = place < pairs.counts.index_select(0, atoms)[:, None]
        index = (pairs.starts.index_select(0, atoms)[:, None] + place).clamp_(max=len(pairs.second) - 1)
        there = pairs.second.index_select(0, index.reshape(-1)).reshape(index.shape) + first[:, None]
        shifts = None
        if pairs.shifts is not None:
            images = pairs.shifts.index_select(0, index.reshape(-1)).reshape(*index.shape, 3)
            shifts = torch.where(mask[..., None], images, 0).to(self.structures.positions.dtype)
        return torch.where(mask, there, own), mask, shifts

    def _sent(self, *arrays: NDArray[np.int64]) -> list[Int[Tensor, "items"]]:
        """Arrays of the host on the device of the tensors, in one piece."""
        device = self.structures.positions.device
        if device.type == "cpu":
            return [torch.from_numpy(array) for array in arrays]
        # Every array starts at a multiple of 16 bytes, as compiled code wants it.
        ends = np.cumsum([len(array) + len(array) % 2 for array in arrays]).tolist()
        packed = np.zeros(ends[-1], dtype=np.int64)
        starts = [0, *ends[:-1]]
        for start, array in zip(starts, arrays, strict=True):
            packed[start : start + len(array)] = array
        host = torch.from_numpy(packed)
        sent = (host.pin_memory() if device.type == "cuda" else host).to(device, non_blocking=True)
        return [sent[start : start + len(array)] for start, array in zip(starts, arrays, strict=True)]


def flat_columns(numbers: Any, positions: Any, cell: Any, pbc: Any) -> dict[str, Tensor]:
    """Arrays of geometry as tensors of the types of `FlatStructures`."""
    return {
        "numbers": torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.int64)),
        "positions": torch.from_numpy(np.ascontiguousarray(positions, dtype=np.float64).reshape(-1, 3)),
        "cell": torch.from_numpy(np.ascontiguousarray(cell, dtype=np.float64).reshape(-1, 3, 3)),
        "pbc": torch.from_numpy(np.ascontiguousarray(pbc, dtype=np.bool_).reshape(-1, 3)),
    }


def joined_labels(parts: Sequence[Labels]) -> Labels:
    """Labels of parts that hold the same ones, end to end; masks stay where they are."""
    columns: dict[str, Any] = {}
    for f in fields(Labels):
        values = [getattr(part, f.name) for part in parts]
        if values[0] is not None:
            over_probes = f.name in ("probes", "hvp", "hvp_mask", "hvp_error")
            columns[f.name] = torch.cat(values, dim=1 if over_probes else 0)
    return Labels(**columns)
