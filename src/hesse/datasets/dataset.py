"""A data set in memory: structures and their labels, packed into tensors from which batches are made by indexing."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias, overload

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from hesse.datasets.ase_atoms import AtomsReader, atoms_with_labels
from hesse.datasets.base_dataset import BaseDataset, check_unique_ids, joined_metadata, structure_indices
from hesse.datasets.batching import pack_batches
from hesse.datasets.packed import PackedDataset, PackedStructures, geometry_tensors
from hesse.errors import RequestError
from hesse.structures import Batch, Properties, Structure, rng_key

__all__ = ["Dataset", "check_is_dataset"]

Indices: TypeAlias = "slice | Sequence[int] | Sequence[bool] | NDArray[Any] | Tensor"


@dataclass(frozen=True, eq=False)
class Dataset(BaseDataset["Dataset"]):
    """Structures and their labels, in eV and Å.

    A data set is a sequence of pairs: `structure, labels = data[0]`, `for structure, labels in data`. A slice, a list
    of indices or a mask of booleans gives a data set: `data[:100]`, `data[[4, 2]]`, `data[data.mask("hessian")]`. Two
    data sets of different structures can be added.

    Attributes:
        structures: the geometries, one by one.
        labels: all labels, float64, in the same order; absent ones are masked.
        metadata: facts about all labels: `level` (of theory), `engine`, `step`, `code_version`, ...
        source: the file that the data were read from; named in error messages.
        not_read: what that file holds and was not read, and how often: columns and keys of unknown names (they may be
            labels under other names), and values that cannot be trusted.

    Raises:
        RequestError: an id occurs twice, or labels and structures differ in number or in numbers of atoms.
    """

    structures: tuple[Structure, ...]
    labels: Properties
    metadata: Mapping[str, str] = field(default_factory=dict)
    source: str = "memory"
    not_read: Mapping[str, int] = field(default_factory=dict)
    _packed: dict[float, PackedDataset] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "structures", tuple(self.structures))
        if not all(isinstance(s, Structure) for s in self.structures) or not isinstance(self.labels, Properties):
            raise RequestError(
                "a Dataset is made of structures (hesse.Structure) and their labels (Properties). From ASE atoms: "
                "Dataset.from_ase; from one structure after the other: Dataset.from_pairs"
            )
        check_unique_ids(self.ids, self.source)
        if [len(s) for s in self.structures] != self.labels.n_atoms.tolist():
            raise RequestError(f"{self.source}: labels and structures are not of the same sizes or number")

    def __repr__(self) -> str:
        return f"Dataset({self.source!r}, {self.labels!r})"

    # --- construction and conversion -----------------------------------------------------------------------------

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[Structure, Properties]], **metadata: str) -> Dataset:
        """Create a data set from structures and the labels of each.

        Args:
            pairs: each structure with its labels, for example from `Properties.single`.
            **metadata: facts about all labels, such as `level="GFN2-xTB"`.

        Returns:
            The data set, in the order of `pairs`.

        Raises:
            RequestError: no pair at all, objects of another type, or an id that occurs twice.
        """
        items = list(pairs) if isinstance(pairs, Iterable) else [pairs]
        for item in items:
            if not (isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], Properties)):
                raise RequestError(
                    "Dataset.from_pairs: expected pairs (structure, Properties), got "
                    f"{type(item).__name__}; ASE atoms with labels are taken by Dataset.from_ase"
                )
        if not items:
            raise RequestError("a data set needs at least one structure")
        return cls(tuple(s for s, _ in items), Properties.concatenate([label for _, label in items]), metadata=metadata)

    @classmethod
    def from_ase(cls, atoms: Atoms | Iterable[Atoms], **metadata: str) -> Dataset:
        """Create a data set from ASE atoms and the labels that they carry.

        Labels are taken from the results of the calculator (energy, forces, stress), from `atoms.arrays` (forces,
        atomic_energies, probe_0, hvp_0, ...) and from `atoms.info` (energy, hessian, ...), under the names that
        extended XYZ files use (docs/formats.md). Nothing is calculated.

        Args:
            atoms: one or several `Atoms`; id, tag, group, charge and multiplicity are read from `atoms.info`.
            **metadata: facts about all labels, such as `level="GFN2-xTB"`; they take precedence over those in
                `atoms.info`.

        Returns:
            The data set, in the order of `atoms`. Atoms without an id get one made of formula and content.

        Raises:
            RequestError: no atoms, objects of another type, or an id that occurs twice.
            GeometryError: atoms that are not a valid structure.
            LabelShapeError, LabelValueError: a label of a wrong shape, not a number, or of another geometry.
        """
        reader = AtomsReader()
        for frame in atoms if isinstance(atoms, Iterable) and not isinstance(atoms, Atoms) else [atoms]:
            if not isinstance(frame, Atoms):
                raise RequestError(
                    f"Dataset.from_ase: expected ASE Atoms or a list of them, got {type(frame).__name__}"
                )
            reader.add(frame)
        if not reader.structures:
            raise RequestError("a data set needs at least one structure")
        return cls(
            tuple(reader.structures),
            Properties.concatenate(reader.labels),
            metadata={**reader.metadata(), **metadata},
            not_read=reader.not_read,
        )

    def to_ase(self) -> list[Atoms]:
        """Convert to ASE atoms that carry their labels.

        Returns:
            One `Atoms` for each structure. Energy, forces and stress (eV, eV/Å, eV/Å³) are results of a
            `SinglePointCalculator`; probes, Hessian-vector products and atomic energies are in `atoms.arrays`, the
            Hessian (`9 n²` numbers, eV/Å²), error estimates, id and metadata in `atoms.info`. `Dataset.from_ase` gives
            the data set back (of the stress the six components of its symmetric part).
        """
        return [atoms_with_labels(s, self.labels, i, self.metadata) for i, s in enumerate(self.structures)]

    # --- parts ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.structures)

    @overload
    def __getitem__(self, index: int) -> tuple[Structure, Properties]: ...

    @overload
    def __getitem__(self, index: Indices) -> Dataset: ...

    def __getitem__(self, index: int | Indices) -> tuple[Structure, Properties] | Dataset:
        indices = structure_indices(index, len(self))
        if isinstance(indices, int):
            return self.structures[indices], self.labels.select(torch.tensor([indices]))
        return self.select(indices)

    def __iter__(self) -> Iterator[tuple[Structure, Properties]]:
        # Selecting one structure takes time proportional to the number of structures: select them in blocks first.
        for start in range(0, len(self), 256):
            block = torch.arange(start, min(start + 256, len(self)))
            labels = self.labels.select(block)
            for k, i in enumerate(block.tolist()):
                yield self.structures[i], labels.select(torch.tensor([k]))

    def __add__(self, other: Dataset) -> Dataset:
        if not isinstance(other, Dataset):
            raise RequestError(f"only a Dataset can be added to a Dataset, got {type(other).__name__}")
        return Dataset(
            self.structures + other.structures,
            Properties.concatenate([self.labels, other.labels]),
            metadata=joined_metadata(self.metadata, other.metadata),
            source=self.source if self.source == other.source else f"{self.source} + {other.source}",
            not_read=Counter(self.not_read) + Counter(other.not_read),
        )

    def select(self, indices: Sequence[int] | Int[Tensor, "chosen"]) -> Dataset:
        """Select structures by their indices.

        Args:
            indices: which structures, in the order of the result; all forms that `data[indices]` takes.

        Returns:
            These structures with their labels.

        Raises:
            RequestError: an index out of range, or something other than indices.
        """
        selected = structure_indices(indices, len(self))
        chosen = torch.tensor([selected] if isinstance(selected, int) else selected, dtype=torch.int64)
        return Dataset(
            tuple(self.structures[i] for i in chosen.tolist()),
            self.labels.select(chosen),
            metadata=self.metadata,
            source=self.source,
            not_read=self.not_read,
        )

    def filter(self, predicate: Callable[[Structure], bool]) -> Dataset:
        """Select the structures that meet a condition.

        Args:
            predicate: called with each structure, for example `lambda s: s.tag == "relaxed"`.

        Returns:
            The structures for which `predicate` is true; there may be none.

        Raises:
            RequestError: `predicate` is not a function.
        """
        if not callable(predicate):
            raise RequestError(f"filter: expected a function of a structure, got {type(predicate).__name__}")
        return self.select([i for i, s in enumerate(self.structures) if predicate(s)])

    # --- content -------------------------------------------------------------------------------------------------

    @property
    def ids(self) -> tuple[str, ...]:
        """See `BaseDataset.ids`."""
        return tuple(s.id for s in self.structures)

    @property
    def rng_keys(self) -> Int[Tensor, "structures"]:
        """See `BaseDataset.rng_keys`."""
        return self._geometry.rng_keys

    @property
    def n_atoms(self) -> Int[Tensor, "structures"]:
        """See `BaseDataset.n_atoms`."""
        return self.labels.n_atoms

    @property
    def numbers(self) -> Int[Tensor, "atoms"]:
        """See `BaseDataset.numbers`."""
        return self._geometry.numbers

    @property
    def groups(self) -> tuple[str, ...]:
        """See `BaseDataset.groups`."""
        return tuple(s.group for s in self.structures)

    @property
    def charge_states(self) -> Int[Tensor, "structures 2"]:
        """See `BaseDataset.charge_states`."""
        return torch.tensor([(s.charge, s.multiplicity) for s in self.structures], dtype=torch.int64).reshape(-1, 2)

    def _mask(self, name: str) -> Bool[Tensor, "*structures"]:
        return self.labels.mask(name)

    def _suspect_mask(self) -> Bool[Tensor, "structures"]:
        return self.labels.suspect_mask()

    def energies(self) -> Properties:
        """See `BaseDataset.energies`."""
        return self.labels.pick(("energy",)).replace(weight=self.labels.weight)

    def fingerprint(self) -> str:
        """See `BaseDataset.fingerprint`; here the same as `content_hash`."""
        return self.content_hash()

    def iter_in_memory(self) -> Iterator[tuple[Int[Tensor, "some"], Dataset]]:
        """Iterate over parts that fit into memory; here there is one, the whole data set.

        Yields:
            The indices of the structures of a part, and the part.
        """
        yield torch.arange(len(self)), self

    def content_hash(self) -> str:
        """See `BaseDataset.content_hash`."""
        digest = hashlib.blake2b(digest_size=16)
        for name in ("numbers", "positions", "cell", "pbc", "rng_keys"):
            digest.update(getattr(self._geometry, name).numpy().tobytes())
        digest.update(b"n_atoms" + self.labels.n_atoms.contiguous().numpy().tobytes())
        for column, value in self.labels.items():
            no_flag_set = column.name == "suspect" and not bool(value.any())
            if not no_flag_set:
                digest.update(column.name.encode() + value.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def _geometry(self) -> PackedStructures:
        """All geometries as tensors. Data that are only converted or selected from do without."""
        structures = self.structures
        return PackedStructures(
            **geometry_tensors(
                _concatenate([s.numbers for s in structures], (0,)),
                _concatenate([s.positions for s in structures], (0, 3)),
                np.array([s.cell for s in structures]),
                np.array([s.pbc for s in structures]),
            ),
            rng_keys=torch.tensor([rng_key(name) for name in self.ids], dtype=torch.int64),
            ids=np.array(self.ids, dtype=object),
            n_atoms=np.array([len(s) for s in structures], dtype=np.int64),
        )

    # --- batches -------------------------------------------------------------------------------------------------

    def packed(self, cutoff: float) -> PackedDataset:
        """Pack all structures into tensors, with their neighbor pairs.

        Args:
            cutoff: largest distance of a neighbor pair, Å.

        Returns:
            Tensors in float64 on the CPU; computed once for each cutoff.
        """
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
        """Make a batch of some structures. For many batches in another type or on another device convert once instead:
        `packed = data.packed(cutoff).to(device, dtype)`, then `packed.batch(indices)`.

        Args:
            indices: which structures.
            cutoff: largest distance of neighbors, Å.
            dtype: floating-point type of positions and labels (energies stay in float64).
            device: device of all tensors.

        Returns:
            The batch, and the labels of the same structures.
        """
        batch, labels = self.packed(cutoff).batch(indices)
        return batch.to(device, dtype), labels.to(device, dtype)

    def batch_indices(
        self, max_atoms: int, *, order: Sequence[int] | None = None, max_structures: int | None = None
    ) -> list[list[int]]:
        """Distribute the structures over batches of limited size.

        Args:
            max_atoms: largest number of atoms of a batch; a larger structure forms its own batch.
            order: indices of the structures to distribute; all, ascending, by default.
            max_structures: largest number of structures of a batch; unlimited by default.

        Returns:
            The indices of the structures of each batch.
        """
        indices = np.arange(len(self)) if order is None else np.asarray(order, dtype=np.int64)
        batches = pack_batches(self.labels.n_atoms.numpy(), indices, max_atoms, max_structures)
        return [batch.tolist() for batch in batches]


def check_is_dataset(data: object) -> None:
    """Check the argument of a function that needs a data set in memory.

    Args:
        data: the argument.

    Raises:
        RequestError: it is not a `Dataset`.
    """
    if not isinstance(data, Dataset):
        raise RequestError(
            f"expected a Dataset, got {type(data).__name__}. hesse.as_dataset(...) makes one of a path, of atoms or "
            "of structures"
        )


def _concatenate(arrays: list[Any], empty: tuple[int, ...]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(empty)
