"""A data set that stays in its file, for data that exceed the memory.

A few numbers per structure (id, size, energy, which labels it has) and one byte per atom are kept in memory. Everything
else is read from Hesse's own HDF5 in blocks of structures that are adjacent in the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from hesse.datasets.base_dataset import BaseDataset
from hesse.datasets.batching import pack_batches
from hesse.datasets.dataset import Dataset
from hesse.datasets.file_index import FileIndex
from hesse.datasets.formats.hdf5 import ChunkedReader
from hesse.datasets.formats.hdf5.content import labels_from_content, structures_from_content
from hesse.datasets.formats.hdf5.schema import DTYPES, Content, schema
from hesse.datasets.packed import PackedDataset, PackedStructures, concatenate_labels, geometry_tensors
from hesse.structures import COLUMNS, Properties, segment_indices

__all__ = ["BLOCKS_PER_BUFFER", "BUFFERS", "DatasetLike", "StreamingDataset", "memory_bytes"]

Indices = NDArray[np.int64]
_MIB: Final = 2**20
BLOCKS_PER_BUFFER: Final = 8
"""Number of blocks, from different parts of the file, whose structures are shuffled together."""
BUFFERS: Final = 4
"""Number of such shuffle buffers that must fit into the memory limit: one in use, one being read, and the temporary
memory of reading."""
_PYTHON_OBJECT_BYTES: Final = 2048
"""Size of a structure as a Python object."""
_GEOMETRY_ARRAYS: Final = tuple(f"structures/{name}" for name in ("offsets", "numbers", "positions", "cell", "pbc"))


class StreamingDataset(BaseDataset["Dataset | StreamingDataset"]):
    """Structures and labels of a file that may not be read into memory as a whole; made by `open_dataset`.

    It has the methods of `hesse.datasets.Dataset` that training needs. The structures keep the order of the file. Parts
    made by `select`, `split`, `with_ids` or `without_suspects` are read into memory if they fit into the limit.

    Attributes:
        memory_mib: limit of the memory of loaded structures, MiB.
        metadata: facts about all labels.
        source: the file.
    """

    def __init__(self, reader: ChunkedReader, index: FileIndex, rows: Indices, memory_mib: float) -> None:
        self._reader, self._index, self._rows, self.memory_mib = reader, index, rows, memory_mib
        self.metadata, self.source = reader.attributes, str(reader.path)
        self._hash: str | None = None

    def __repr__(self) -> str:
        return f"StreamingDataset({self.source!r}, {len(self)} structures, at most {self.memory_mib:g} MiB at once)"

    # --- content -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def ids(self) -> tuple[str, ...]:
        """See `BaseDataset.ids`."""
        return tuple(name.decode() for name in self._index.ids[self._rows].tolist())

    @property
    def rng_keys(self) -> Int[Tensor, "structures"]:
        """See `BaseDataset.rng_keys`."""
        return self._index.rng_keys[torch.from_numpy(self._rows)]

    @property
    def numbers(self) -> Int[Tensor, "atoms"]:
        """See `BaseDataset.numbers`."""
        first_atom, n = self._reader.offsets[self._rows], np.diff(self._reader.offsets)[self._rows]
        pieces = []
        for start in range(0, len(self), 1 << 12):  # indices take eight times the memory of the numbers
            starts, lengths = (torch.from_numpy(x[start : start + (1 << 12)]) for x in (first_atom, n))
            pieces.append(self._index.numbers[segment_indices(starts, lengths).numpy()])
        return torch.from_numpy(np.concatenate(pieces))

    @property
    def n_atoms(self) -> Int[Tensor, "structures"]:
        """See `BaseDataset.n_atoms`."""
        return self._index.energies.n_atoms[torch.from_numpy(self._rows)]

    @property
    def groups(self) -> tuple[str, ...]:
        """See `BaseDataset.groups`."""
        return tuple(name.decode() for name in self._index.groups[self._rows].tolist())

    @property
    def charge_states(self) -> Int[Tensor, "structures 2"]:
        """See `BaseDataset.charge_states`."""
        return self._index.charge_states[torch.from_numpy(self._rows)]

    def _mask(self, name: str) -> Bool[Tensor, "*structures"]:
        mask = self._index.masks.get(name)
        if mask is None:
            return torch.zeros((0, len(self)) if name == "hvp" else (len(self),), dtype=torch.bool)
        return mask[..., torch.from_numpy(self._rows)]

    def _suspect_mask(self) -> Bool[Tensor, "structures"]:
        return self._index.suspect[torch.from_numpy(self._rows)]

    def energies(self) -> Properties:
        """See `BaseDataset.energies`."""
        return self._index.energies.select(torch.from_numpy(self._rows))

    def content_hash(self) -> str:
        """See `BaseDataset.content_hash`."""
        if self._hash is None:
            self._hash = self._compute_hash()
        return self._hash

    def _compute_hash(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for name in ("structures/numbers", "structures/positions", "structures/cell", "structures/pbc"):
            for piece in self._iter_array(name):
                digest.update(piece.tobytes())
        digest.update(self.rng_keys.numpy().tobytes())
        rows = torch.from_numpy(self._rows)
        digest.update(b"n_atoms" + self.n_atoms.numpy().tobytes())
        for column in COLUMNS.values():
            name = f"labels/{column.name}"
            if column.name == "hessian_mask" and self._index.incomplete_hessians:
                digest.update(b"hessian_mask" + self.mask("hessian").numpy().tobytes())
            elif name in self._reader.names and (column.name != "suspect" or bool(self._index.suspect[rows].any())):
                digest.update(column.name.encode())
                probes = self._reader.shapes[name][0] if column.probe_axis else 1
                for k in range(probes):  # all structures with their first probe, then all with the second, ...
                    for piece in self._iter_array(name):
                        digest.update((piece[k] if column.probe_axis else piece).tobytes())
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """See `BaseDataset.fingerprint`."""
        return f"{self.content_hash()}, at most {self.memory_mib:g} MiB at once"

    # --- parts ---------------------------------------------------------------------------------------------------

    def select(self, indices: Sequence[int] | Int[Tensor, "chosen"]) -> Dataset | StreamingDataset:
        """Select structures by their indices.

        Args:
            indices: which structures.

        Returns:
            These structures in the order of the file; in memory if they fit into the limit.
        """
        rows = self._rows[np.unique(np.asarray(indices, dtype=np.int64))]
        subset = StreamingDataset(self._reader, self._index, rows, self.memory_mib)
        if memory_bytes(self._index.bytes_per_structure[rows]) > self.memory_mib * _MIB:
            return subset
        pieces = [part for _, part in subset.iter_in_memory()]
        return Dataset(
            tuple(s for part in pieces for s in part.structures),
            concatenate_labels([part.labels for part in pieces]),
            metadata=self.metadata,
            source=self.source,
        )

    def iter_in_memory(self) -> Iterator[tuple[Int[Tensor, "some"], Dataset]]:
        """Iterate over all structures in parts that fit into memory.

        Yields:
            The indices of the structures of a part, and the part.
        """
        for block in self.block_indices(self.memory_mib * _MIB / 8):
            content, local = self._read_content(block, None)
            structures = structures_from_content(content)
            part = Dataset(
                tuple(structures[i] for i in local.tolist()),
                self._labels(content).select(torch.from_numpy(local)),
                metadata=self.metadata,
                source=self.source,
            )
            yield torch.from_numpy(block), part

    # --- blocks --------------------------------------------------------------------------------------------------

    def block_indices(self, max_bytes: float, labels: Collection[str] | None = None) -> list[Indices]:
        """Cut all structures into blocks of structures that are adjacent in the file.

        Args:
            max_bytes: largest memory of a block, with unselected structures that lie between its own in the file; a
                larger structure forms its own block.
            labels: names of the labels that will be read; None for all.

        Returns:
            The indices of the structures of each block.
        """
        bytes_each = self._index.bytes_per_structure
        if labels is not None:
            bytes_each = bytes_each - self._reader.bytes_per_structure(
                [n for n in self._reader.names if n not in _array_names(labels)]
            )
        offsets = np.concatenate([[0], np.cumsum(bytes_each)])
        sizes = np.diff(np.append(offsets[self._rows], offsets[self._rows[-1] + 1]))
        return pack_batches(sizes, np.arange(len(self)), int(max_bytes))

    def packed(
        self, block: Indices, cutoff: float, labels: Collection[str], *, dtype: torch.dtype = torch.float64
    ) -> PackedDataset:
        """Read a block into packed tensors on the CPU, with its neighbor pairs.

        Args:
            block: indices of structures, from `block_indices`.
            cutoff: largest distance of a neighbor pair, Å.
            labels: names of the labels to read.
            dtype: floating-point type of the tensors (energies stay in float64).

        Returns:
            Structures, labels and pairs of the block.
        """
        content, local = self._read_content(block, _array_names(labels))
        geometry = self._packed_structures(content, block, local)
        selected = self._labels(content).pick(labels).select(torch.from_numpy(local))
        return PackedDataset(geometry, selected, geometry.pairs(cutoff), cutoff).to("cpu", dtype)

    def _read_content(self, block: Indices, arrays: Collection[str] | None) -> tuple[Content, Indices]:
        """Read the file from the first structure of `block` to the last; also their indices in what was read."""
        rows = self._rows[block]
        return self._reader.read(int(rows[0]), int(rows[-1]) + 1, arrays), rows - rows[0]

    def _packed_structures(self, content: Content, block: Indices, local: Indices) -> PackedStructures:
        count = len(content["structures/offsets"]) - 1
        rows = self._rows[block]
        span = slice(int(rows[0]), int(rows[0]) + count)
        structures = PackedStructures(
            **geometry_tensors(
                content["structures/numbers"],
                content["structures/positions"],
                content.get("structures/cell", np.zeros((count, 3, 3))),
                content.get("structures/pbc", np.zeros((count, 3), dtype=bool)),
            ),
            rng_keys=self._index.rng_keys[span],
            ids=np.array([name.decode() for name in self._index.ids[span].tolist()], dtype=object),
            n_atoms=np.diff(content["structures/offsets"]).astype(np.int64),
        )
        return structures.select(local)

    def _labels(self, content: Content) -> Properties:
        """The labels of a block, with the same masks in every block."""
        labels = labels_from_content(content)
        if labels.hessian is not None and labels.hessian_mask is None and self._index.incomplete_hessians:
            labels = labels.replace(hessian_mask=torch.ones(len(labels), dtype=torch.bool))
        return labels

    def _iter_array(self, name: str) -> Iterator[np.ndarray]:
        """One array of these structures with the type that it has in memory, block by block; zeros if it is absent."""
        kind, axes = schema()[name]
        axis = 1 if axes[0] == "K" else 0
        for block in self.block_indices(self.memory_mib * _MIB / 8):
            content, local = self._read_content(block, {name, "structures/offsets", "labels/hessian_offsets"})
            if name not in content:
                yield np.zeros((len(local), *(a for a in axes if isinstance(a, int))), dtype=DTYPES[kind])
                continue
            indices = local
            if axes[axis] != "S":
                offsets = content["structures/offsets" if axes[axis] == "A" else "labels/hessian_offsets"]
                starts, lengths = (torch.from_numpy(x[local]) for x in (offsets[:-1], np.diff(offsets)))
                indices = segment_indices(starts, lengths).numpy()
            yield np.ascontiguousarray(np.take(content[name], indices, axis=axis), dtype=DTYPES[kind])


DatasetLike = Dataset | StreamingDataset
"""A data set that a model can be trained on: in memory or in its file."""


def memory_bytes(sizes: Indices) -> int:
    """Memory of loaded structures.

    Args:
        sizes: sizes of the arrays of each structure in bytes.

    Returns:
        Memory in bytes, as Python objects and as packed tensors.
    """
    return int(sizes.sum()) + _PYTHON_OBJECT_BYTES * len(sizes)


def _array_names(labels: Collection[str]) -> set[str]:
    """Names of the arrays in a file that hold the geometries and `labels`."""
    names = {*labels, *(f"{name}_mask" for name in labels)}
    names |= {"probes"} if "hvp" in labels else set()
    names |= {"hessian_offsets"} if "hessian" in labels else set()
    return {*_GEOMETRY_ARRAYS, *(f"labels/{name}" for name in names)}
