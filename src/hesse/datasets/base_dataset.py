"""Base class of data sets in memory and in files: which labels they hold, and parts by id, flag, random split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Generic, Self, TypeVar

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from hesse.datasets.fractions import assign_parts, working_fractions
from hesse.datasets.quality.duplicates import first_with_geometry, merged_groups
from hesse.errors import MissingLabelError, RequestError, did_you_mean
from hesse.structures import Properties, Structure, label_names

__all__ = ["BaseDataset", "check_unique_ids", "joined_metadata", "structure_indices"]

Part = TypeVar("Part")
"""Type of a part of a data set: a data set in memory, or either kind."""


class BaseDataset(ABC, Generic[Part]):
    """Structures with their labels, in eV and Å, in memory or in a file.

    Attributes:
        source: the file that the data were read from; named in error messages.
        metadata: facts about all labels.
        not_read: what that file holds and was not read, and how often.
    """

    source: str
    metadata: Mapping[str, str]
    not_read: Mapping[str, int] = MappingProxyType({})

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def ids(self) -> tuple[str, ...]:
        """The ids of the structures."""

    @property
    @abstractmethod
    def groups(self) -> tuple[str, ...]:
        """The group of each structure, "" for none."""

    @property
    @abstractmethod
    def charge_states(self) -> Int[Tensor, "structures 2"]:
        """Charge (in elementary charges) and multiplicity of each structure."""

    @property
    @abstractmethod
    def rng_keys(self) -> Int[Tensor, "structures"]:
        """Seeds of the random draws of each structure (`hesse.structures.rng_key`)."""

    @property
    @abstractmethod
    def n_atoms(self) -> Int[Tensor, "structures"]:
        """Number of atoms of each structure."""

    @property
    @abstractmethod
    def numbers(self) -> Int[Tensor, "atoms"]:
        """Atomic numbers of all structures, end to end; in a file as bytes."""

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur, ascending."""
        return tuple(int(z) for z in self.numbers.unique())

    # --- labels --------------------------------------------------------------------------------------------------

    def mask(self, name: str) -> Bool[Tensor, "*structures"]:
        """Find the structures that have a label.

        Args:
            name: "energy", "forces", "hvp", "hessian", "atomic_energies", "stress" or another quantity.

        Returns:
            True where the label is present, `[structures]`; for "hvp" `[probes, structures]`.

        Raises:
            RequestError: there is no label of this name.
        """
        if name not in label_names():
            raise RequestError(f"no label {name!r}. {did_you_mean(str(name), label_names())}")
        return self._mask(name)

    @abstractmethod
    def _mask(self, name: str) -> Bool[Tensor, "*structures"]: ...

    @abstractmethod
    def _suspect_mask(self) -> Bool[Tensor, "structures"]: ...

    def has(self, name: str) -> bool:
        """Check for a label.

        Args:
            name: as for `mask`.

        Returns:
            True if at least one structure has the label.
        """
        return bool(self.mask(name).any())

    def check_has_labels(self, *names: str) -> None:
        """Check that each of several labels is present in at least one structure.

        Args:
            *names: as for `mask`.

        Raises:
            MissingLabelError: no structure has one of the labels.
        """
        for name in names:
            if self.has(name):
                continue
            present = [n for n in label_names() if self.has(n)]
            candidate = next((key for key in self.not_read if name in key.lower()), None)
            hint = (
                ""
                if candidate is None
                else f" To read it from {candidate}: `hesse convert --rename {candidate}={name}`."
            )
            raise MissingLabelError(
                f"{self.source}: no structure holds the label {name!r} (found: {', '.join(present) or 'none'}). "
                "Label the structures with `hesse label`, or change the loss weights." + hint
            )

    @abstractmethod
    def energies(self) -> Properties:
        """Select the energies.

        Returns:
            Properties with the energies (eV), their mask and the weights of the structures, without other labels.
        """

    @abstractmethod
    def content_hash(self) -> str:
        """Compute a digest of all geometries and labels.

        Returns:
            32 hexadecimal digits; equal for equal data, whatever file they came from. The first call for data in a file
            reads the whole file.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Compute a digest of everything in the data that decides the numbers of a training run.

        Returns:
            The content hash, for data in a file with the memory limit, which decides the order of the batches.
        """

    # --- parts ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def select(self, indices: Sequence[int] | Int[Tensor, "chosen"]) -> Part:
        """Select structures by their indices.

        Args:
            indices: which structures.

        Returns:
            These structures with their labels.

        Raises:
            RequestError: an index out of range, or something other than indices.
        """

    def without_suspects(self) -> Self | Part:
        """Leave out the structures whose labels are flagged `suspect`.

        Returns:
            The other structures; the same object if none is flagged.

        Raises:
            MissingLabelError: all structures are flagged.
        """
        suspect = self._suspect_mask()
        if not bool(suspect.any()):
            return self
        if bool(suspect.all()):
            raise MissingLabelError(
                f"{self.source}: the labels of all {len(suspect)} structures are flagged suspect; `hesse info` shows "
                "why. Label them again with other settings, or include suspect labels."
            )
        return self.select((~suspect).nonzero()[:, 0])

    def with_ids(self, ids: Iterable[str]) -> Part:
        """Select structures by their ids.

        Args:
            ids: ids of structures of this data set.

        Returns:
            These structures: in memory in the order of `ids`, in a file in the order of the file.

        Raises:
            RequestError: an id that no structure has, or something other than a list of ids.
        """
        if isinstance(ids, str) or not isinstance(ids, Iterable):
            raise RequestError(f"expected a list of ids, got {type(ids).__name__} {ids!r}")
        requested, index = list(ids), {name: i for i, name in enumerate(self.ids)}
        missing = [name for name in requested if name not in index]
        if missing:
            raise RequestError(
                f'{self.source}: no structure "{missing[0]}" ({len(missing)} of {len(requested)} ids are not here)'
            )
        return self.select([index[name] for name in requested])

    @abstractmethod
    def iter_in_memory(self) -> Iterator[tuple[Int[Tensor, "some"], Any]]:
        """Iterate over all structures in parts that fit into memory.

        Yields:
            The indices of the structures of a part, and the part.
        """

    def geometry_parts(self) -> Iterator[tuple[NDArray[np.int64], Sequence[Structure]]]:
        """Iterate over the geometries of all structures in parts that fit into memory.

        Yields:
            The indices of the structures of a part, and the structures.
        """
        for indices, part in self.iter_in_memory():
            yield indices.numpy(), part.structures

    def split_groups(self, *, by_group: bool = True) -> tuple[list[str], int]:
        """Find out which structures a split keeps together: those of one group, and those of the same geometry.

        Args:
            by_group: keep structures of one `group` together; otherwise only equal geometries.

        Returns:
            The name of the group of each structure, and the number of structures whose geometry an earlier one has.
        """
        groups = self.groups if by_group else ("",) * len(self)
        names = [group or f"id:{name}" for name, group in zip(self.ids, groups, strict=True)]
        first = first_with_geometry(self.geometry_parts, len(self))
        return merged_groups(names, first), int((first != np.arange(len(self))).sum())

    def split(self, *fractions: float, seed: int = 0, by_group: bool = True) -> tuple[Part, ...]:
        """Split at random. Each structure gets into the same part whether the data are in memory or in a file.

        Structures of the same geometry (the same molecule rotated or with another order of atoms, the same crystal)
        always get into one part, so that none is judged by a geometry that it was fitted to.

        Args:
            *fractions: fractions of the structures, one for each part; they may sum to less than one.
            seed: seed of the random choice.
            by_group: keep structures of one `group` (a molecule, a reaction) in one part. Structures without a group
                form groups of one.

        Returns:
            One data set for each fraction.

        Raises:
            RequestError: fractions that are not positive or sum to more than one, or a part that would be empty.
        """
        valid = bool(fractions) and all(isinstance(f, int | float | np.number) for f in fractions)
        if not valid or min(fractions) <= 0 or sum(fractions) > 1 + 1e-9:
            raise RequestError(f"split fractions must be positive and sum to at most 1, got {fractions}")
        names, n_same = self.split_groups(by_group=by_group)
        unique_groups = sorted(set(names))
        order = np.random.default_rng(seed).permutation(len(unique_groups))
        sizes = dict.fromkeys(unique_groups, 0)
        for name in names:
            sizes[name] += 1
        in_order = [sizes[unique_groups[k]] for k in order]
        numbers = assign_parts(in_order, fractions)
        part_of = {unique_groups[k]: int(number) for k, number in zip(order, numbers, strict=True)}
        parts = [[i for i, name in enumerate(names) if part_of[name] == p] for p in range(len(fractions))]
        if not all(parts):
            same = f" ({n_same} of them repeat the geometry of another, which keeps them together)" if n_same else ""
            ways = ["use more data"]
            if working := working_fractions(in_order, fractions):
                ways.append(f"other fractions, such as {working}")
            if by_group and len(set(self.split_groups(by_group=False)[0])) > len(unique_groups):
                ways.append("by_group=False (data: {by_group: false} in a YAML file)")
            raise RequestError(
                f"splitting {len(names)} structures{same} in {len(unique_groups)} groups by "
                f"{tuple(round(float(f), 6) for f in fractions)} leaves a part empty; {', or '.join(ways)}"
            )
        return tuple(self.select(part) for part in parts)


def check_unique_ids(ids: Sequence[str], source: str) -> None:
    """Check that all ids are different.

    Args:
        ids: the ids of all structures.
        source: the file that they came from, for the message.

    Raises:
        RequestError: an id occurs twice.
    """
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        duplicate = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise RequestError(f'{source}: the id "{duplicate}" occurs twice; every structure needs its own id')


def structure_indices(index: Any, count: int) -> int | list[int]:
    """Convert an index `data[index]` to the indices of structures.

    Args:
        index: an integer (negative ones count from the end), a slice, integers, or booleans, one for each structure.
        count: number of structures.

    Returns:
        One index for an integer, else a list of indices, all from 0 to `count - 1`.

    Raises:
        RequestError: an index out of range, a mask of another length, or anything else.
    """
    if isinstance(index, slice):
        return list(range(count))[index]
    array = np.asarray(index)
    if array.ndim == 1 and array.dtype == np.bool_:
        if len(array) != count:
            raise RequestError(f"a mask of {len(array)} booleans cannot select from {count} structures")
        return [int(i) for i in np.flatnonzero(array)]
    if array.ndim > 1 or (array.dtype.kind not in "iu" and array.size > 0):
        raise RequestError(
            "a data set is indexed by integers, slices, lists of integers or masks of booleans, got "
            f"{type(index).__name__}; structures are found by their ids with data.with_ids([...])"
        )
    outside = array[(array < -count) | (array >= count)] if array.size else array
    if outside.size:
        raise RequestError(f"index {int(outside.reshape(-1)[0])} is out of range: there are {count} structures")
    if array.ndim == 0:
        return int(array) % count
    return [int(i) % count for i in array]


def joined_metadata(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, str]:
    """Metadata of two data sets that become one.

    Args:
        first: metadata of the first data set.
        second: metadata of the second data set.

    Returns:
        The entries that both have; where the values differ, both, separated by a semicolon.
    """
    return {
        key: value if value == second[key] else "; ".join(sorted({value, second[key]}))
        for key, value in first.items()
        if key in second
    }
