"""Input of public functions: data sets and structures from files of any format, ASE atoms, lists; their checks, and
writing."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from ase import Atoms

from hesse.datasets.dataset import Dataset
from hesse.datasets.formats.safety import refuse_unsafe
from hesse.datasets.formats.subset import ALL, SubsetLike, as_subset
from hesse.datasets.formats.table import ReadOptions, find_format, find_writer
from hesse.datasets.quality.consistency import ConsistencyReport, check_consistency
from hesse.datasets.quality.flags import find_non_finite
from hesse.errors import FileFormatError, GeometryError, LabelValueError, NotReadWarning, RequestError, UnitError
from hesse.structures import Properties, Structure, check_cell, from_ase

__all__ = [
    "DatasetSource",
    "StructuresLike",
    "as_dataset",
    "as_path",
    "as_structure",
    "as_structures",
    "check_dataset",
    "check_writable_suffix",
    "read_dataset",
    "write_dataset",
]

DatasetSource: TypeAlias = (
    "Dataset | str | Path | Structure | Atoms | Iterable[Structure | Atoms | tuple[Structure, Properties]]"
)
"""A data set, the path of its file, ASE atoms with their labels, structures, or pairs of structures and labels."""

StructuresLike: TypeAlias = (
    "Structure | Atoms | Dataset | str | Path | tuple[Structure, Properties] "
    "| Iterable[Structure | Atoms | tuple[Structure, Properties]]"
)
"""Geometries: a Structure, ASE Atoms, a list of either, a Dataset or its items, or the path of a file."""

_STRUCTURES = "structures: a hesse.Structure, ASE Atoms, a list of them, a Dataset, or the path of a file"


def read_dataset(
    path: str | Path,
    *,
    check: bool = True,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    forces_unit: str | None = None,
    curvature_unit: str | None = None,
    stress_unit: str | None = None,
    rename: Mapping[str, str] | None = None,
    subset: SubsetLike = ALL,
    strict: bool = False,
) -> Dataset:
    """Read a data set. The format is detected by suffix, name and content:

    - `.h5`, `.hdf5`: Hesse's own, or grouped (OpenREACT, ANI, Transition1x), or force constants of phonopy;
    - `.extxyz`, `.xyz`; `.npz` (units must be given);
    - `.log`, `.out`, `.fchk`, `.hess`: outputs of quantum-chemistry programs; `.json`: ASE's `VibrationsData`;
    - `phonopy*.yaml`, `FORCE_CONSTANTS`, `FORCE_SETS`;
    - a folder: of DeePMD systems, of phonopy, or of outputs;
    - a geometry without labels (`POSCAR`, `.cif`, `.pdb`, `.sdf`, …).

    Args:
        path: a file or a folder.
        check: check geometries and labels, see `check_dataset`.
        energy_unit, length_unit: units of a file that does not state them; by default those of the format.
        forces_unit, curvature_unit, stress_unit: units of forces, Hessians and stresses that do not follow from the
            units of energy and length, such as `"hartree/bohr"`, `"hartree/bohr^2"`, `"kbar"`.
        rename: for extended XYZ and grouped HDF5: names of labels in the file and their usual names,
            `{"REF_energy": "energy"}`.
        subset: the part of the file to read, or a pattern for ids, `"H2O/*"`. For grouped HDF5, DeePMD and folders of
            outputs, nothing else is read from disk.
        strict: refuse a file with anything that is not read, instead of warning (`hesse.errors.NotReadWarning`).

    Returns:
        Structures and labels in eV and Å.

    Raises:
        FileFormatError: an unknown format, a truncated or damaged file, one whose reading would run code, or `strict`
            and a file of which something is not read.
        UnitError: units that are missing, unknown, or different from those that the file states.
        MissingExtraError: a package that this format needs is not installed.
        LabelShapeError, LabelValueError, GeometryError, InconsistentLabelsError, RequestError: see the readers and
            `check_dataset`.
    """
    path = as_path(path)
    for name in (energy_unit, length_unit, forces_unit, curvature_unit, stress_unit):
        if name is not None and not isinstance(name, str):
            raise UnitError(f"expected the name of a unit, such as hartree or bohr, got {name!r}")
    if rename is not None and not isinstance(rename, Mapping):
        raise RequestError(f"rename: expected a mapping of old names to new ones, got {type(rename).__name__}")
    refuse_unsafe(path)
    options = ReadOptions(
        energy_unit=energy_unit,
        length_unit=length_unit,
        forces_unit=forces_unit,
        curvature_unit=curvature_unit,
        stress_unit=stress_unit,
        rename=dict(rename or {}),
        subset=as_subset(subset),
    )
    dataset = find_format(path).read_part(path, options)
    _report_not_read(path, dataset, strict=strict)
    if check:
        check_dataset(dataset)
    return dataset


_MAX_NAMED = 12
"""Number of keys and columns that a message names."""


def _report_not_read(path: Path, dataset: Dataset, *, strict: bool) -> None:
    if not dataset.not_read:
        return
    names = [f"{name} ({count} times)" if count > 1 else name for name, count in dataset.not_read.items()]
    more = f", and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    message = f"{path}: not read: {', '.join(names[:_MAX_NAMED])}{more}"
    if strict:
        raise FileFormatError(
            f"{message}. Remove it, rename what is a label (`--rename OLD=NEW`), or read without strict."
        )
    warnings.warn(message, NotReadWarning, stacklevel=3)


def as_path(path: str | Path) -> Path:
    """Convert to a path.

    Args:
        path: a path as text or as an object of Python's `pathlib`.

    Returns:
        The path.

    Raises:
        RequestError: the argument is of another type.
    """
    if not isinstance(path, str | Path):
        raise RequestError(f"expected the path of a file, got {type(path).__name__}")
    if not str(path):
        raise RequestError("expected the path of a file, got an empty text")
    return Path(path)


def as_dataset(data: DatasetSource) -> Dataset:
    """Convert to a data set.

    Args:
        data: a Dataset, the path of a file in any format that `read_dataset` knows, ASE Atoms or a list of them (with
            the labels that they carry, see `Dataset.from_ase`), a Structure or a list of them (without labels), pairs
            of structures and labels, or a result that has a `dataset` (of `hesse.label`).

    Returns:
        Structures and their labels, in eV and Å.

    Raises:
        RequestError: an argument of another type, or no structure at all.
        HesseError: the file cannot be read, or atoms carry invalid labels.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | Path):
        return read_dataset(data)
    if isinstance(inner := getattr(data, "dataset", None), Dataset):
        return inner
    if isinstance(data, Atoms | Structure) or _is_pair(data):
        data = [data]  # type: ignore[list-item]
    items = list(data) if isinstance(data, Iterable) else []
    if items and all(isinstance(item, Atoms) for item in items):
        return Dataset.from_ase(items)
    pairs = [(item, Properties.single(len(item))) if isinstance(item, Structure) else item for item in items]
    if pairs and all(_is_pair(pair) for pair in pairs):
        return Dataset.from_pairs(pairs)
    got = f"{type(data).__name__} of {' and '.join(sorted({type(item).__name__ for item in items}))}" if items else ""
    raise RequestError(
        "expected a data set: a hesse.Dataset, the path of a file, a list of ASE Atoms, of structures or of pairs "
        f"(structure, labels); got {got or _described(data)}"
    )


def _is_pair(item: object) -> bool:
    return (
        isinstance(item, tuple)
        and len(item) == 2
        and isinstance(item[0], Structure)
        and isinstance(item[1], Properties)
    )


def _described(data: object) -> str:
    return f"an empty {type(data).__name__}" if isinstance(data, Iterable) else type(data).__name__


def as_structures(structures: StructuresLike) -> tuple[Structure, ...]:
    """The structures in `structures`, in order.

    Args:
        structures: a Structure, ASE Atoms, an iterable of them, a Dataset or items of it, the path of a file in any
            format that `read_dataset` knows, or a result that has a `structure` (of `minimize`, `saddle`, ...).

    Returns:
        The structures. Atoms get the id in `atoms.info["structure_id"]`, or one made of formula and content; copies of
        the same atoms in one list get the suffixes "-2", "-3", ...

    Raises:
        RequestError: an argument of another type, or no structure at all.
        HesseError: the file cannot be read.
    """
    if isinstance(structures, str | Path):
        return as_dataset(structures).structures
    if isinstance(structures, Structure | Atoms):
        return (_structure(structures),)
    if isinstance(structures, Dataset):
        return structures.structures
    if isinstance(getattr(structures, "structure", None), Structure) or _is_pair(structures):
        return (_structure(structures),)
    if not isinstance(structures, Iterable):
        got = f"the class {structures.__name__}" if isinstance(structures, type) else type(structures).__name__
        raise RequestError(f"expected {_STRUCTURES}; got {got}")
    result = _distinct([(_structure(item), isinstance(item, Atoms)) for item in structures])
    if not result:
        raise RequestError(f"expected {_STRUCTURES}; got an empty {type(structures).__name__}")
    return result


def as_structure(structure: StructuresLike) -> Structure:
    """The only structure in `structure`.

    Args:
        structure: as for `as_structures`, holding exactly one structure.

    Returns:
        That structure.

    Raises:
        RequestError: several structures, or none.
    """
    structures = as_structures(structure)
    if len(structures) > 1 and isinstance(structure, str | Path):
        command = shlex.join(["hesse", "convert", str(structure), "one.extxyz", "--match", structures[0].id])
        raise RequestError(
            f"{structure}: expected one structure, got {len(structures)}. Write the one that is meant to a file of its "
            f"own, for example: {command}"
        )
    if len(structures) != 1:
        raise RequestError(f"expected one structure, got {len(structures)}: pass one of them, such as structures[0]")
    return structures[0]


def _structure(item: object) -> Structure:
    if isinstance(item, Structure):
        return item
    if isinstance(item, Atoms):
        return from_ase(item)
    if isinstance(inner := getattr(item, "structure", None), Structure):
        return inner
    if _is_pair(item):
        return item[0]  # type: ignore[index]
    raise RequestError(f"expected {_STRUCTURES}; one item of the list is {type(item).__name__}")


def _distinct(items: list[tuple[Structure, bool]]) -> tuple[Structure, ...]:
    """Structures with different ids: generated ids that repeat get a suffix; ids that the caller chose are not
    changed."""
    seen: dict[str, int] = {}
    result = []
    for structure, made_here in items:
        count = seen[structure.id] = seen.get(structure.id, 0) + 1
        if count > 1 and made_here:
            structure = structure.with_positions(structure.positions, id=f"{structure.id}-{count}")
        result.append(structure)
    return tuple(result)


def write_dataset(path: str | Path, data: DatasetSource) -> None:
    """Write a data set as HDF5 (`.h5`, `.hdf5`) or extended XYZ (`.extxyz`, `.xyz`), or the Hessian of its one
    structure as ASE's `VibrationsData` (`.json`).

    Args:
        path: the new file; an existing one is replaced in one step, and does not change if writing fails.
        data: a data set, or anything that `as_dataset` takes.

    Raises:
        FileFormatError: another suffix.
        RequestError, LabelShapeError: several structures, or no Hessian, for `.json`.
        WriteError: the disk is full, or the folder is missing or not writable.
    """
    write = find_writer(as_path(path))
    write(Path(path), as_dataset(data))


def check_writable_suffix(path: str | Path, *, complete: bool = False) -> None:
    """Check that `write_dataset` can write a file of this name; useful before a long calculation.

    Args:
        path: the file to be written.
        complete: any number of structures with all of their labels will be written, so that a format that holds a
            single Hessian (`.json`) does not do.

    Raises:
        FileFormatError: a suffix that is not supported for writing, or not for all labels.
    """
    find_writer(as_path(path), complete=complete)


def check_dataset(dataset: DatasetSource) -> list[ConsistencyReport]:
    """Check geometries and labels: finite numbers, no overlapping atoms, curvature that agrees with the forces.

    Args:
        dataset: the data; structures flagged suspect are not checked.

    Returns:
        A report for each curvature label that is present; none if all structures are flagged.

    Raises:
        LabelValueError: a label that is NaN or infinite, or a weight below zero.
        GeometryError: two atoms closer than 0.3 Å, or a periodic cell that no crystal has.
        InconsistentLabelsError: Hessians or Hessian-vector products that contradict geometry and forces.
    """
    dataset = as_dataset(dataset)
    if bool(dataset.labels.suspect_mask().all()):
        return []
    dataset = dataset.without_suspects()
    _check_finite(dataset)
    for structure in dataset.structures:
        try:
            check_cell(structure)
            structure.check_no_overlap()
        except GeometryError as error:
            raise GeometryError(f"{dataset.source}: {error}") from None
    return check_consistency(dataset)


def _check_finite(dataset: Dataset) -> None:
    non_finite = find_non_finite(dataset)
    if non_finite:
        first, name = next(iter(sorted(non_finite.items())))
        raise LabelValueError(
            f'{dataset.source}: structure "{dataset.structures[first].id}": {name} holds NaN or infinity '
            f"({len(non_finite)} of {len(dataset)} structures). Leave out a label that is not known, remove the "
            "structure, or keep it out of use with `hesse convert --flag-suspect`."
        )
    weight = dataset.labels.weight
    if weight is not None and bool((weight < 0).any()):
        first = int(weight.argmin())
        raise LabelValueError(
            f'{dataset.source}: structure "{dataset.structures[first].id}": weight = {float(weight[first]):g}, '
            "expected 0 or more"
        )
