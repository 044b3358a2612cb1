"""The table of file formats: how each is recognized, read and written, and which options it takes.

`read_dataset`, `write_dataset`, their error messages and the table in docs/formats.md follow from it. A new format is a
reader and one entry here, or `register_format` in a program that uses Hesse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from hesse.datasets.dataset import Dataset
from hesse.datasets.formats.ani_groups import is_grouped
from hesse.datasets.formats.ani_hdf5 import read_grouped
from hesse.datasets.formats.ase_files import read_ase_database, read_trajectory
from hesse.datasets.formats.ase_vibrations import read_vibrations, write_vibrations
from hesse.datasets.formats.deepmd import find_deepmd_systems, read_deepmd
from hesse.datasets.formats.extxyz import read_extxyz, write_extxyz
from hesse.datasets.formats.file_units import FileUnits
from hesse.datasets.formats.geometries import GEOMETRY_SUFFIXES, is_geometry, read_geometries
from hesse.datasets.formats.hdf5 import FORMAT, is_hesse_hdf5, read_hdf5, write_hdf5
from hesse.datasets.formats.npz import read_npz
from hesse.datasets.formats.phonopy import is_phonopy, read_phonopy
from hesse.datasets.formats.qm_outputs import QM_SUFFIXES, is_qm_output, read_qm_folder, read_qm_output
from hesse.datasets.formats.subset import ALL, Subset
from hesse.datasets.formats.vasp import is_vasp_output, read_vasp_output
from hesse.errors import FileFormatError, RequestError, UnitError
from hesse.runtime.filesystem import check_input_file

__all__ = ["FileFormat", "ReadOptions", "file_formats", "find_format", "find_writer", "register_format"]

_DATA_SETS: Final = "data sets"
"""Contents of a format that keeps any number of structures and all of their labels."""
_UNIT_OPTIONS: Final = ("energy", "length", "forces", "curvature")
_ALL_UNIT_OPTIONS: Final = (*_UNIT_OPTIONS, "stress")


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Statements of the caller of `read_dataset` about a file.

    Attributes:
        energy_unit, length_unit, forces_unit, curvature_unit, stress_unit: names of units; None if not stated.
        rename: names of labels in the file and their usual names.
        subset: the part of the file to read.
    """

    energy_unit: str | None = None
    length_unit: str | None = None
    forces_unit: str | None = None
    curvature_unit: str | None = None
    stress_unit: str | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    subset: Subset = ALL

    def stated_units(self) -> tuple[str, ...]:
        """List the units that are stated.

        Returns:
            Any of "energy", "length", "forces", "curvature", "stress".
        """
        return tuple(name for name in _ALL_UNIT_OPTIONS if getattr(self, f"{name}_unit") is not None)

    def file_units(self) -> FileUnits:
        """Complete the units.

        Returns:
            The stated units, else eV and Å.
        """
        return FileUnits(
            energy=self.energy_unit or "eV",
            length=self.length_unit or "angstrom",
            forces=self.forces_unit,
            curvature=self.curvature_unit,
            stress=self.stress_unit,
        )


@dataclass(frozen=True, kw_only=True)
class FileFormat:
    """A format of data sets.

    Attributes:
        name: name of the format, unique.
        files: the files that hold it, for messages and documentation; by default the suffixes.
        suffixes: suffixes of its files, lower case; the first is the usual one.
        recognize: whether a file or folder is in this format, by its name or content; by default the suffix decides.
        read: reader of a path with options; returns eV and Å.
        write: writer of a data set in eV and Å; None if the format is only read.
        written: what `write` can hold, for messages.
        unit_options: units that the caller may state: of "energy", "length", "forces", "curvature" and "stress".
        units: units of the files, for documentation.
        no_unit_options: why other units cannot be stated, for the message.
        renames: whether labels can be renamed.
        reads_subset: whether `read` reads only the requested subset; otherwise it is selected afterwards.
        folder: what a folder in this format holds, for messages; empty if a folder is never in this format.
    """

    name: str
    read: Callable[[Path, ReadOptions], Dataset]
    units: str
    files: str = ""
    suffixes: tuple[str, ...] = ()
    recognize: Callable[[Path], bool] | None = None
    write: Callable[[Path, Dataset], None] | None = None
    written: str = _DATA_SETS
    unit_options: tuple[str, ...] = ()
    no_unit_options: str = "the units of this format are known"
    renames: bool = False
    reads_subset: bool = False
    folder: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", self.files or ", ".join(self.suffixes))

    def matches(self, path: Path) -> bool:
        """Decide whether a file or folder is in this format.

        Args:
            path: the file or folder; it need not exist.

        Returns:
            True if it is recognized.
        """
        if path.is_dir() and not self.folder:
            return False
        return path.suffix.lower() in self.suffixes if self.recognize is None else self.recognize(path)

    def read_part(self, path: Path, options: ReadOptions) -> Dataset:
        """Read a file or folder of this format.

        Args:
            path: the file or folder.
            options: units, names and subset.

        Returns:
            The requested structures with their labels, in eV and Å.

        Raises:
            UnitError, RequestError: an option that this format does not take.
            HesseError: see the reader.
        """
        if options.rename and not self.renames:
            names = " and ".join(f.name for f in file_formats() if f.renames)
            raise RequestError(
                f"{path}: only keys and columns of {names} can be renamed, not those of {path.suffix.lower()}"
            )
        for name in options.stated_units():
            if name not in self.unit_options:
                raise UnitError(f"{path}: --{name}-unit was given, but {self.no_unit_options}")
        dataset = self.read(path, options)
        return dataset if self.reads_subset else options.subset.apply(dataset)


def file_formats() -> tuple[FileFormat, ...]:
    """List all formats.

    Returns:
        The formats in the order in which they are asked whether a file is theirs; registered ones come first.
    """
    return (*_REGISTERED, *_FORMATS)


def register_format(new: FileFormat) -> FileFormat:
    """Add a format to the table.

    From then on `read_dataset` and `write_dataset`, and all functions that take a path, know it. It takes precedence
    over the formats of Hesse. Call it once, in the module that defines the reader.

    Args:
        new: the format.

    Returns:
        The same format.

    Raises:
        RequestError: another format has this name.
    """
    if any(f.name == new.name for f in file_formats()):
        raise RequestError(f"there is a format {new.name!r} already; choose another name")
    _REGISTERED.append(new)
    return new


def find_format(path: Path) -> FileFormat:
    """Find the format of a data set.

    Args:
        path: a file or a folder.

    Returns:
        The first format that recognizes it. If none does, the first one with its suffix, whose reader says what is
        wrong.

    Raises:
        FileFormatError: no such file, or no format that can be read.
    """
    formats, suffix = file_formats(), path.suffix.lower()
    if not path.is_dir():
        check_input_file(path)
    match = next((f for f in formats if f.matches(path)), None)
    if match is None and path.is_dir():
        *first, last = [f.folder for f in formats if f.folder]
        raise FileFormatError(
            f"{path}: this is a folder. Folders that can be read hold {', '.join(first)} or {last}; it contains none "
            "of these."
        )
    match = match or next((f for f in formats if suffix in f.suffixes), None)
    if match is None:
        known = "; ".join(f"{f.files} ({f.name})" for f in formats)
        raise FileFormatError(f"{path}: no reader for {suffix or 'a file without a suffix'}. Known: {known}.")
    return match


def find_writer(path: Path, *, complete: bool = False) -> Callable[[Path, Dataset], None]:
    """Find the function that writes a file of this name.

    Args:
        path: the file to be written.
        complete: only formats that hold several structures and all of their labels.

    Returns:
        A function of the path and a data set.

    Raises:
        FileFormatError: a suffix that is not supported for writing.
    """
    suffix = path.suffix.lower()
    writable = [f for f in file_formats() if f.write is not None and (f.written == _DATA_SETS or not complete)]
    write = next((f.write for f in writable if suffix in f.suffixes), None)
    if write is None:
        names = " or ".join(f.suffixes[0] for f in writable if f.written == _DATA_SETS)
        limited = "".join(f" ({f.written} as {f.suffixes[0]} too)" for f in writable if f.written != _DATA_SETS)
        raise FileFormatError(f"{path}: data sets are written as {names}{limited}, not as {suffix or 'a bare name'}")
    return write


# --- readers with their options ---------------------------------------------------------------------------------------


def _read_hdf5(path: Path, options: ReadOptions) -> Dataset:
    return read_hdf5(path, energy_unit=options.energy_unit, length_unit=options.length_unit)


def _read_extxyz(path: Path, options: ReadOptions) -> Dataset:
    return read_extxyz(
        path,
        energy_unit=options.energy_unit,
        length_unit=options.length_unit,
        forces_unit=options.forces_unit,
        curvature_unit=options.curvature_unit,
        stress_unit=options.stress_unit,
        rename=options.rename,
    )


def _read_npz(path: Path, options: ReadOptions) -> Dataset:
    limit = options.subset.limit if options.subset.match is None and options.subset.sample is None else None
    dataset = read_npz(path, energy_unit=options.energy_unit, length_unit=options.length_unit, limit=limit)
    return replace(dataset, labels=options.file_units().rescale(dataset.labels))


def _read_grouped(path: Path, options: ReadOptions) -> Dataset:
    if options.stated_units() and options.energy_unit is None:
        raise UnitError(f"{path}: with other units give that of the energy too: `--energy-unit hartree`")
    units = options.file_units() if options.stated_units() else None
    return read_grouped(path, units=units, rename=options.rename, subset=options.subset)


def _read_qm(path: Path, options: ReadOptions) -> Dataset:
    if path.is_dir():
        return read_qm_folder(path, subset=options.subset)
    return options.subset.apply(read_qm_output(path))


# --- the table --------------------------------------------------------------------------------------------------------

_REGISTERED: Final[list[FileFormat]] = []
# The most specific come first: a format that is recognized by its content before the others with this suffix.
_FORMATS: Final = (
    FileFormat(
        name=FORMAT,
        suffixes=(".h5", ".hdf5"),
        recognize=is_hesse_hdf5,
        read=_read_hdf5,
        write=write_hdf5,
        unit_options=("energy", "length"),
        no_unit_options="this format has units of energy and length alone",
        units="stated in the file; others are converted",
    ),
    FileFormat(
        name="extended XYZ",
        suffixes=(".extxyz", ".xyz"),
        read=_read_extxyz,
        write=write_extxyz,
        unit_options=_ALL_UNIT_OPTIONS,
        units="stated in the file, else eV, Å (options for files that differ)",
        renames=True,
    ),
    FileFormat(
        name="NumPy archives",
        suffixes=(".npz",),
        read=_read_npz,
        unit_options=_UNIT_OPTIONS,
        units="never stated: `--energy-unit` and `--length-unit` are required",
    ),
    FileFormat(
        name="DeePMD systems",
        files="folders with type.raw and set.*",
        recognize=lambda path: path.is_dir() and bool(find_deepmd_systems(path)),
        folder="DeePMD systems (type.raw, set.*)",
        read=lambda path, options: read_deepmd(path, units=options.file_units(), subset=options.subset),
        unit_options=_UNIT_OPTIONS,
        units="eV, Å (options for files that differ)",
        reads_subset=True,
    ),
    FileFormat(
        name="phonopy",
        files="phonopy*.yaml, FORCE_CONSTANTS, FORCE_SETS, force_constants.hdf5, or their folder",
        recognize=is_phonopy,
        folder="files of phonopy",
        read=lambda path, options: read_phonopy(path),
        units="of the calculator that phonopy names",
    ),
    FileFormat(
        name="outputs of quantum-chemistry programs",
        suffixes=tuple(sorted(QM_SUFFIXES)),
        files=f"{', '.join(sorted(QM_SUFFIXES))}, or a folder of them",
        recognize=is_qm_output,
        folder=f"outputs ({', '.join(sorted(QM_SUFFIXES))})",
        read=_read_qm,
        units="known for each program",
        no_unit_options="outputs of programs are in known units",
        reads_subset=True,
    ),
    FileFormat(
        name="grouped HDF5",
        files=".h5 of OpenREACT, ANI, Transition1x, THEMol",
        recognize=is_grouped,
        read=_read_grouped,
        unit_options=_UNIT_OPTIONS,
        units="Hartree, Å by convention, Transition1x eV, Å, THEMol kcal/mol, Å; options take precedence",
        renames=True,
        reads_subset=True,
    ),
    FileFormat(
        name="VASP",
        files="OUTCAR, vasprun.xml",
        recognize=is_vasp_output,
        read=lambda path, options: read_vasp_output(path),
        units="eV, Å",
    ),
    FileFormat(
        name="ASE's trajectories",
        suffixes=(".traj",),
        read=lambda path, options: read_trajectory(path),
        units="eV, Å",
    ),
    FileFormat(
        name="ASE's data bases",
        suffixes=(".db",),
        read=lambda path, options: read_ase_database(path),
        units="eV, Å",
    ),
    FileFormat(
        name="ASE's VibrationsData",
        suffixes=(".json",),
        read=lambda path, options: read_vibrations(path),
        write=write_vibrations,
        written="a single Hessian",
        units="eV, Å",
    ),
    FileFormat(
        name="geometries without labels",
        files=f"POSCAR, {', '.join(GEOMETRY_SUFFIXES)}",
        recognize=is_geometry,
        read=lambda path, options: read_geometries(path),
        units="Å",
        no_unit_options="positions in such files are in Å",
    ),
)
