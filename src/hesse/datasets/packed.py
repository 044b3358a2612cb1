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

from hesse.structures import Batch, Properties, segment_indices
from hesse.structures.pairs import PairList, neighbor_pairs

__all__ = ["PackedDataset", "PackedStructures", "concatenate_labels", "geometry_tensors"]


@dataclass(frozen=True, eq=False, kw_only=True)
class PackedStructures:
    """Geometry of structures laid end to end.

    Attributes:
        numbers: atomic numbers.
        positions: Å.
        cell: lattice vectors as rows, Å; zeros where there is none.
        pbc: which directions repeat.
        keys: a number per structure, from its id (`hesse.structures.rng_key`).
        ids: the ids, `[structures]`, Python strings.
        n_atoms: size of each structure, on the host.
    """

    numbers: Int[Tensor, "atoms"]
    positions: Float[Tensor, "atoms 3"]
    cell: Float[Tensor, "structures 3 3"]
    pbc: Bool[Tensor, "structures 3"]
    rng_keys: Int[Tensor, "structures"]
    ids: NDArray[np.object_]
    n_atoms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.n_atoms)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> PackedStructures:
        """On another device, with positions and cells in another type."""
        return replace(
            self,
            numbers=self.numbers.to(device),
            positions=self.positions.to(device, dtype),
            cell=self.cell.to(device, dtype),
            pbc=self.pbc.to(device),
            rng_keys=self.rng_keys.to(device),
        )

    def select(self, indices: NDArray[np.int64]) -> PackedStructures:
        """The structures `indices`, in that order. Tensors must be on the host."""
        chosen, n = torch.from_numpy(indices), self.n_atoms[indices]
        first_atoms = (np.cumsum(self.n_atoms) - self.n_atoms)[indices]
        atoms = segment_indices(torch.from_numpy(first_atoms), torch.from_numpy(n))
        return PackedStructures(
            numbers=self.numbers[atoms],
            positions=self.positions[atoms],
            cell=self.cell[chosen],
            pbc=self.pbc[chosen],
            rng_keys=self.rng_keys[chosen],
            ids=self.ids[indices],
            n_atoms=n,
        )

    def pairs(self, cutoff: float) -> PairList:
        """All neighbor pairs below `cutoff` Å. Positions must be on the host and in float64."""
        return neighbor_pairs(self.positions.numpy(), self.n_atoms, self.cell.numpy(), self.pbc.numpy(), cutoff)


class PackedDataset:
    """Flat tensors of structures, their labels and neighbor pairs.

    Args:
        structures: geometry.
        labels: of the same structures.
        pairs: all neighbor pairs below `cutoff`.
        cutoff: Å.
    """

    def __init__(self, structures: PackedStructures, labels: Properties, pairs: PairList, cutoff: float) -> None:
        self.structures, self.labels, self.pairs, self.cutoff = structures, labels, pairs, cutoff
        n = structures.n_atoms
        self._first_atom = np.cumsum(n) - n
        counts = pairs.counts.cpu().numpy()
        has_structures = len(n) > 0
        # Every structure has an atom, so no block is empty.
        self._max_neighbors = np.maximum.reduceat(counts, self._first_atom) if has_structures else counts
        hessian_lengths = labels.hessian_lengths().cpu().numpy() if labels.hessian is not None else np.zeros_like(n)
        self._hessian_lengths, self._hessian_starts = hessian_lengths, np.cumsum(hessian_lengths) - hessian_lengths

    def __len__(self) -> int:
        return len(self.structures)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> PackedDataset:
        """On another device, and floating-point values in another type (energies stay in float64)."""
        return PackedDataset(
            self.structures.to(device, dtype), self.labels.to(device, dtype), self.pairs.to(device), self.cutoff
        )

    @classmethod
    def concatenate(cls, parts: Sequence[PackedDataset]) -> PackedDataset:
        """All structures of `parts`, end to end. The parts must hold the same labels, for one cutoff."""
        tensors = {
            name: torch.cat([getattr(part.structures, name) for part in parts])
            for name in ("numbers", "positions", "cell", "pbc", "rng_keys")
        }
        structures = PackedStructures(
            **tensors,
            ids=np.concatenate([part.structures.ids for part in parts]),
            n_atoms=np.concatenate([part.structures.n_atoms for part in parts]),
        )
        pair_lists = [part.pairs for part in parts]
        counts = torch.cat([table.counts for table in pair_lists])
        cell_shifts = None
        if any(table.cell_shifts is not None for table in pair_lists):
            dense_shifts = [
                t.neighbors.new_zeros(len(t.neighbors), 3) if t.cell_shifts is None else t.cell_shifts
                for t in pair_lists
            ]
            cell_shifts = torch.cat(dense_shifts)
        pairs = PairList(
            counts, counts.cumsum(0) - counts, torch.cat([table.neighbors for table in pair_lists]), cell_shifts
        )
        return cls(structures, concatenate_labels([part.labels for part in parts]), pairs, parts[0].cutoff)

    def n_bytes(self) -> int:
        """What the tensors take."""
        columns = [vars(record).values() for record in (self.structures, self.labels, self.pairs)]
        return sum(v.numel() * v.element_size() for values in columns for v in values if isinstance(v, Tensor))

    def batch(self, indices: Sequence[int] | Int[Tensor, "chosen"] | NDArray[np.int64]) -> tuple[Batch, Properties]:
        """Structures `indices` as a batch with their labels. Indexing only: no loop over structures."""
        source = self.structures
        chosen = np.asarray(indices, dtype=np.int64)
        n = source.n_atoms[chosen]
        batch_starts = np.cumsum(n) - n
        total = int(n.sum())
        structure_of_atom = np.repeat(np.arange(len(chosen)), n)
        atom = np.arange(total)
        on_device = self._to_device(
            structure_of_atom,
            n,
            chosen,
            atom + (self._first_atom[chosen] - batch_starts)[structure_of_atom],
            batch_starts[structure_of_atom],
        )
        structure_index, sizes, structures, atoms, first_atom = on_device
        neighbors, mask, shifts = self._neighbor_matrix(chosen, atoms, first_atom)
        batch = Batch(
            numbers=source.numbers.index_select(0, atoms),
            positions=source.positions.index_select(0, atoms),
            n_atoms=sizes,
            structure_index=structure_index,
            cell=source.cell.index_select(0, structures),
            pbc=source.pbc.index_select(0, structures),
            neighbors=neighbors,
            neighbor_mask=mask,
            cell_shifts=shifts,
            rng_keys=source.rng_keys.index_select(0, structures),
            ids=tuple(source.ids[chosen]),
            cutoff=self.cutoff,
        )
        elements = None
        if self.labels.hessian is not None:
            starts, lengths = self._to_device(self._hessian_starts[chosen], self._hessian_lengths[chosen])
            elements = segment_indices(starts, lengths, int(self._hessian_lengths[chosen].sum()))
        return batch, self.labels.index_select(structures, atoms, elements, n_atoms=sizes)

    def _neighbor_matrix(
        self, chosen: NDArray[np.int64], atoms: Int[Tensor, "some"], first_atom: Int[Tensor, "some"]
    ) -> tuple[Int[Tensor, "some k"], Bool[Tensor, "some k"], Float[Tensor, "some k 3"] | None]:
        """The neighbor matrix of the atoms, straight from the pairs; unused places point to the atom itself."""
        pairs, device = self.pairs, atoms.device
        max_neighbors = int(self._max_neighbors[chosen].max()) if len(chosen) else 0
        self_index = torch.arange(len(atoms), device=device)[:, None]
        if max_neighbors == 0:
            return self_index.clone(), torch.zeros_like(self_index, dtype=torch.bool), None
        slot = torch.arange(max_neighbors, device=device)
        mask = slot < pairs.counts.index_select(0, atoms)[:, None]
        index = (pairs.starts.index_select(0, atoms)[:, None] + slot).clamp_(max=len(pairs.neighbors) - 1)
        neighbors = pairs.neighbors.index_select(0, index.reshape(-1)).reshape(index.shape) + first_atom[:, None]
        cell_shifts = None
        if pairs.cell_shifts is not None:
            integer_shifts = pairs.cell_shifts.index_select(0, index.reshape(-1)).reshape(*index.shape, 3)
            cell_shifts = torch.where(mask[..., None], integer_shifts, 0).to(self.structures.positions.dtype)
        return torch.where(mask, neighbors, self_index), mask, cell_shifts

    def _to_device(self, *arrays: NDArray[np.int64]) -> list[Int[Tensor, "items"]]:
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
        transferred = (host.pin_memory() if device.type == "cuda" else host).to(device, non_blocking=True)
        return [transferred[start : start + len(array)] for start, array in zip(starts, arrays, strict=True)]


def geometry_tensors(numbers: Any, positions: Any, cell: Any, pbc: Any) -> dict[str, Tensor]:
    """Arrays of geometry as tensors of the types of `PackedStructures`."""
    return {
        "numbers": torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.int64)),
        "positions": torch.from_numpy(np.ascontiguousarray(positions, dtype=np.float64).reshape(-1, 3)),
        "cell": torch.from_numpy(np.ascontiguousarray(cell, dtype=np.float64).reshape(-1, 3, 3)),
        "pbc": torch.from_numpy(np.ascontiguousarray(pbc, dtype=np.bool_).reshape(-1, 3)),
    }


def concatenate_labels(parts: Sequence[Properties]) -> Properties:
    """Labels of parts that hold the same ones, end to end; masks stay where they are."""
    columns: dict[str, Any] = {}
    for f in fields(Properties):
        values = [getattr(part, f.name) for part in parts]
        if values[0] is not None:
            over_probes = f.name in ("probes", "hvp", "hvp_mask", "hvp_error")
            columns[f.name] = torch.cat(values, dim=1 if over_probes else 0)
    return Properties(**columns)
