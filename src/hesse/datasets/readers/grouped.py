"""Grouped HDF5: one group per molecule or reaction, arrays over its geometries. Four layouts that are in use:

- OpenREACT and TorchANI: `species`, `coordinates`, `energies`, `forces`, `hessian`;
- ANI-1 (pyanitools): the same without forces, `species` as symbols, groups within groups;
- ANI-1x: `atomic_numbers`, `coordinates`, `wb97x_dz.energy`, `wb97x_dz.forces`, …; NaN where there is no label;
- Transition1x: `positions`, `wB97x_6-31G(d).energy`, …; groups `data/formula/reaction`, within them `reactant`,
  `transition_state`, `product`.

None of them states its units. By convention the first three are in Hartree, Hartree/Å and Hartree/Å², Transition1x in
eV and eV/Å; forces are minus the gradient. Such files hold millions of geometries: only the chosen rows are read, one
group after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import torch
from ase.data import atomic_numbers
from jaxtyping import Int
from numpy import ndarray as Array

from hesse.datasets.dataset import Dataset
from hesse.datasets.hdf5.plain import DAMAGE, has_possible_size, is_plain
from hesse.datasets.readers.keys import Keys, keys_of
from hesse.datasets.readers.selection import EVERYTHING, Selection
from hesse.datasets.readers.units import SourceUnits, require_plausible_energies
from hesse.errors import FileFormatError, HesseError, LabelShapeError
from hesse.files import require_file
from hesse.structures import Labels, Structure

__all__ = ["iterate_grouped", "looks_grouped", "read_grouped"]

_DEPTH: Final = 6
"""Groups within groups; deeper ones are a damaged file or none of these layouts."""
_CHUNK: Final = 5000
_GAP: Final = 64
"""Rows that are read and thrown away rather than start another read."""
_HARTREE: Final = SourceUnits(energy="hartree", length="angstrom")
_EV: Final = SourceUnits(energy="eV", length="angstrom")


@dataclass(frozen=True)
class _Leaf:
    """A group that holds geometries of the same atoms."""

    path: str
    rows: int
    keys: Keys
    numbers: Int[Array, "*rows atoms"]
    """Atomic numbers, of all rows or of each; 0 or less is padding."""

    def id(self, row: int) -> str:
        return f"{self.path}/{row:06d}"


@dataclass
class _Found:
    leaves: list[_Leaf] = field(default_factory=list)
    stray: dict[str, int] = field(default_factory=dict)
    """Keys that were skipped, with the number of groups that hold them."""
    seen: set[int] = field(default_factory=set)
    """Addresses of groups: the same group under another name is read once."""


def looks_grouped(file: h5py.File) -> bool:
    """Whether some group holds coordinates under a name of these layouts (the first few groups are looked at)."""

    def search(group: h5py.Group, depth: int) -> bool:
        names = list(group)[:50]
        if keys_of(names, {}, "", choose=False) is not None:
            return True
        below = [n for n in names if _kind_in(group, n) == "group"][:3]
        return depth < _DEPTH and any(search(group[n], depth + 1) for n in below)

    return search(file, 0)


def read_grouped(
    path: str | Path,
    *,
    units: SourceUnits | None = None,
    rename: Mapping[str, str] | None = None,
    selection: Selection = EVERYTHING,
) -> Dataset:
    """Read the chosen structures of a grouped HDF5 file. Ids are `group/row`, groups the path of the group.

    Args:
        units: of the file; by default those of its layout (see above).
        rename: which key is which label where several are there: `{"ccsd(t)_cbs.energy": "energy"}`.
        selection: the part of the file that is wanted.

    Raises:
        FileFormatError: not such a file, damaged, or with several energies of which none was named.
        UnitError: total energies that are plainly in another unit than the convention says.
        LabelShapeError: a label that does not fit its structures.
        RequestError: nothing matches the selection.
    """
    parts = list(iterate_grouped(path, units=units, rename=rename, selection=selection))
    first = parts[0]
    if len(parts) == 1:
        return first
    return Dataset(
        tuple(s for part in parts for s in part.structures),
        Labels.concatenate([part.labels for part in parts]),
        attributes=first.attributes,
        source=first.source,
        unread=first.unread,
    )


def iterate_grouped(
    path: str | Path,
    *,
    units: SourceUnits | None = None,
    rename: Mapping[str, str] | None = None,
    selection: Selection = EVERYTHING,
    chunk: int = _CHUNK,
) -> Iterator[Dataset]:
    """The same in parts of at most `chunk` structures, for files that do not fit into memory."""
    path = Path(path)
    require_file(path)
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            reader = _Reader(path, file, dict(rename or {}))
            yield from reader.parts(units, selection, chunk)
    except HesseError:
        raise
    except DAMAGE as error:
        raise FileFormatError(
            f"{path}: cannot be read as HDF5; it is truncated, damaged or another kind of file ({error})"
        ) from error


class _Reader:
    def __init__(self, path: Path, file: h5py.File, rename: dict[str, str]) -> None:
        self.path, self.file, self.rename = path, file, rename
        self.bytes = path.stat().st_size

    def fail(self, what: str) -> FileFormatError:
        return FileFormatError(f"{self.path}: {what}")

    def parts(self, units: SourceUnits | None, selection: Selection, chunk: int) -> Iterator[Dataset]:
        found = _Found()
        self.walk(self.file, "", None, 0, selection, found)
        if not found.leaves:
            if selection.match is not None:
                raise selection.nothing(self.path, list(self.file)[:3])
            raise self.fail(
                "no group holds coordinates (or positions) and species (or atomic_numbers); found "
                f"{', '.join(list(self.file)[:6]) or 'nothing'}"
            )
        keys = found.leaves[0].keys
        assumed = units is None
        units = units or (_EV if keys.style == "transition1x" else _HARTREE)
        attributes = {"source_units": f"{units}{', by convention of such files' if assumed else ''}"}
        if keys.level:
            attributes["level"] = keys.level
        unread = tuple(f"{name} (in {count} groups)" for name, count in sorted(found.stray.items()))
        for leaf, rows in self.chosen(found.leaves, selection):
            for start in range(0, len(rows), chunk):
                structures, labels = self.block(leaf, rows[start : start + chunk])
                if assumed and labels.energy is not None:
                    require_plausible_energies(self.path, structures, labels.energy, units.energy)
                inside, labels = units.to_inside(structures, labels)
                yield Dataset(inside, labels, attributes=attributes, source=str(self.path), unread=unread)

    def chosen(self, leaves: list[_Leaf], selection: Selection) -> Iterator[tuple[_Leaf, Int[Array, "rows"]]]:
        matching = [
            np.arange(leaf.rows)
            if selection.match is None
            else np.array([r for r in range(leaf.rows) if selection.matches(leaf.id(r))], dtype=int)
            for leaf in leaves
        ]
        counts = [len(m) for m in matching]
        if not sum(counts):
            raise selection.nothing(self.path, [leaf.id(0) for leaf in leaves[:3]])
        taken = selection.choose(sum(counts))
        start = 0
        for leaf, rows in zip(leaves, matching, strict=True):
            mine = taken[(taken >= start) & (taken < start + len(rows))] - start
            start += len(rows)
            if len(mine):
                yield leaf, rows[mine]

    # --- finding ---------------------------------------------------------------------------------------------------

    def walk(
        self,
        group: h5py.Group,
        path: str,
        inherited: Int[Array, "*rows atoms"] | None,
        depth: int,
        selection: Selection,
        found: _Found,
    ) -> None:
        if depth > _DEPTH:
            raise self.fail(f"{path}: groups are nested deeper than in any known layout")
        children, arrays = [], []
        for name in group:
            kind = _kind_in(group, name)
            if kind == "group":
                children.append(name)
            elif kind == "array":
                arrays.append(name)
            else:
                _count(found.stray, f"{name} (a link to {kind})")
        keys = keys_of(arrays, self.rename, str(self.path))
        numbers = inherited
        if keys is not None:
            # A group below may be of the atoms of the group above it.
            species = next((n for n in ("species", "atomic_numbers") if n in arrays), None)
            if species is not None:
                numbers = self.species(group[species], f"{path}/{species}")
            if numbers is None:
                raise self.fail(f"{path}: coordinates, but neither species nor atomic_numbers")
            leaf = _Leaf(path or "all", self.rows_of(group, keys, path), keys, numbers)
            self.keep(leaf, group, arrays, selection, found)
        else:
            for name in arrays:
                _count(found.stray, name)
        for name in children:
            self.walk(group[name], f"{path}/{name}" if path else name, numbers, depth + 1, selection, found)

    def keep(self, leaf: _Leaf, group: h5py.Group, arrays: list[str], selection: Selection, found: _Found) -> None:
        address = h5py.h5o.get_info(group.id).addr
        if leaf.rows == 0 or address in found.seen:
            return
        # The pattern is asked first: the same group may be wanted under its other name.
        if selection.match is not None and not any(selection.matches(leaf.id(r)) for r in range(leaf.rows)):
            return
        found.seen.add(address)
        found.leaves.append(leaf)
        for name in set(arrays) - leaf.keys.used:
            _count(found.stray, name)

    def rows_of(self, group: h5py.Group, keys: Keys, path: str) -> int:
        shape = self.array(group[keys.coordinates], f"{path}/{keys.coordinates}").shape
        if len(shape) not in (2, 3) or shape[-1] != 3:
            raise self.fail(f"{path}/{keys.coordinates} has shape {shape}, expected (geometries, atoms, 3)")
        return int(shape[0]) if len(shape) == 3 else 1

    def array(self, data: h5py.Dataset, name: str) -> h5py.Dataset:
        if not isinstance(data, h5py.Dataset) or data.shape is None:
            raise self.fail(f"{name} must be an array")
        if not is_plain(data):
            raise self.fail(f"{name} is stored outside the file or by a plug-in; store it plainly or with gzip")
        if not has_possible_size(data, self.bytes):
            raise self.fail(f"{name} claims {data.nbytes} bytes, which the file does not hold: truncated or damaged")
        return data

    def species(self, data: h5py.Dataset, name: str) -> Int[Array, "*rows atoms"]:
        self.array(data, name)
        if data.dtype.kind in "iu":
            values = np.asarray(data[()], dtype=np.int64)
        elif data.dtype.kind == "S" or h5py.check_string_dtype(data.dtype) is not None:
            texts = [t.decode() if isinstance(t, bytes) else str(t) for t in np.asarray(data[()]).ravel().tolist()]
            unknown = [t for t in texts if t.strip() and t.strip() not in atomic_numbers]
            if unknown:
                raise self.fail(f'{name}: no element "{unknown[0]}"')
            values = np.array([atomic_numbers.get(t.strip(), 0) for t in texts]).reshape(data.shape)
        else:
            raise self.fail(f"{name} holds {data.dtype}, expected atomic numbers or symbols")
        if values.ndim not in (1, 2) or values.shape[-1] == 0:
            raise self.fail(f"{name} has shape {values.shape}, expected (atoms) or (geometries, atoms)")
        return values

    # --- reading ---------------------------------------------------------------------------------------------------

    def block(self, leaf: _Leaf, rows: Int[Array, "rows"]) -> tuple[list[Structure], Labels]:
        """Structures and labels of some rows of a group, in the units of the file."""
        group = self.file if leaf.path == "all" else self.file[leaf.path]
        keys = leaf.keys
        coordinates = self.take(group[keys.coordinates], f"{leaf.path}/{keys.coordinates}", rows, leaf.rows)
        n = coordinates.shape[1]
        numbers = leaf.numbers if leaf.numbers.ndim == 1 else leaf.numbers[rows]
        if numbers.shape[-1] != n or (leaf.numbers.ndim == 2 and len(leaf.numbers) != leaf.rows):
            raise self.fail(
                f"{leaf.path}: species of shape {leaf.numbers.shape} for {leaf.rows} geometries of {n} atoms"
            )
        values: dict[str, Array] = {}
        for label, name in keys.labels.items():
            raw = self.take(group[name], f"{leaf.path}/{name}", rows, leaf.rows)
            try:
                values[label] = _shaped(label, raw, len(rows), n)
            except ValueError:
                raise LabelShapeError(
                    f"{self.path}: {leaf.path}/{name} has shape {group[name].shape}, which fits no {label} of "
                    f"{leaf.rows} geometries of {n} atoms"
                ) from None
            if name in keys.negated:
                values[label] = -values[label]
        every = np.broadcast_to(numbers, (len(rows), n))
        real = every > 0
        if real.all():
            labels = _labels(n, len(rows), values)
        else:
            labels = Labels.concatenate([_unpadded(values, i, real[i]) for i in range(len(rows))])
        try:
            structures = [
                Structure(
                    every[i][real[i]],
                    coordinates[i][real[i]],
                    id=leaf.id(int(row)),
                    group=keys.group_of(leaf.path),
                    tag=keys.tag_of(leaf.path),
                )
                for i, row in enumerate(rows)
            ]
        except HesseError as error:
            raise type(error)(f"{self.path}: {error}") from None
        return structures, labels

    def take(self, data: h5py.Dataset, name: str, rows: Int[Array, "rows"], total: int) -> Array:
        """The rows as float64, read in runs: HDF5 is slow at picking rows one by one."""
        self.array(data, name)
        if data.dtype.kind not in "fiu":
            raise self.fail(f"{name} holds {data.dtype}, expected numbers")
        if data.ndim == 0 or data.shape[0] != total:
            if total != 1:
                raise self.fail(f"{name} has shape {data.shape}, expected one row for each of {total} geometries")
            return np.asarray(data[()], dtype=np.float64)[None]  # a single geometry without an axis for it
        if name.endswith(("coordinates", "positions")) and data.ndim == 2:
            return np.asarray(data[()], dtype=np.float64)[None]
        runs = np.split(rows, np.flatnonzero(np.diff(rows) > _GAP) + 1)
        parts = [data[run[0] : run[-1] + 1][run - run[0]] for run in runs]
        return np.concatenate(parts).astype(np.float64, copy=False)


def _kind_in(group: h5py.Group, name: str) -> str:
    """What stands under a name: "group", "array", or where a link leads that is not followed."""
    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        return "another file"
    try:
        return "group" if group.get(name, getclass=True) is h5py.Group else "array"
    except KeyError:
        return "nowhere"


def _shaped(label: str, raw: Array, rows: int, n: int) -> Array:
    if label == "energy":
        return raw.reshape(rows)
    if label == "forces":
        return raw.reshape(rows, n, 3)
    if raw.shape[1:] == (n, n, 3, 3) and n != 3:
        raw = raw.swapaxes(2, 3)
    return raw.reshape(rows, n, 3, n, 3)


def _labels(n: int, rows: int, values: Mapping[str, Array]) -> Labels:
    """Labels of `rows` structures of `n` atoms; a label that holds a NaN is absent."""
    fields: dict[str, Any] = {"n_atoms": torch.full((rows,), n)}
    for label, value in values.items():
        held = ~np.isnan(value.reshape(rows, -1)).any(1)
        if not held.any():
            continue
        if label == "hessian":
            flat = value[held].reshape(-1)
        else:
            flat = np.where(held.reshape(-1, *[1] * (value.ndim - 1)), value, np.nan)
            flat = flat.reshape(-1, 3) if label == "forces" else flat
        fields[label] = torch.from_numpy(np.ascontiguousarray(flat))
        if not held.all():
            fields[f"{label}_mask"] = torch.from_numpy(held)
    return Labels(**fields)


def _unpadded(values: Mapping[str, Array], row: int, real: Array) -> Labels:
    """Labels of one structure without the atoms that are padding."""
    cut = {
        "energy": lambda v: v,
        "forces": lambda v: v[real],
        "hessian": lambda v: v[real][:, :, real],
    }
    return _labels(int(real.sum()), 1, {label: cut[label](value[row])[None] for label, value in values.items()})


def _count(table: dict[str, int], name: str) -> None:
    table[name] = table.get(name, 0) + 1
