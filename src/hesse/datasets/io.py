"""Reading of data sets of any supported format, checks of their content, and writing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

from ase import Atoms
from ase.io import read as read_with_ase

from hesse.datasets.dataset import Dataset
from hesse.datasets.formats import (
    ALL,
    FileUnits,
    Subset,
    SubsetLike,
    as_subset,
    read_deepmd,
    read_grouped,
    read_phonopy,
    read_qm_folder,
    read_qm_output,
    read_vibrations,
    refuse_unsafe,
    write_vibrations,
)
from hesse.datasets.formats.detection import GEOMETRY_FORMATS, HDF5_SUFFIXES, XYZ_SUFFIXES, detect_format
from hesse.datasets.formats.extxyz import read_extxyz, write_extxyz
from hesse.datasets.formats.hdf5 import read_hdf5, write_hdf5
from hesse.datasets.formats.npz import read_npz
from hesse.datasets.quality.consistency import ConsistencyReport, check_consistency
from hesse.datasets.quality.flags import find_non_finite
from hesse.errors import FileFormatError, GeometryError, HesseError, LabelValueError, RequestError, UnitError
from hesse.runtime.filesystem import check_input_file
from hesse.structures import Properties, Structure, from_ase

__all__ = [
    "DatasetSource",
    "as_dataset",
    "as_path",
    "check_dataset",
    "check_writable_suffix",
    "read_dataset",
    "write_dataset",
]

DatasetSource: TypeAlias = (
    "Dataset | str | Path | Structure | Atoms | Iterable[Structure | Atoms | tuple[Structure, Properties]]"
)
"""A data set, the path of its file, ASE atoms with their labels, structures, or pairs of structures and labels."""


def read_dataset(
    path: str | Path,
    *,
    check: bool = True,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    forces_unit: str | None = None,
    curvature_unit: str | None = None,
    rename: Mapping[str, str] | None = None,
    subset: SubsetLike = ALL,
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
        forces_unit, curvature_unit: units of forces and Hessians that do not follow from the units of energy and
            length, such as `"hartree/bohr"`, `"hartree/bohr^2"`.
        rename: for extended XYZ and grouped HDF5: names of labels in the file and their usual names,
            `{"REF_energy": "energy"}`.
        subset: the part of the file to read, or a pattern for ids, `"H2O/*"`. For grouped HDF5, DeePMD and folders of
            outputs, nothing else is read from disk.

    Returns:
        Structures and labels in eV and Å.

    Raises:
        FileFormatError: an unknown format, a truncated or damaged file, or one whose reading would run code.
        UnitError: units that are missing, unknown, or different from those that the file states.
        MissingExtraError: a package that this format needs is not installed.
        LabelShapeError, LabelValueError, GeometryError, InconsistentLabelsError, RequestError: see the readers and
            `check_dataset`.
    """
    path = as_path(path)
    for name in (energy_unit, length_unit, forces_unit, curvature_unit):
        if name is not None and not isinstance(name, str):
            raise UnitError(f"expected the name of a unit, such as hartree or bohr, got {name!r}")
    if rename is not None and not isinstance(rename, Mapping):
        raise RequestError(f"rename: expected a mapping of old names to new ones, got {type(rename).__name__}")
    units = _RequestedUnits(energy_unit, length_unit, forces_unit, curvature_unit)
    refuse_unsafe(path)
    dataset = _read_subset(path, units, dict(rename or {}), as_subset(subset))
    if check:
        check_dataset(dataset)
    return dataset


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


@dataclass(frozen=True)
class _RequestedUnits:
    """Units that the caller requested; None where nothing was requested."""

    energy: str | None
    length: str | None
    forces: str | None
    curvature: str | None

    def with_defaults(self) -> FileUnits:
        return FileUnits(
            energy=self.energy or "eV",
            length=self.length or "angstrom",
            forces=self.forces,
            curvature=self.curvature,
        )

    def or_none(self) -> FileUnits | None:
        values = (self.energy, self.length, self.forces, self.curvature)
        return self.with_defaults() if any(s is not None for s in values) else None

    def check_not_given(self, path: Path, names: tuple[str, ...], why: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise UnitError(f"{path}: --{name}-unit was given, but {why}")


_ALL_UNITS: Final = ("energy", "length", "forces", "curvature")


def _read_subset(path: Path, units: _RequestedUnits, rename: dict[str, str], subset: Subset) -> Dataset:
    suffix = path.suffix.lower()
    format_name = detect_format(path)
    if rename and format_name not in ("xyz", "grouped"):
        raise RequestError(
            f"{path}: only keys and columns of extended XYZ and grouped HDF5 can be renamed, not those of {suffix}"
        )
    # The readers of these formats read only the requested part.
    if format_name == "grouped":
        if units.energy is None and (units.length or units.forces or units.curvature):
            raise UnitError(f"{path}: with other units give that of the energy too: `--energy-unit hartree`")
        return read_grouped(path, units=units.or_none(), rename=rename, subset=subset)
    if format_name == "deepmd":
        return read_deepmd(path, units=units.with_defaults(), subset=subset)
    if format_name == "outputs":
        units.check_not_given(path, _ALL_UNITS, "outputs of programs are in known units")
        return read_qm_folder(path, subset=subset)
    if format_name == "npz":
        limit = subset.limit if subset.match is None and subset.sample is None else None
        dataset = read_npz(path, energy_unit=units.energy, length_unit=units.length, limit=limit)
        return subset.apply(replace(dataset, labels=units.with_defaults().rescale(dataset.labels)))
    return subset.apply(_read_complete(path, format_name, units, rename))


def _read_complete(path: Path, format_name: str, units: _RequestedUnits, rename: dict[str, str]) -> Dataset:
    if format_name == "xyz":
        source_units = units.with_defaults()
        dataset = read_extxyz(path, energy_unit=source_units.energy, length_unit=source_units.length, rename=rename)
        return replace(dataset, labels=source_units.rescale(dataset.labels))
    if format_name == "hdf5":
        units.check_not_given(path, ("forces", "curvature"), "this format has units of energy and length alone")
        return read_hdf5(path, energy_unit=units.energy, length_unit=units.length)
    if format_name == "geometry":
        return _read_geometries(path, GEOMETRY_FORMATS.get(path.suffix.lower(), "vasp"))
    units.check_not_given(path, _ALL_UNITS, "the units of this format are known")
    readers = {"phonopy": read_phonopy, "vibrations": read_vibrations, "output": read_qm_output}
    return readers[format_name](path)


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
    check_writable_suffix(path)
    dataset = as_dataset(data)
    if Path(path).suffix.lower() in HDF5_SUFFIXES:
        write_hdf5(path, dataset)
    elif Path(path).suffix.lower() == ".json":
        write_vibrations(path, dataset)
    else:
        write_extxyz(path, dataset)


def check_writable_suffix(path: str | Path) -> None:
    """Check that `write_dataset` can write a file of this name; useful before a long calculation.

    Args:
        path: the file to be written.

    Raises:
        FileFormatError: a suffix that is not supported for writing.
    """
    suffix = as_path(path).suffix.lower()
    if suffix not in HDF5_SUFFIXES | XYZ_SUFFIXES | {".json"}:
        raise FileFormatError(
            f"{path}: data sets are written as .h5 or .extxyz (a single Hessian as .json too), not as "
            f"{suffix or 'a bare name'}"
        )


def check_dataset(dataset: DatasetSource) -> list[ConsistencyReport]:
    """Check geometries and labels: finite numbers, no overlapping atoms, curvature that agrees with the forces.

    Args:
        dataset: the data; structures flagged suspect are not checked.

    Returns:
        A report for each curvature label that is present; none if all structures are flagged.

    Raises:
        LabelValueError: a label that is NaN or infinite.
        GeometryError: two atoms closer than 0.3 Å.
        InconsistentLabelsError: Hessians or Hessian-vector products that contradict geometry and forces.
    """
    dataset = as_dataset(dataset)
    if bool(dataset.labels.suspect_mask().all()):
        return []
    dataset = dataset.without_suspects()
    _check_finite(dataset)
    for structure in dataset.structures:
        try:
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


def _read_geometries(path: Path, ase_format: str) -> Dataset:
    check_input_file(path)
    try:
        frames = read_with_ase(path, index=":", format=ase_format)
    except Exception as error:  # the readers raise errors of many types
        raise FileFormatError(f"{path}: cannot be read as {ase_format}: {type(error).__name__}: {error}") from error
    if not frames:
        raise FileFormatError(f"{path}: holds no structure")
    ids = [path.stem] if len(frames) == 1 else [f"{path.stem}-{i}" for i in range(len(frames))]
    try:
        structures = [from_ase(atoms, id=name) for atoms, name in zip(frames, ids, strict=True)]
    except HesseError as error:
        raise type(error)(f"{path}: {error}") from None
    return Dataset(
        tuple(structures), Properties.concatenate([Properties.single(len(s)) for s in structures]), source=str(path)
    )
