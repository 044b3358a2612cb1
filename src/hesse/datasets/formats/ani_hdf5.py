"""Grouped HDF5 files: one group per molecule or reaction, and in it arrays over its geometries. Five layouts are read:

- OpenREACT and TorchANI: `species`, `coordinates`, `energies`, `forces`, `hessian`;
- ANI-1 (pyanitools): the same without forces, `species` as symbols, groups within groups;
- ANI-1x: `atomic_numbers`, `coordinates`, `wb97x_dz.energy`, `wb97x_dz.forces`, …; NaN where a label is missing;
- Transition1x: `positions`, `wB97x_6-31G(d).energy`, …; groups `data/formula/reaction`, within them `reactant`,
  `transition_state`, `product`;
- THEMol: `atomic_numbers`, `coords` and `hessian` of one geometry in each group.

None of them states its units. By convention the first three are in Hartree, Hartree/Å and Hartree/Å², Transition1x in
eV and eV/Å, the Hessians of THEMol in kcal/mol/Å²; forces are minus the gradient. Such files hold millions of
geometries: only the selected rows are read, one group after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray as Array

from hesse.datasets.dataset import Dataset
from hesse.datasets.formats.ani_array_names import ArrayNames, recognize_arrays
from hesse.datasets.formats.file_units import FileUnits, check_file_units, check_total_energies
from hesse.datasets.formats.safety import has_plausible_size, hdf5_passes, is_self_contained, open_hdf5
from hesse.datasets.formats.subset import ALL, Subset, SubsetLike, as_subset
from hesse.errors import FileFormatError, GeometryError, HesseError, LabelShapeError, UnitError
from hesse.structures import Properties, Structure, parse_element

__all__ = ["is_grouped", "iterate_grouped", "read_grouped"]

_MAX_DEPTH: Final = 6
"""Largest depth of nested groups; deeper files are damaged or have another layout."""
_ROWS_PER_CHUNK: Final = 5000
_MAX_ROW_GAP: Final = 64
"""Largest number of unselected rows between two selected ones that are still read in one call."""
_HARTREE_ANGSTROM: Final = FileUnits(energy="hartree", length="angstrom")
_CONVENTIONS: Final = {
    "transition1x": FileUnits(energy="eV", length="angstrom"),
    "themol": FileUnits(energy="kcal/mol", length="angstrom"),
}
"""Units by layout, where they are not Hartree and Å."""


@dataclass(frozen=True)
class _LeafGroup:
    """A group that holds geometries of one molecule."""

    path: str
    n_rows: int
    names: ArrayNames
    numbers: Int[Array, "*rows atoms"]
    """Atomic numbers, common to all rows or one row per geometry; 0 or less is padding."""

    def id(self, row: int) -> str:
        if self.names.layout == "themol" and self.n_rows == 1:
            return self.path
        return f"{self.path}/{row:06d}"


@dataclass
class _Scan:
    """Result of walking through the file."""

    leaves: list[_LeafGroup] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)
    """Names of arrays and links that were skipped, with the number of groups that hold them."""
    visited: set[int] = field(default_factory=set)
    """Addresses of groups, so that a group with two names is read once."""


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


def read_grouped(
    path: str | Path,
    *,
    units: FileUnits | None = None,
    rename: Mapping[str, str] | None = None,
    subset: SubsetLike = ALL,
) -> Dataset:
    """Read a grouped HDF5 file, or a part of it. Structure ids are `group/row`.

    Args:
        path: the file.
        units: units of the file; by default those of its layout (see the module).
        rename: label by array name, needed if there are several: `{"ccsd(t)_cbs.energy": "energy"}`.
        subset: the part of the file to read.

    Returns:
        Structures in Å and labels in eV, eV/Å and eV/Å². `group` of a structure is its molecule or reaction.

    Raises:
        FileFormatError: another kind of file, damaged, or with several energies and no choice among them.
        UnitError: total energies that are clearly in another unit than the convention.
        LabelShapeError: a label that does not fit its structures.
        RequestError: no structure matches the subset.
    """
    chunks = list(iterate_grouped(path, units=units, rename=rename, subset=subset))
    first = chunks[0]
    if len(chunks) == 1:
        return first
    return Dataset(
        tuple(s for chunk in chunks for s in chunk.structures),
        Properties.concatenate([chunk.labels for chunk in chunks]),
        metadata=first.metadata,
        source=first.source,
        not_read=first.not_read,
    )


def iterate_grouped(
    path: str | Path,
    *,
    units: FileUnits | None = None,
    rename: Mapping[str, str] | None = None,
    subset: SubsetLike = ALL,
    chunk: int = _ROWS_PER_CHUNK,
) -> Iterator[Dataset]:
    """Read a grouped HDF5 file in parts, for files that do not fit into memory. Otherwise like `read_grouped`.

    Args:
        path: the file.
        units: units of the file; by default those of its layout.
        rename: label by array name.
        subset: the part of the file to read.
        chunk: largest number of structures in one part.

    Yields:
        Parts of the file; each part holds structures of one group.

    Raises:
        FileFormatError: another kind of file, damaged, or with several energies and no choice among them.
        UnitError: total energies that are clearly in another unit than the convention.
        LabelShapeError: a label that does not fit its structures.
        RequestError: no structure matches the subset.
    """
    path = Path(path)
    check_file_units(units)
    with open_hdf5(path) as file:
        reader = _Reader(path, file, dict(rename or {}))
        yield from reader.iter_chunks(units, as_subset(subset), chunk)


class _Reader:
    def __init__(self, path: Path, file: h5py.File, rename: dict[str, str]) -> None:
        self.path, self.file, self.rename = path, file, rename
        self.bytes = path.stat().st_size

    def error(self, message: str) -> FileFormatError:
        return FileFormatError(f"{self.path}: {message}")

    def iter_chunks(self, units: FileUnits | None, subset: Subset, chunk: int) -> Iterator[Dataset]:
        scan = _Scan()
        self.collect(self.file, "", None, 0, subset, scan)
        if not scan.leaves:
            if subset.match is not None:
                raise subset.no_match_error(self.path, list(self.file)[:3])
            raise self.error(
                "no group holds coordinates (or positions) and species (or atomic_numbers); found "
                f"{', '.join(list(self.file)[:6]) or 'nothing'}"
            )
        names = scan.leaves[0].names
        assumed = units is None
        if assumed and names.layout == "themol" and set(names.labels) - {"hessian"}:
            raise UnitError(
                f"{self.path}: arrays coords with {', '.join(sorted(names.labels))}, whose units follow from no known "
                "convention. State them: `--energy-unit hartree --length-unit angstrom`."
            )
        units = units or _CONVENTIONS.get(names.layout, _HARTREE_ANGSTROM)
        metadata = {"source_units": f"{units}{', by convention of such files' if assumed else ''}"}
        if names.level:
            metadata["level"] = names.level
        not_read = dict(sorted(scan.ignored.items()))
        for leaf, rows in self.selected_rows(scan.leaves, subset):
            for start in range(0, len(rows), chunk):
                structures, labels = self.read_block(leaf, rows[start : start + chunk])
                if assumed and labels.energy is not None:
                    check_total_energies(self.path, structures, labels.energy, units.energy)
                converted, labels = units.to_internal(structures, labels)
                yield Dataset(converted, labels, metadata=metadata, source=str(self.path), not_read=not_read)

    def selected_rows(
        self, leaves: list[_LeafGroup], subset: Subset
    ) -> Iterator[tuple[_LeafGroup, Int[Array, "rows"]]]:
        """Groups that hold selected structures, with the rows of these in the group."""
        matching = [
            np.arange(leaf.n_rows)
            if subset.match is None
            else np.array([r for r in range(leaf.n_rows) if subset.matches(leaf.id(r))], dtype=int)
            for leaf in leaves
        ]
        counts = [len(m) for m in matching]
        if not sum(counts):
            raise subset.no_match_error(self.path, [leaf.id(0) for leaf in leaves[:3]])
        selected = subset.indices(sum(counts))
        start = 0
        for leaf, rows in zip(leaves, matching, strict=True):
            local = selected[(selected >= start) & (selected < start + len(rows))] - start
            start += len(rows)
            if len(local):
                yield leaf, rows[local]

    # --- finding groups --------------------------------------------------------------------------------------------

    def collect(
        self,
        group: h5py.Group,
        path: str,
        parent_numbers: Int[Array, "*rows atoms"] | None,
        depth: int,
        subset: Subset,
        scan: _Scan,
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
                _increment(scan.ignored, f"{name} (a link to {kind})")
        names = recognize_arrays(arrays, self.rename, str(self.path))
        numbers = parent_numbers
        if names is not None:
            # A group without species has the atoms of the group above it.
            species = next((n for n in ("species", "atomic_numbers") if n in arrays), None)
            if species is not None:
                numbers = self.read_species(group[species], f"{path}/{species}")
            if numbers is None:
                raise self.error(f"{path}: coordinates, but neither species nor atomic_numbers")
            leaf = _LeafGroup(path or "all", self.count_rows(group, names, path), names, numbers)
            self.add(leaf, group, arrays, subset, scan)
        else:
            for name in arrays:
                _increment(scan.ignored, name)
        for name in children:
            self.collect(group[name], f"{path}/{name}" if path else name, numbers, depth + 1, subset, scan)

    def add(self, leaf: _LeafGroup, group: h5py.Group, arrays: list[str], subset: Subset, scan: _Scan) -> None:
        address = h5py.h5o.get_info(group.id).addr
        if leaf.n_rows == 0 or address in scan.visited:
            return
        # The pattern comes before `visited`: the same group may match under its other name.
        if subset.match is not None and not any(subset.matches(leaf.id(r)) for r in range(leaf.n_rows)):
            return
        scan.visited.add(address)
        scan.leaves.append(leaf)
        for name in set(arrays) - leaf.names.used:
            _increment(scan.ignored, name)

    def count_rows(self, group: h5py.Group, names: ArrayNames, path: str) -> int:
        shape = self.checked_array(group[names.coordinates], f"{path}/{names.coordinates}").shape
        if len(shape) not in (2, 3) or shape[-1] != 3:
            raise self.error(f"{path}/{names.coordinates} has shape {shape}, expected (geometries, atoms, 3)")
        return int(shape[0]) if len(shape) == 3 else 1

    def checked_array(self, data: h5py.Dataset, name: str) -> h5py.Dataset:
        if not isinstance(data, h5py.Dataset) or data.shape is None:
            raise self.error(f"{name} must be an array")
        if not is_self_contained(data):
            raise self.error(f"{name} is stored outside the file or by a plug-in; store it plainly or with gzip")
        if not has_plausible_size(data, self.bytes):
            raise self.error(f"{name} declares {data.nbytes} bytes, more than the file holds: truncated or damaged")
        return data

    def read_species(self, data: h5py.Dataset, name: str) -> Int[Array, "*rows atoms"]:
        self.checked_array(data, name)
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

    # --- reading ---------------------------------------------------------------------------------------------------

    def read_block(self, leaf: _LeafGroup, rows: Int[Array, "rows"]) -> tuple[list[Structure], Properties]:
        """Structures and labels of some rows of a group, in the units of the file."""
        group = self.file if leaf.path == "all" else self.file[leaf.path]
        names = leaf.names
        coordinates = self.read_rows(group[names.coordinates], f"{leaf.path}/{names.coordinates}", rows, leaf.n_rows)
        n = coordinates.shape[1]
        numbers = leaf.numbers if leaf.numbers.ndim == 1 else leaf.numbers[rows]
        if numbers.shape[-1] != n or (leaf.numbers.ndim == 2 and len(leaf.numbers) != leaf.n_rows):
            raise self.error(
                f"{leaf.path}: species of shape {leaf.numbers.shape} for {leaf.n_rows} geometries of {n} atoms"
            )
        values: dict[str, Array] = {}
        for label, name in names.labels.items():
            raw = self.read_rows(group[name], f"{leaf.path}/{name}", rows, leaf.n_rows)
            try:
                values[label] = _reshape_label(label, raw, len(rows), n)
            except ValueError:
                raise LabelShapeError(
                    f"{self.path}: {leaf.path}/{name} has shape {group[name].shape}, which fits no {label} of "
                    f"{leaf.n_rows} geometries of {n} atoms"
                ) from None
            if name in names.negated:
                values[label] = -values[label]
        padded_numbers = np.broadcast_to(numbers, (len(rows), n))
        is_real = padded_numbers > 0
        if (is_real[:, 1:] & ~is_real[:, :-1]).any():
            raise GeometryError(f"{self.path}: {leaf.path}: a ghost or dummy atom between others (atomic number 0)")
        if is_real.all():
            labels = _build_labels(n, len(rows), values)
        else:
            labels = Properties.concatenate([_unpadded(values, i, is_real[i]) for i in range(len(rows))])
        try:
            structures = [
                Structure(
                    padded_numbers[i][is_real[i]],
                    coordinates[i][is_real[i]],
                    id=leaf.id(int(row)),
                    group=names.group_of(leaf.path),
                    tag=names.tag_of(leaf.path),
                )
                for i, row in enumerate(rows)
            ]
        except HesseError as error:
            raise type(error)(f"{self.path}: {error}") from None
        return structures, labels

    def read_rows(self, data: h5py.Dataset, name: str, rows: Int[Array, "rows"], total: int) -> Array:
        """Rows of an array as float64, read in contiguous runs: HDF5 is slow at picking single rows."""
        self.checked_array(data, name)
        if data.dtype.kind not in "fiu":
            raise self.error(f"{name} holds {data.dtype}, expected numbers")
        if data.ndim == 0 or data.shape[0] != total:
            if total != 1:
                raise self.error(f"{name} has shape {data.shape}, expected one row for each of {total} geometries")
            return np.asarray(data[()], dtype=np.float64)[None]  # a single geometry without an axis for it
        if name.endswith(("coordinates", "positions", "coords")) and data.ndim == 2:
            return np.asarray(data[()], dtype=np.float64)[None]
        runs = np.split(rows, np.flatnonzero(np.diff(rows) > _MAX_ROW_GAP) + 1)
        blocks = [data[run[0] : run[-1] + 1][run - run[0]] for run in runs]
        return np.concatenate(blocks).astype(np.float64, copy=False)


def _node_kind(group: h5py.Group, name: str) -> str:
    """Kind of the object with this name: "group", "array", or the target of a link that is not followed."""
    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        return "another file"
    try:
        return "group" if group.get(name, getclass=True) is h5py.Group else "array"
    except KeyError:
        return "nowhere"


def _reshape_label(label: str, raw: Array, rows: int, n: int) -> Array:
    if label == "energy":
        return raw.reshape(rows)
    if label == "forces":
        return raw.reshape(rows, n, 3)
    if raw.shape[1:] == (n, n, 3, 3) and n != 3:
        raw = raw.swapaxes(2, 3)
    return raw.reshape(rows, n, 3, n, 3)


def _build_labels(n: int, rows: int, values: Mapping[str, Array]) -> Properties:
    """Labels of `rows` structures of `n` atoms each; a label that holds a NaN counts as missing."""
    fields: dict[str, Any] = {"n_atoms": torch.full((rows,), n)}
    for label, value in values.items():
        present = ~np.isnan(value.reshape(rows, -1)).any(1)
        if not present.any():
            continue
        if label == "hessian":
            flat = value[present].reshape(-1)
        else:
            flat = np.where(present.reshape(-1, *[1] * (value.ndim - 1)), value, np.nan)
            flat = flat.reshape(-1, 3) if label == "forces" else flat
        fields[label] = torch.from_numpy(np.ascontiguousarray(flat))
        if not present.all():
            fields[f"{label}_mask"] = torch.from_numpy(present)
    return Properties(**fields)


def _unpadded(values: Mapping[str, Array], row: int, is_real: Array) -> Properties:
    """Labels of one structure without the atoms that are padding."""
    unpad = {
        "energy": lambda v: v,
        "forces": lambda v: v[is_real],
        "hessian": lambda v: v[is_real][:, :, is_real],
    }
    return _build_labels(
        int(is_real.sum()), 1, {label: unpad[label](value[row])[None] for label, value in values.items()}
    )


def _increment(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
