"""The groups of a grouped HDF5 file that hold geometries: found by the names of their arrays, before anything is read.

The layouts are those of `hesse.datasets.formats.ani_hdf5`. Links to other files are not followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import h5py
import numpy as np
from jaxtyping import Int
from numpy import ndarray as Array

from hesse.datasets.formats.ani_array_names import ArrayNames, recognize_arrays
from hesse.datasets.formats.safety import has_plausible_size, hdf5_passes, is_self_contained
from hesse.datasets.formats.subset import Subset
from hesse.errors import FileFormatError, GeometryError
from hesse.structures import parse_element

__all__ = ["LeafGroup", "checked_array", "find_groups", "is_grouped"]

_MAX_DEPTH: Final = 6
"""Largest depth of nested groups; deeper files are damaged or have another layout."""


@dataclass(frozen=True)
class LeafGroup:
    """A group that holds geometries of one molecule.

    Attributes:
        path: its path in the file; "all" for the file itself.
        n_rows: number of geometries.
        names: what its arrays mean.
        numbers: atomic numbers, common to all rows or one row per geometry; 0 or less is padding.
    """

    path: str
    n_rows: int
    names: ArrayNames
    numbers: Int[Array, "*rows atoms"]

    def id(self, row: int) -> str:
        """Id of a structure.

        Args:
            row: number of the geometry in the group.

        Returns:
            `path/row`; the path alone where the layout has one geometry in each group.
        """
        if self.names.layout == "themol" and self.n_rows == 1:
            return self.path
        return f"{self.path}/{row:06d}"


def is_grouped(path: Path) -> bool:
    """Recognize a grouped HDF5 file by the names of its arrays. The first few groups of each level are inspected.

    Args:
        path: the file; it need not exist.

    Returns:
        True if a group holds coordinates under a name of these layouts.
    """

    def search(group: h5py.Group, depth: int) -> bool:
        names = list(group)[:50]
        if recognize_arrays(names, {}, "", choose_level=False) is not None:
            return True
        subgroups = [n for n in names if _node_kind(group, n) == "group"][:3]
        return depth < _MAX_DEPTH and any(search(group[n], depth + 1) for n in subgroups)

    return path.suffix.lower() in (".h5", ".hdf5") and hdf5_passes(path, lambda file: search(file, 0))


def find_groups(
    path: Path, file: h5py.File, rename: Mapping[str, str], subset: Subset
) -> tuple[list[LeafGroup], dict[str, int]]:
    """Find the groups that hold geometries.

    Args:
        path: the file, for messages.
        file: the same file, open.
        rename: label by array name.
        subset: groups none of whose structures match its pattern are left out.

    Returns:
        The groups, and the names of arrays and links that were skipped, with the number of groups that hold them.

    Raises:
        FileFormatError: arrays of other shapes or types, or groups nested too deeply.
        GeometryError: an unknown element.
    """
    scan = _Scan(path, rename, subset)
    scan.collect(file, "", None, 0)
    return scan.leaves, scan.ignored


def checked_array(path: Path, data: h5py.Dataset, name: str, file_bytes: int) -> h5py.Dataset:
    """Check that an array lies in the file and is not larger than it.

    Args:
        path: the file.
        data: the array.
        name: its name, for messages.
        file_bytes: size of the file.

    Returns:
        The array.

    Raises:
        FileFormatError: it does not.
    """
    if not isinstance(data, h5py.Dataset) or data.shape is None:
        raise FileFormatError(f"{path}: {name} must be an array")
    if not is_self_contained(data):
        raise FileFormatError(
            f"{path}: {name} is stored outside the file or by a plug-in; store it plainly or with gzip"
        )
    if not has_plausible_size(data, file_bytes):
        raise FileFormatError(
            f"{path}: {name} declares {data.nbytes} bytes, more than the file holds: truncated or damaged"
        )
    return data


class _Scan:
    """The walk through a file."""

    def __init__(self, path: Path, rename: Mapping[str, str], subset: Subset) -> None:
        self.path, self.rename, self.subset = path, rename, subset
        self.bytes = path.stat().st_size
        self.leaves: list[LeafGroup] = []
        self.ignored: dict[str, int] = {}
        self.visited: set[int] = set()
        """Addresses of groups, so that a group with two names is read once."""

    def error(self, message: str) -> FileFormatError:
        return FileFormatError(f"{self.path}: {message}")

    def checked(self, data: h5py.Dataset, name: str) -> h5py.Dataset:
        return checked_array(self.path, data, name, self.bytes)

    def collect(
        self, group: h5py.Group, path: str, parent_numbers: Int[Array, "*rows atoms"] | None, depth: int
    ) -> None:
        if depth > _MAX_DEPTH:
            raise self.error(f"{path}: groups are nested deeper than in any known layout")
        children, arrays = [], []
        for name in group:
            kind = _node_kind(group, name)
            if kind == "group":
                children.append(name)
            elif kind == "array":
                arrays.append(name)
            else:
                _increment(self.ignored, f"{name} (a link to {kind})")
        names = recognize_arrays(arrays, self.rename, str(self.path))
        numbers = parent_numbers
        if names is not None:
            # A group without species has the atoms of the group above it.
            species = next((n for n in ("species", "atomic_numbers") if n in arrays), None)
            if species is not None:
                numbers = self.read_species(group[species], f"{path}/{species}")
            if numbers is None:
                raise self.error(f"{path}: coordinates, but neither species nor atomic_numbers")
            leaf = LeafGroup(path or "all", self.count_rows(group, names, path), names, numbers)
            self.add(leaf, group, arrays)
        else:
            for name in arrays:
                _increment(self.ignored, name)
        for name in children:
            self.collect(group[name], f"{path}/{name}" if path else name, numbers, depth + 1)

    def add(self, leaf: LeafGroup, group: h5py.Group, arrays: list[str]) -> None:
        address = h5py.h5o.get_info(group.id).addr
        if leaf.n_rows == 0 or address in self.visited:
            return
        # The pattern comes before `visited`: the same group may match under its other name.
        if self.subset.match is not None and not any(self.subset.matches(leaf.id(r)) for r in range(leaf.n_rows)):
            return
        self.visited.add(address)
        self.leaves.append(leaf)
        for name in set(arrays) - leaf.names.used:
            _increment(self.ignored, name)

    def count_rows(self, group: h5py.Group, names: ArrayNames, path: str) -> int:
        shape = self.checked(group[names.coordinates], f"{path}/{names.coordinates}").shape
        if len(shape) not in (2, 3) or shape[-1] != 3:
            raise self.error(f"{path}/{names.coordinates} has shape {shape}, expected (geometries, atoms, 3)")
        return int(shape[0]) if len(shape) == 3 else 1

    def read_species(self, data: h5py.Dataset, name: str) -> Int[Array, "*rows atoms"]:
        self.checked(data, name)
        if data.dtype.kind in "iu":
            values = np.asarray(data[()], dtype=np.int64)
        elif data.dtype.kind == "S" or h5py.check_string_dtype(data.dtype) is not None:
            texts = [t.decode() if isinstance(t, bytes) else str(t) for t in np.asarray(data[()]).ravel().tolist()]
            values = np.array([self.element(t.strip(), name) for t in texts]).reshape(data.shape)
        else:
            raise self.error(f"{name} holds {data.dtype}, expected atomic numbers or symbols")
        if values.ndim not in (1, 2) or values.shape[-1] == 0:
            raise self.error(f"{name} has shape {values.shape}, expected (atoms) or (geometries, atoms)")
        return values

    def element(self, symbol: str, name: str) -> int:
        """Atomic number; 0 for the empty text, which is padding."""
        if not symbol:
            return 0
        try:
            number, mass = parse_element(symbol)
        except GeometryError as error:
            raise GeometryError(f"{self.path}: {name}: {error}") from None
        if mass is not None:
            raise self.error(f"{name}: {symbol} is an isotope, whose masses such files cannot state; write H")
        return number


def _node_kind(group: h5py.Group, name: str) -> str:
    """Kind of the object with this name: "group", "array", or the target of a link that is not followed."""
    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        return "another file"
    try:
        return "group" if group.get(name, getclass=True) is h5py.Group else "array"
    except KeyError:
        return "nowhere"


def _increment(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
