"""A data set in memory: flat tensors, from which batches are made by indexing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hesse.datasets.batching import pack_batches
from hesse.datasets.indexing import check_has_labels, check_unique_ids, group_split, index_of_ids, unflagged
from hesse.datasets.packed import PackedDataset, PackedStructures, geometry_tensors
from hesse.errors import RequestError
from hesse.structures import Batch, Properties, Structure, rng_key

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Structures and their labels.

    Attributes:
        structures: geometry, one by one (for writing, for engines).
        labels: all labels, float64, in the same order.
        attributes: what is known of the labels as a whole: `level` (of theory), `engine`, `step`, `code_version`, ...
        source: the file it came from, for messages.
        unread: columns and keys of that file that were not understood: labels under other names, perhaps.
    """

    structures: tuple[Structure, ...]
    labels: Properties
    metadata: Mapping[str, str] = field(default_factory=dict)
    source: str = "memory"
    unknown_keys: tuple[str, ...] = ()
    _packed: dict[float, PackedDataset] = field(default_factory=dict, init=False, repr=False)
    _geometry: PackedStructures = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "structures", tuple(self.structures))
        ids = [s.id for s in self.structures]
        check_unique_ids(ids, self.source)
        sizes = [len(s) for s in self.structures]
        if sizes != self.labels.n_atoms.tolist():
            raise RequestError(f"{self.source}: labels and structures are not of the same sizes or number")
        geometry = PackedStructures(
            **geometry_tensors(
                _concatenate([s.numbers for s in self.structures], (0,)),
                _concatenate([s.positions for s in self.structures], (0, 3)),
                np.array([s.cell for s in self.structures]),
                np.array([s.pbc for s in self.structures]),
            ),
            rng_keys=torch.tensor([rng_key(i) for i in ids], dtype=torch.int64),
            ids=np.array(ids, dtype=object),
            n_atoms=np.array(sizes, dtype=np.int64),
        )
        object.__setattr__(self, "_geometry", geometry)

    def __repr__(self) -> str:
        return f"Dataset({self.source!r}, {self.labels!r})"

    # --- construction --------------------------------------------------------------------------------------------

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[Structure, Properties]], **metadata: str) -> Dataset:
        """A data set from structures and their labels, one by one."""
        items = list(pairs)
        if not items:
            raise RequestError("a data set needs at least one structure")
        return cls(tuple(s for s, _ in items), Properties.concatenate([label for _, label in items]), metadata=metadata)

    def select(self, indices: Sequence[int] | Int[Tensor, "chosen"]) -> Dataset:
        """The structures `indices`, in that order, as a data set of their own."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return Dataset(
            tuple(self.structures[i] for i in chosen.tolist()),
            self.labels.select(chosen),
            metadata=self.metadata,
            source=self.source,
            unknown_keys=self.unknown_keys,
        )

    def filter(self, predicate: Callable[[Structure], bool]) -> Dataset:
        """The structures for which `keep` is true."""
        return self.select([i for i, s in enumerate(self.structures) if predicate(s)])

    def without_suspects(self) -> Dataset:
        """The structures whose labels are not flagged `suspect`; itself when none is.

        Raises:
            MissingLabelError: all are.
        """
        indices = unflagged(self.labels.suspect_mask(), self.source)
        return self if indices is None else self.select(indices)

    def with_ids(self, ids: Iterable[str]) -> Dataset:
        """The structures named, in that order. Raises RequestError for an id that is not here."""
        return self.select(index_of_ids(ids, self.ids, self.source))

    def split(self, *fractions: float, seed: int = 0, by_group: bool = True) -> tuple[Dataset, ...]:
        """Random parts of the given fractions (of the structures; they may sum to less than one).

        Structures of one `group` (a molecule, a reaction) stay together unless `by_group` is off; structures without
        a group are groups of their own.
        """
        groups = [s.group if by_group else "" for s in self.structures]
        return tuple(self.select(part) for part in group_split(self.ids, groups, fractions, seed))

    # --- questions -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.structures)

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur, ascending."""
        return tuple(int(z) for z in self.numbers.unique())

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the structures."""
        return tuple(self._geometry.ids)

    @property
    def rng_keys(self) -> Int[Tensor, "structures"]:
        """The numbers that random draws of each structure start from (`hesse.structures.rng_key`)."""
        return self._geometry.rng_keys

    @property
    def n_atoms(self) -> Int[Tensor, "structures"]:
        """Size of each structure."""
        return self.labels.n_atoms

    @property
    def numbers(self) -> Int[Tensor, "atoms"]:
        """Atomic numbers, structures end to end."""
        return self._geometry.numbers

    def mask(self, name: str) -> Bool[Tensor, "*structures"]:
        """Which structures hold the label `name` (for "hvp": `[probes, structures]`)."""
        return self.labels.mask(name)

    def has(self, name: str) -> bool:
        """Whether any structure holds the label `name`."""
        return bool(self.mask(name).any())

    def energies(self) -> Properties:
        """The energies alone."""
        return self.labels.pick(("energy",))

    def fingerprint(self) -> str:
        """What of the data decides the numbers of a run."""
        return self.content_hash()

    def iter_in_memory(self) -> Iterator[tuple[Int[Tensor, "some"], Dataset]]:
        """All structures in pieces that fit into memory, here one: their places, and themselves."""
        yield torch.arange(len(self)), self

    def check_has_labels(self, *names: str) -> None:
        """Raise MissingLabelError unless at least one structure holds each of the labels `names`."""
        check_has_labels(self.labels.mask, names, self.source, self.unknown_keys)

    def content_hash(self) -> str:
        """A digest of all geometry and labels: equal data, equal hash, whatever file they came from."""
        digest = hashlib.blake2b(digest_size=16)
        for name in ("numbers", "positions", "cell", "pbc", "rng_keys"):
            digest.update(getattr(self._geometry, name).numpy().tobytes())
        for f in fields(self.labels):
            value = getattr(self.labels, f.name)
            no_flag_set = f.name == "suspect" and not bool(self.labels.suspect_mask().any())
            if isinstance(value, Tensor) and not no_flag_set:
                digest.update(f.name.encode())
                digest.update(value.contiguous().numpy().tobytes())
        return digest.hexdigest()

    # --- batches -------------------------------------------------------------------------------------------------

    def packed(self, cutoff: float) -> PackedDataset:
        """Flat tensors (float64, on the host) with all neighbor pairs below `cutoff` Å, found once."""
        if cutoff not in self._packed:
            self._packed[cutoff] = PackedDataset(self._geometry, self.labels, self._geometry.pairs(cutoff), cutoff)
        return self._packed[cutoff]

    def batch(
        self,
        indices: Int[Tensor, "chosen"] | Sequence[int],
        cutoff: float,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> tuple[Batch, Properties]:
        """Structures `indices` as a batch with their labels. For many batches in another type or on another device,
        convert once: `data.flat(cutoff).to(device, dtype).batch(indices)`."""
        batch, labels = self.packed(cutoff).batch(indices)
        return batch.to(device, dtype), labels.to(device, dtype)

    def batch_indices(
        self, max_atoms: int, *, order: Sequence[int] | None = None, max_structures: int | None = None
    ) -> list[list[int]]:
        """Indices in runs of at most `max_atoms` atoms (and `max_structures`); a larger structure runs alone."""
        indices = np.arange(len(self)) if order is None else np.asarray(order, dtype=np.int64)
        batches = pack_batches(self.labels.n_atoms.numpy(), indices, max_atoms, max_structures)
        return [run.tolist() for run in batches]


def _concatenate(arrays: list[Any], empty: tuple[int, ...]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(empty)
