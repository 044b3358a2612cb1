"""Structures, labels and neighbor pairs packed into tensors, from which batches are made by indexing.

The tensors have the floating-point type and lie on the device on which they are used. All sizes are kept on the CPU:
the indices of a batch are computed there and transferred in one piece, so that the CPU never waits for an accelerator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Batch, Properties, segment_indices
from hesse.structures.pairs import PairList, neighbor_matrix, neighbor_pairs

__all__ = ["PackedDataset", "PackedStructures", "concatenate_labels", "geometry_tensors"]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class PackedStructures(ShortRepr):
    """Geometries of many structures, their atoms end to end.

    Attributes:
        numbers: atomic numbers.
        positions: Å.
        cell: lattice vectors as rows, Å; zeros for structures without a cell.
        pbc: which directions are periodic.
        rng_keys: seed of the random draws of each structure, from its id (`hesse.structures.rng_key`).
        ids: the ids, `[structures]`, Python strings.
        n_atoms: number of atoms of each structure, on the CPU.
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
        """Convert to another device and floating-point type.

        Args:
            device: device of all tensors.
            dtype: type of positions and cells.

        Returns:
            The converted geometries.
        """
        return replace(
            self,
            numbers=self.numbers.to(device),
            positions=self.positions.to(device, dtype),
            cell=self.cell.to(device, dtype),
            pbc=self.pbc.to(device),
            rng_keys=self.rng_keys.to(device),
        )

    def select(self, indices: NDArray[np.int64]) -> PackedStructures:
        """Select structures by their indices. The tensors must be on the CPU.

        Args:
            indices: which structures, in the order of the result.

        Returns:
            These structures.
        """
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
        """Find all neighbor pairs. The tensors must be on the CPU and in float64.

        Args:
            cutoff: largest distance of a pair, Å.

        Returns:
            The pairs of all structures.
        """
        return neighbor_pairs(self.positions.numpy(), self.n_atoms, self.cell.numpy(), self.pbc.numpy(), cutoff)


class PackedDataset:
    """Structures, their labels and their neighbor pairs as packed tensors.

    Args:
        structures: the geometries.
        labels: the labels of these structures.
        pairs: all neighbor pairs closer than `cutoff`.
        cutoff: largest distance of a neighbor pair, Å.
    """

    def __init__(self, structures: PackedStructures, labels: Properties, pairs: PairList, cutoff: float) -> None:
        self.structures, self.labels, self.pairs, self.cutoff = structures, labels, pairs, cutoff
        n = structures.n_atoms
        self._first_atom = np.cumsum(n) - n
        counts = pairs.counts.cpu().numpy()
        has_structures = len(n) > 0
        # Every structure has at least one atom, so no segment is empty.
        self._max_neighbors = np.maximum.reduceat(counts, self._first_atom) if has_structures else counts
        hessian_lengths = labels.hessian_lengths().cpu().numpy() if labels.hessian is not None else np.zeros_like(n)
        self._hessian_lengths, self._hessian_starts = hessian_lengths, np.cumsum(hessian_lengths) - hessian_lengths

    def __len__(self) -> int:
        return len(self.structures)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> PackedDataset:
        """Convert to another device and floating-point type.

        Args:
            device: device of all tensors.
            dtype: type of positions, cells and labels (energies stay in float64).

        Returns:
            The converted data.
        """
        return PackedDataset(
            self.structures.to(device, dtype), self.labels.to(device, dtype), self.pairs.to(device), self.cutoff
        )

    @classmethod
    def concatenate(cls, parts: Sequence[PackedDataset]) -> PackedDataset:
        """Join several packed data sets, end to end.

        Args:
            parts: data sets with the same labels and the same cutoff.

        Returns:
            All structures of `parts`.
        """
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
        """Add up the sizes of all tensors.

        Returns:
            Memory in bytes.
        """
        columns = [vars(record).values() for record in (self.structures, self.labels, self.pairs)]
        return sum(v.numel() * v.element_size() for values in columns for v in values if isinstance(v, Tensor))

    def batch(self, indices: Sequence[int] | Int[Tensor, "chosen"] | NDArray[np.int64]) -> tuple[Batch, Properties]:
        """Make a batch of some structures, by indexing alone (no loop over structures).

        Args:
            indices: which structures.

        Returns:
            The batch, and the labels of the same structures.
        """
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
        """Neighbors, mask and cell shifts of the atoms of a batch, as in `Batch`; unused slots hold the atom itself."""
        pairs = self.pairs
        neighbors, mask, cell_shifts = neighbor_matrix(
            pairs.counts.index_select(0, atoms),
            pairs.starts.index_select(0, atoms),
            pairs.neighbors,
            pairs.cell_shifts,
            int(self._max_neighbors[chosen].max()) if len(chosen) else 0,
            first_atom,
        )
        return neighbors, mask, None if cell_shifts is None else cell_shifts.to(self.structures.positions.dtype)

    def _to_device(self, *arrays: NDArray[np.int64]) -> list[Int[Tensor, "items"]]:
        """Copies of arrays on the device of the tensors, transferred in one piece."""
        device = self.structures.positions.device
        if device.type == "cpu":
            return [torch.from_numpy(array) for array in arrays]
        # Every array starts at a multiple of 16 bytes, as compiled code requires.
        ends = np.cumsum([len(array) + len(array) % 2 for array in arrays]).tolist()
        packed = np.zeros(ends[-1], dtype=np.int64)
        starts = [0, *ends[:-1]]
        for start, array in zip(starts, arrays, strict=True):
            packed[start : start + len(array)] = array
        host = torch.from_numpy(packed)
        transferred = (host.pin_memory() if device.type == "cuda" else host).to(device, non_blocking=True)
        return [transferred[start : start + len(array)] for start, array in zip(starts, arrays, strict=True)]


def geometry_tensors(numbers: Any, positions: Any, cell: Any, pbc: Any) -> dict[str, Tensor]:
    """Convert arrays to the tensors that `PackedStructures` holds.

    Args:
        numbers: atomic numbers of all structures, `[atoms]`.
        positions: Å, `[atoms, 3]`.
        cell: lattice vectors as rows, Å, `[structures, 3, 3]`.
        pbc: which directions are periodic, `[structures, 3]`.

    Returns:
        Tensors by the names of the arguments; real numbers in float64.
    """
    return {
        "numbers": torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.int64)),
        "positions": torch.from_numpy(np.ascontiguousarray(positions, dtype=np.float64).reshape(-1, 3)),
        "cell": torch.from_numpy(np.ascontiguousarray(cell, dtype=np.float64).reshape(-1, 3, 3)),
        "pbc": torch.from_numpy(np.ascontiguousarray(pbc, dtype=np.bool_).reshape(-1, 3)),
    }


def concatenate_labels(parts: Sequence[Properties]) -> Properties:
    """Join labels end to end. Unlike `Properties.concatenate`, this one keeps all masks, also those without gaps.

    Args:
        parts: records with the same fields.

    Returns:
        One record for all structures.
    """
    arrays = {
        column.name: torch.cat([part.__dict__[column.name] for part in parts], dim=1 if column.probe_axis else 0)
        for column, _ in parts[0].items()
    }
    return Properties(n_atoms=torch.cat([part.n_atoms for part in parts]), **arrays)
