"""A data set that stays in its file: what a run asks of its data, answered without holding all of them.

In memory are some numbers per structure (id, size, energy, which labels it has) and one byte per atom; the rest is read
from Hesse's own HDF5 in blocks of neighbouring structures.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from hesse.datasets.dataset import Dataset
from hesse.datasets.doors import check_dataset, read_dataset
from hesse.datasets.flat import FlatData, FlatStructures, flat_columns, joined_labels
from hesse.datasets.hdf5 import Blocks
from hesse.datasets.hdf5.layout import DTYPES, LAYOUT, Content
from hesse.datasets.hdf5.reading import labels_of, structures_of
from hesse.datasets.kinds import kind_of
from hesse.datasets.order import in_runs
from hesse.datasets.parting import dealt, places_of, require_different, require_labels, sound
from hesse.errors import FileFormatError, RequestError, UnitError
from hesse.structures import Labels, ragged_indices, structure_key

__all__ = ["BLOCKS", "POOLS", "StreamedDataset", "TrainingData", "open_dataset"]

Indices = NDArray[np.int64]
_MIB: Final = 2**20
BLOCKS: Final = 8
"""Blocks from different places of the file whose structures are mixed with each other."""
POOLS: Final = 4
"""Pools of so many blocks that the limit must hold: one in use, one being read, and what reading takes on the way."""
_OBJECTS: Final = 2048
"""Bytes of a structure as a Python object."""
_GEOMETRY: Final = tuple(f"structures/{name}" for name in ("offsets", "numbers", "positions", "cell", "pbc"))
_LABELS: Final = ("energy", "forces", "hvp", "hessian", "atomic_energies", "stress")


@dataclass(frozen=True, eq=False)
class _Index:
    """What is kept of every structure of a file."""

    ids: NDArray[np.bytes_]
    groups: NDArray[np.bytes_]
    keys: Int[Tensor, "structures"]
    numbers: NDArray[np.uint8]
    energies: Labels
    held: dict[str, Bool[Tensor, "*structures"]]
    suspect: Bool[Tensor, "structures"]
    size: Indices
    """Bytes in memory with all labels."""
    incomplete_hessians: bool

    @classmethod
    def of(cls, blocks: Blocks) -> _Index:
        count = len(blocks)
        ids = blocks.whole("structures/id")
        require_different(ids.tolist(), str(blocks.path))
        n_atoms = torch.from_numpy(np.diff(blocks.offsets))

        def column(name: str) -> Tensor | None:
            return torch.from_numpy(blocks.whole(f"labels/{name}")) if f"labels/{name}" in blocks.names else None

        held: dict[str, Tensor] = {}
        for name in _LABELS:
            if f"labels/{name}" in blocks.names:
                shape = (blocks.shapes["labels/hvp"][0], count) if name == "hvp" else (count,)
                mask = column(f"{name}_mask") if name != "hessian" else None
                held[name] = torch.ones(shape, dtype=torch.bool) if mask is None else mask
        if blocks.hessian_offsets is not None:
            held["hessian"] = torch.from_numpy(np.diff(blocks.hessian_offsets) > 0)
        energy = column("energy")
        suspect = column("suspect")
        named = "structures/group" in blocks.names
        every = [name for name in blocks.names if not name.endswith("_mask")]
        neighbours = np.minimum(n_atoms.numpy() - 1, 64) * n_atoms.numpy() * 8
        return cls(
            ids=ids,
            groups=blocks.whole("structures/group") if named else np.zeros(count, dtype="S1"),
            keys=torch.tensor([structure_key(name.decode()) for name in ids.tolist()], dtype=torch.int64),
            numbers=blocks.whole("structures/numbers").astype(np.uint8),
            energies=Labels(
                n_atoms=n_atoms,
                energy=None if energy is None else energy.to(torch.float64),
                energy_mask=column("energy_mask"),
            ),
            held=held,
            suspect=torch.zeros(count, dtype=torch.bool) if suspect is None else suspect,
            size=blocks.bytes_per_structure(every) + neighbours,
            incomplete_hessians="hessian" in held and not bool(held["hessian"].all()),
        )


class StreamedDataset:
    """Structures and labels of a file that is larger than the memory they may take.

    It answers what a run asks (`hesse.datasets.Dataset` has the same questions) and gives parts of itself. The order is
    that of the file. Parts made by `select`, `split`, `with_ids` or `without_suspects` that fit into the limit are read
    into memory at once.

    Attributes:
        memory_mib: what loaded structures may take.
        attributes: what is known of the labels as a whole.
        source: the file.
    """

    def __init__(self, blocks: Blocks, index: _Index, rows: Indices, memory_mib: float) -> None:
        self._blocks, self._index, self._rows, self.memory_mib = blocks, index, rows, memory_mib
        self.attributes, self.source = blocks.attributes, str(blocks.path)
        self._hash: str | None = None

    def __repr__(self) -> str:
        return f"StreamedDataset({self.source!r}, {len(self)} structures, at most {self.memory_mib:g} MiB at once)"

    # --- questions -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the structures."""
        return tuple(name.decode() for name in self._index.ids[self._rows].tolist())

    @property
    def keys(self) -> Int[Tensor, "structures"]:
        """See `Dataset.keys`."""
        return self._index.keys[torch.from_numpy(self._rows)]

    @property
    def numbers(self) -> Int[Tensor, "atoms"]:
        """Atomic numbers, structures end to end, as bytes."""
        first, n = self._blocks.offsets[self._rows], np.diff(self._blocks.offsets)[self._rows]
        pieces = []
        for start in range(0, len(self), 1 << 12):  # indices take eight times what they point to
            starts, lengths = (torch.from_numpy(x[start : start + (1 << 12)]) for x in (first, n))
            pieces.append(self._index.numbers[ragged_indices(starts, lengths).numpy()])
        return torch.from_numpy(np.concatenate(pieces))

    @property
    def n_atoms(self) -> Int[Tensor, "structures"]:
        """Size of each structure."""
        return self._index.energies.n_atoms[torch.from_numpy(self._rows)]

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur, ascending."""
        return tuple(np.unique(self.numbers.numpy()).tolist())

    def mask(self, name: str) -> Bool[Tensor, "*structures"]:
        """Which structures hold the label `name` (for "hvp": `[probes, structures]`)."""
        held = self._index.held.get(name)
        if held is None:
            return torch.zeros((0, len(self)) if name == "hvp" else (len(self),), dtype=torch.bool)
        return held[..., torch.from_numpy(self._rows)]

    def holds(self, name: str) -> bool:
        """Whether any structure holds the label `name`."""
        return bool(self.mask(name).any())

    def require(self, *names: str) -> None:
        """Raise MissingLabelError unless at least one structure holds each of the labels `names`."""
        require_labels(self.mask, names, self.source)

    def energies(self) -> Labels:
        """The energies alone."""
        return self._index.energies.select(torch.from_numpy(self._rows))

    def data_hash(self) -> str:
        """`Dataset.data_hash` of the same structures; the first time, the file is passed over array by array."""
        if self._hash is None:
            self._hash = self._digest()
        return self._hash

    def _digest(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for name in ("structures/numbers", "structures/positions", "structures/cell", "structures/pbc"):
            for piece in self._array(name):
                digest.update(piece.tobytes())
        digest.update(self.keys.numpy().tobytes())
        rows = torch.from_numpy(self._rows)
        for f in fields(Labels):
            name = f"labels/{f.name}"
            if f.name == "n_atoms":
                digest.update(b"n_atoms" + self.n_atoms.numpy().tobytes())
            elif f.name == "hessian_mask" and self._index.incomplete_hessians:
                digest.update(b"hessian_mask" + self.mask("hessian").numpy().tobytes())
            elif name in self._blocks.names and (f.name != "suspect" or bool(self._index.suspect[rows].any())):
                digest.update(f.name.encode())
                probes = self._blocks.shapes[name][0] if LAYOUT[name][1][0] == "K" else 1
                for k in range(probes):  # the first probe of all structures comes before the second of any
                    for piece in self._array(name):
                        digest.update((piece[k] if LAYOUT[name][1][0] == "K" else piece).tobytes())
        return digest.hexdigest()

    def identity(self) -> str:
        """What of the data decides the numbers of a run: also in which pieces they are read."""
        return f"{self.data_hash()}, at most {self.memory_mib:g} MiB at once"

    # --- parts ---------------------------------------------------------------------------------------------------

    def select(self, indices: Sequence[int] | Int[Tensor, "chosen"]) -> Dataset | StreamedDataset:
        """The structures `indices`, in the order of the file."""
        rows = self._rows[np.unique(np.asarray(indices, dtype=np.int64))]
        chosen = StreamedDataset(self._blocks, self._index, rows, self.memory_mib)
        if _needed(self._index.size[rows]) > self.memory_mib * _MIB:
            return chosen
        pieces = [part for _, part in chosen.parts()]
        return Dataset(
            tuple(s for part in pieces for s in part.structures),
            joined_labels([part.labels for part in pieces]),
            attributes=self.attributes,
            source=self.source,
        )

    def without_suspects(self) -> Dataset | StreamedDataset:
        """See `Dataset.without_suspects`."""
        kept = sound(self._index.suspect[torch.from_numpy(self._rows)], self.source)
        return self if kept is None else self.select(kept)

    def with_ids(self, ids: Iterable[str]) -> Dataset | StreamedDataset:
        """The structures named, in the order of the file. Raises RequestError for an id that is not here."""
        return self.select(places_of(ids, self.ids, self.source))

    def split(self, *fractions: float, seed: int = 0, by_group: bool = True) -> tuple[Dataset | StreamedDataset, ...]:
        """See `Dataset.split`: the same structures go to the same parts."""
        groups = [name.decode() if by_group else "" for name in self._index.groups[self._rows].tolist()]
        return tuple(self.select(part) for part in dealt(self.ids, groups, fractions, seed))

    def parts(self) -> Iterator[tuple[Int[Tensor, "some"], Dataset]]:
        """All structures in pieces that fit into memory: their places, and themselves."""
        for members in self.blocks(self.memory_mib * _MIB / 8):
            content, local = self._content(members, None)
            structures = structures_of(content)
            part = Dataset(
                tuple(structures[i] for i in local.tolist()),
                self._labels(content).select(torch.from_numpy(local)),
                attributes=self.attributes,
                source=self.source,
            )
            yield torch.from_numpy(members), part

    # --- blocks --------------------------------------------------------------------------------------------------

    def blocks(self, size: float, labels: Collection[str] | None = None) -> list[Indices]:
        """All structures, in runs of neighbours in the file that take at most `size` bytes each when they are read,
        with what lies between them.

        Args:
            labels: those that are wanted; None for all.
        """
        per = self._index.size
        if labels is not None:
            per = per - self._blocks.bytes_per_structure([n for n in self._blocks.names if n not in _arrays_of(labels)])
        before = np.concatenate([[0], np.cumsum(per)])
        cost = np.diff(np.append(before[self._rows], before[self._rows[-1] + 1]))
        return in_runs(cost, np.arange(len(self)), int(size))

    def flat(
        self, members: Indices, cutoff: float, labels: Collection[str], *, dtype: torch.dtype = torch.float64
    ) -> FlatData:
        """One of the `blocks` as flat tensors on the host, with all neighbour pairs below `cutoff` Å."""
        content, local = self._content(members, _arrays_of(labels))
        geometry = self._geometry(content, members, local)
        held = self._labels(content).only(labels).select(torch.from_numpy(local))
        return FlatData(geometry, held, geometry.pairs(cutoff), cutoff).to("cpu", dtype)

    def _content(self, members: Indices, arrays: Collection[str] | None) -> tuple[Content, Indices]:
        """What the file holds from the first of `members` to the last, and where they stand in it."""
        rows = self._rows[members]
        return self._blocks.read(int(rows[0]), int(rows[-1]) + 1, arrays), rows - rows[0]

    def _geometry(self, content: Content, members: Indices, local: Indices) -> FlatStructures:
        count = len(content["structures/offsets"]) - 1
        rows = self._rows[members]
        span = slice(int(rows[0]), int(rows[0]) + count)
        structures = FlatStructures(
            **flat_columns(
                content["structures/numbers"],
                content["structures/positions"],
                content.get("structures/cell", np.zeros((count, 3, 3))),
                content.get("structures/pbc", np.zeros((count, 3), dtype=bool)),
            ),
            keys=self._index.keys[span],
            ids=np.array([name.decode() for name in self._index.ids[span].tolist()], dtype=object),
            n_atoms=np.diff(content["structures/offsets"]).astype(np.int64),
        )
        return structures.select(local)

    def _labels(self, content: Content) -> Labels:
        """The labels, with the same masks in every block."""
        labels = labels_of(content)
        if labels.hessian is not None and labels.hessian_mask is None and self._index.incomplete_hessians:
            labels = replace(labels, hessian_mask=torch.ones(len(labels), dtype=torch.bool))
        return labels

    def _array(self, name: str) -> Iterator[np.ndarray]:
        """One array of these structures as it is in memory, block by block; zeros where the file leaves it out."""
        kind, axes = LAYOUT[name]
        axis = 1 if axes[0] == "K" else 0
        for members in self.blocks(self.memory_mib * _MIB / 8):
            content, local = self._content(members, {name, "structures/offsets", "labels/hessian_offsets"})
            if name not in content:
                yield np.zeros((len(local), *(a for a in axes if isinstance(a, int))), dtype=DTYPES[kind])
                continue
            places = local
            if axes[axis] != "S":
                offsets = content["structures/offsets" if axes[axis] == "A" else "labels/hessian_offsets"]
                starts, lengths = (torch.from_numpy(x[local]) for x in (offsets[:-1], np.diff(offsets)))
                places = ragged_indices(starts, lengths).numpy()
            yield np.ascontiguousarray(np.take(content[name], places, axis=axis), dtype=DTYPES[kind])


TrainingData = Dataset | StreamedDataset
"""What a run can learn from."""


def open_dataset(path: str | Path, *, memory_mib: float | None = None, check: bool = True) -> TrainingData:
    """A data set for training: in memory where it fits into `memory_mib`, else streamed from its file. The latter is
    passed over once at the start: its checksum, and every check of `read_dataset`, block by block.

    Args:
        path: a file of any format that `read_dataset` knows; larger ones than the limit must be Hesse's own HDF5.
        memory_mib: what loaded structures may take; None for no limit.
        check: judge what was read, see `check_dataset`.

    Raises:
        FileFormatError: with a limit, a file that is not Hesse's own HDF5; and all that `read_dataset` raises.
        UnitError: a file to stream that is not in eV and Å.
        RequestError: a limit that is too small for the largest structure.
    """
    path = Path(path)
    if memory_mib is None:
        return read_dataset(path, check=check)
    if kind_of(path) != "hdf5":
        raise FileFormatError(
            f"{path}: only Hesse's own HDF5 can be read in parts, as a memory limit ({memory_mib:g} MiB) may need. "
            f"Convert the file first (`hesse convert {path.name} {path.stem}.h5`), or leave out the limit."
        )
    blocks = Blocks(path)
    index = _Index.of(blocks)
    if _needed(index.size) <= memory_mib * _MIB:
        return read_dataset(path, check=check)
    _require_own_units(blocks)
    if POOLS * BLOCKS * int(index.size.max()) > memory_mib * _MIB:
        raise RequestError(
            f"{path}: a memory limit of {memory_mib:g} MiB is too small: its largest structure takes "
            f"{index.size.max() / _MIB:.2g} MiB, and some {POOLS * BLOCKS} blocks of structures must fit at once. "
            f"Raise the limit to {math.ceil(POOLS * BLOCKS * int(index.size.max()) / _MIB)} MiB or more."
        )
    blocks.require_sound()
    streamed = StreamedDataset(blocks, index, np.arange(len(blocks)), memory_mib)
    for _, part in streamed.parts():
        if check:
            check_dataset(part)
    return streamed


def _require_own_units(blocks: Blocks) -> None:
    for key, unit in (("energy_unit", "eV"), ("length_unit", "angstrom")):
        if blocks.units.get(key) != unit:
            said = f"is in {blocks.units[key]}" if key in blocks.units else f"does not state its {key}"
            raise UnitError(
                f"{blocks.path}: {said}, and files are streamed in eV and Å only. Convert it first: `hesse convert "
                f"{blocks.path.name} OUT.h5 --{key.replace('_', '-')} …`"
            )


def _needed(sizes: Indices) -> int:
    """Bytes that structures take in memory, as objects and as flat tensors."""
    return int(sizes.sum()) + _OBJECTS * len(sizes)


def _arrays_of(labels: Collection[str]) -> set[str]:
    """The arrays in a file that hold geometry and the labels `labels`."""
    names = {*labels, *(f"{name}_mask" for name in labels)}
    names |= {"probes"} if "hvp" in labels else set()
    names |= {"hessian_offsets"} if "hessian" in labels else set()
    return {*_GEOMETRY, *(f"labels/{name}" for name in names)}
