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
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray as Array

from hesse.datasets.dataset import Dataset
from hesse.datasets.formats.ani_groups import LeafGroup, checked_array, find_groups
from hesse.datasets.formats.file_units import FileUnits, check_file_units, check_total_energies
from hesse.datasets.formats.safety import open_hdf5
from hesse.datasets.formats.subset import ALL, Subset, SubsetLike, as_subset
from hesse.errors import FileFormatError, GeometryError, HesseError, LabelShapeError, UnitError
from hesse.structures import Properties, Structure

__all__ = ["iterate_grouped", "read_grouped"]

_ROWS_PER_CHUNK: Final = 5000
_MAX_ROW_GAP: Final = 64
"""Largest number of unselected rows between two selected ones that are still read in one call."""
_HARTREE_ANGSTROM: Final = FileUnits(energy="hartree", length="angstrom")
_CONVENTIONS: Final = {
    "transition1x": FileUnits(energy="eV", length="angstrom"),
    "themol": FileUnits(energy="kcal/mol", length="angstrom"),
}
"""Units by layout, where they are not Hartree and Å."""


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
        leaves, skipped = find_groups(self.path, self.file, self.rename, subset)
        if not leaves:
            if subset.match is not None:
                raise subset.no_match_error(self.path, list(self.file)[:3])
            raise self.error(
                "no group holds coordinates (or positions) and species (or atomic_numbers); found "
                f"{', '.join(list(self.file)[:6]) or 'nothing'}"
            )
        names = leaves[0].names
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
        not_read = dict(sorted(skipped.items()))
        for leaf, rows in self.selected_rows(leaves, subset):
            for start in range(0, len(rows), chunk):
                structures, labels = self.read_block(leaf, rows[start : start + chunk])
                if assumed and labels.energy is not None:
                    check_total_energies(self.path, structures, labels.energy, units.energy)
                converted, labels = units.to_internal(structures, labels)
                yield Dataset(converted, labels, metadata=metadata, source=str(self.path), not_read=not_read)

    def selected_rows(self, leaves: list[LeafGroup], subset: Subset) -> Iterator[tuple[LeafGroup, Int[Array, "rows"]]]:
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

    def read_block(self, leaf: LeafGroup, rows: Int[Array, "rows"]) -> tuple[list[Structure], Properties]:
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
        checked_array(self.path, data, name, self.bytes)
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
