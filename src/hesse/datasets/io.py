"""What kind of data a file or a folder holds, by its suffix, its name or its content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import h5py
from ase.io import read as read_with_ase

from hesse.datasets.dataset import Dataset
from hesse.datasets.formats import (
    ALL,
    QM_SUFFIXES,
    FileUnits,
    Subset,
    find_deepmd_systems,
    is_grouped,
    is_phonopy,
    read_deepmd,
    read_grouped,
    read_phonopy,
    read_qm_folder,
    read_qm_output,
    read_vibrations,
    refuse_unsafe,
    write_vibrations,
)
from hesse.datasets.formats.extxyz import read_extxyz, write_extxyz
from hesse.datasets.formats.hdf5 import read_hdf5, write_hdf5
from hesse.datasets.formats.hdf5.safety import HDF5_ERRORS
from hesse.datasets.formats.npz import read_npz
from hesse.datasets.quality.consistency import ConsistencyReport, check_consistency
from hesse.datasets.quality.flags import find_non_finite
from hesse.errors import FileFormatError, GeometryError, HesseError, LabelValueError, RequestError, UnitError
from hesse.runtime.filesystem import check_input_file
from hesse.structures import Properties, from_ase

__all__ = [
    "GEOMETRY_FORMATS",
    "HDF5_SUFFIXES",
    "XYZ_SUFFIXES",
    "check_dataset",
    "check_writable_suffix",
    "detect_format",
    "read_dataset",
    "write_dataset",
]

HDF5_SUFFIXES: Final = frozenset({".h5", ".hdf5"})
XYZ_SUFFIXES: Final = frozenset({".xyz", ".extxyz"})
GEOMETRY_FORMATS: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".poscar": "vasp",
        ".vasp": "vasp",
        ".cif": "cif",
        ".pdb": "proteindatabank",
        ".sdf": "sdf",
        ".mol": "mol",
        ".gen": "gen",
        ".xsf": "xsf",
    }
)
"""Formats of other owners, read by ASE for their geometry. None of these readers runs code from the file."""


def detect_format(path: Path) -> str:
    """One of: hdf5, grouped, xyz, npz, output, outputs, vibrations, phonopy, deepmd, geometry.

    Raises:
        FileFormatError: none of them.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        return _detect_folder_format(path)
    if suffix in HDF5_SUFFIXES:
        return "phonopy" if is_phonopy(path) else _detect_hdf5_format(path)
    formats = {
        **dict.fromkeys(XYZ_SUFFIXES, "xyz"),
        **dict.fromkeys(QM_SUFFIXES, "output"),
        ".npz": "npz",
        ".json": "vibrations",
    }
    if suffix in formats:
        return formats[suffix]
    if is_phonopy(path):
        return "phonopy"
    if suffix in GEOMETRY_FORMATS or path.name.upper().startswith(("POSCAR", "CONTCAR", "SPOSCAR")):
        return "geometry"
    raise FileFormatError(f"{path}: no reader for {suffix or 'a file without a suffix'}. {_supported_formats()}")


def _detect_folder_format(folder: Path) -> str:
    if find_deepmd_systems(folder):
        return "deepmd"
    if is_phonopy(folder):
        return "phonopy"
    if any(p.suffix.lower() in QM_SUFFIXES for p in folder.rglob("*")):
        return "outputs"
    raise FileFormatError(
        f"{folder}: this is a folder. Folders are read that hold DeePMD systems (type.raw, set.*), files of phonopy or "
        f"outputs ({', '.join(sorted(QM_SUFFIXES))}); none of these is there."
    )


def _detect_hdf5_format(path: Path) -> str:
    """Own format unless the content says otherwise: then its reader tells what it expected."""
    check_input_file(path)
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            if "format" in file.attrs:
                return "hdf5"
            if "force_constants" in file:
                return "phonopy"
            return "grouped" if is_grouped(file) else "hdf5"
    except HDF5_ERRORS:
        return "hdf5"


def _supported_formats() -> str:
    others = ", ".join(sorted(GEOMETRY_FORMATS))
    return (
        f"Known: .h5, .hdf5, .extxyz, .xyz, .npz, {', '.join(sorted(QM_SUFFIXES))}, .json (VibrationsData), phonopy*.yaml, "
        f"FORCE_CONSTANTS, folders of DeePMD, and for geometries without labels POSCAR, {others}."
    )


def read_dataset(
    path: str | Path,
    *,
    check: bool = True,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    forces_unit: str | None = None,
    curvature_unit: str | None = None,
    rename: Mapping[str, str] | None = None,
    subset: Subset = ALL,
) -> Dataset:
    """Read a data set. By suffix, name or content this is one of:

    - `.h5`, `.hdf5`: Hesse's own, or grouped (OpenREACT, ANI, Transition1x), or force constants of phonopy;
    - `.extxyz`, `.xyz`; `.npz` (units must be told);
    - `.log`, `.out`, `.fchk`, `.hess`: outputs of quantum-chemistry programs; `.json`: ASE's `VibrationsData`;
    - `phonopy*.yaml`, `FORCE_CONSTANTS`, `FORCE_SETS`;
    - a folder: of DeePMD systems, of phonopy, or of outputs;
    - a geometry without labels (`POSCAR`, `.cif`, `.pdb`, `.sdf`, …).

    Args:
        check: judge what was read, see `check_dataset`.
        energy_unit, length_unit: units of a file that does not state them; else those of the format are taken.
        forces_unit, curvature_unit: of forces and Hessians, where they are not those of energy and length:
            `"hartree/bohr"`, `"hartree/bohr^2"`.
        rename: extended XYZ and grouped HDF5: labels under names of the file's own, `{"REF_energy": "energy"}`.
        selection: the part of the file that is wanted; of grouped HDF5, DeePMD and folders of outputs nothing else is
            read.

    Raises:
        FileFormatError: an unknown kind of file, one that is truncated or damaged, or one whose reading would run code.
        UnitError: the file states no units and none were given, or unknown ones, or it states them and they differ.
        MissingExtraError: a package is needed to read this kind, and not installed.
        LabelShapeError, LabelValueError, GeometryError, IdentityError, RequestError: see the readers and
            `check_dataset`.
    """
    path = Path(path)
    units = _RequestedUnits(energy_unit, length_unit, forces_unit, curvature_unit)
    refuse_unsafe(path)
    dataset = _read_subset(path, units, dict(rename or {}), subset)
    if check:
        check_dataset(dataset)
    return dataset


@dataclass(frozen=True)
class _RequestedUnits:
    """What the user said of units; None where nothing was said."""

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
    # These read nothing but what is chosen.
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


def write_dataset(path: str | Path, dataset: Dataset) -> None:
    """Write a data set as HDF5 (`.h5`, `.hdf5`) or extended XYZ (`.extxyz`, `.xyz`), or the Hessian of its one
    structure as ASE's `VibrationsData` (`.json`), whole or not at all.

    Raises:
        FileFormatError: another suffix.
        RequestError, LabelShapeError: several structures, or no Hessian, for `.json`.
        WriteError: the disk is full, the folder is missing or not writable; what was there before is unharmed.
    """
    check_writable_suffix(path)
    if Path(path).suffix.lower() in HDF5_SUFFIXES:
        write_hdf5(path, dataset)
    elif Path(path).suffix.lower() == ".json":
        write_vibrations(path, dataset)
    else:
        write_extxyz(path, dataset)


def check_writable_suffix(path: str | Path) -> None:
    """Raise FileFormatError unless `write_dataset` can write `path`: to be asked before long work."""
    suffix = Path(path).suffix.lower()
    if suffix not in HDF5_SUFFIXES | XYZ_SUFFIXES | {".json"}:
        raise FileFormatError(
            f"{path}: data sets are written as .h5 or .extxyz (a single Hessian as .json too), not as "
            f"{suffix or 'a bare name'}"
        )


def check_dataset(dataset: Dataset) -> list[ConsistencyReport]:
    """Judge geometry and labels: finite numbers, atoms apart, curvature that fits the forces. Returns what was found
    out about each curvature label. Structures flagged suspect are not looked at: whoever uses them has asked for them.

    Raises:
        LabelValueError: a label that is not a finite number.
        GeometryError: two atoms on top of each other.
        IdentityError: Hessians or HVPs that contradict geometry and forces.
    """
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
            f"({len(non_finite)} of {len(dataset)} structures). Leave out a label that is not known, remove the structure, "
            "or keep it out of use with `hesse convert --flag-suspect`."
        )


def _read_geometries(path: Path, ase_format: str) -> Dataset:
    check_input_file(path)
    try:
        frames = read_with_ase(path, index=":", format=ase_format)
    except Exception as error:  # each reader raises what it likes
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


# MERGED DOCSTRING (fold into the module docstring): """The doors: from a file to a data set that can be believed, and back."""
