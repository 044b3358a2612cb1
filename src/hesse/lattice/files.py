"""Phonons from files of phonopy and dynamical matrices of Quantum ESPRESSO, and to files of phonopy."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from hesse.datasets import as_structure
from hesse.datasets.formats.phonopy_files import (
    FORCE_CONSTANTS_FILES,
    YAML_NAME,
    find_yaml,
    load_record,
    plain_yaml,
    read_force_constants,
)
from hesse.datasets.io import as_path
from hesse.errors import FileFormatError, LabelShapeError, MissingLabelError, RequestError, check_choice
from hesse.lattice.born import born_charges
from hesse.lattice.espresso_files import is_matrix_file, matrix_files, read_matrices
from hesse.lattice.espresso_phonons import read_espresso_phonons, wave_vector_grid
from hesse.lattice.force_constants import finish_force_constants
from hesse.lattice.phonons_result import Phonons
from hesse.lattice.supercells import as_supercell_matrix, import_phonopy, make_record, phonopy_errors, structure_of
from hesse.runtime.filesystem import atomic_write, check_input_file
from hesse.structures import Structure

__all__ = ["holds_phonons", "read_cell", "read_phonons", "save_phonons"]

_UNIT_CELLS = ("POSCAR-unitcell", "POSCAR", "SPOSCAR")
_FORCE_SETS = "FORCE_SETS"


def holds_phonons(path: str | Path) -> bool:
    """Whether a path is a file or a folder of phonons, as opposed to a crystal structure.

    Args:
        path: file or folder.

    Returns:
        True for a folder, for `phonopy*.yaml`, FORCE_SETS, FORCE_CONSTANTS and force_constants.hdf5, and for dynamical
        matrices of Quantum ESPRESSO.
    """
    path = Path(path)
    names = (_FORCE_SETS, *FORCE_CONSTANTS_FILES)
    return path.is_dir() or bool(YAML_NAME.fullmatch(path.name)) or path.name in names or is_matrix_file(path)


def _has_matrices(path: Path) -> bool:
    """Whether a path is a file of dynamical matrices, or a folder that has them and no files of phonopy."""
    if not path.is_dir():
        return is_matrix_file(path)
    return find_yaml(path) is None and not any((path / n).is_file() for n in _UNIT_CELLS) and bool(matrix_files(path))


def read_phonons(
    path: str | Path,
    *,
    supercell: ArrayLike | None = None,
    primitive: ArrayLike | str = "auto",
    born: str | Path | bool = True,
    symmetrize: bool = True,
) -> Phonons:
    """Read phonons from a folder of phonopy, or from one of its files together with the others in its folder; or from
    the dynamical matrices that ph.x of Quantum ESPRESSO writes (`NAME1`, `NAME2`, ...), also those of CellConstructor.

    Cells come from `phonopy_params.yaml`, `phonopy_disp.yaml` or `phonopy.yaml` (also packed), or from POSCAR-unitcell
    with `supercell`. Force constants are those in the YAML file, in `force_constants.hdf5` or `FORCE_CONSTANTS`, or are
    computed by phonopy from the forces of displaced supercells, in the YAML file or in `FORCE_SETS`.

    Args:
        path: the folder or the file.
        supercell: rows are the lattice vectors of the supercell in those of the cell, where no YAML file says it.
        primitive: the primitive cell where no YAML file says it, see `make_record`.
        born: a BORN file, True for the one in the folder or the YAML file, False for none.
        symmetrize: impose sum rule and symmetries on force constants that are computed from forces; those that were
            stored stay as they are (see `Phonons.symmetrized`).

    Returns:
        The phonons. They have no energy, forces and stress, which such files do not hold.

    Raises:
        FileFormatError: no such files, damaged, or of different crystals.
        MissingLabelError: neither force constants nor forces.
        LabelShapeError: force constants of another supercell.
        RequestError: a supercell that is missing, or is given although the files tell it.
        MissingExtraError: phonopy is not installed.
    """
    path, start = as_path(path), time.monotonic()
    phonopy = import_phonopy("reading phonons")
    if _has_matrices(path):
        if supercell is not None:
            raise RequestError(f"{path}: the wave vectors of dynamical matrices tell the supercell: leave it out")
        return read_espresso_phonons(path, born=born)
    folder = path if path.is_dir() else path.parent
    if not path.is_dir():
        check_input_file(path)
    is_yaml = path.is_file() and YAML_NAME.fullmatch(path.name)
    yaml_file = path if is_yaml else find_yaml(folder)
    record = _record(phonopy, yaml_file, folder, supercell, primitive, named=path)
    # A file that is named is the one to take; a YAML file is complete if it has forces or force constants itself.
    named = None if is_yaml or path.is_dir() else path
    origin = _set_force_constants(record, folder, yaml_file, named, phonopy)
    if isinstance(born, str | Path):
        record.nac_params = born_charges(record, born)
    elif not born:
        record.nac_params = None
    elif record.nac_params is None and (folder / "BORN").is_file():
        record.nac_params = born_charges(record, folder / "BORN")
    stored = not origin.startswith("forces")
    report = finish_force_constants(
        record, origin, _n_displacements(record), start=start, symmetrize=symmetrize and not stored
    )
    name = folder.resolve().name if path.is_dir() or not is_yaml else path.name.split(".")[0]
    return Phonons(_unit_cell(record, name), "", report, record)


def read_cell(path: str | Path) -> tuple[Structure, Any]:
    """Read the cell of files of phonons, and the supercell that they use.

    Args:
        path: a folder or a YAML file of phonopy, or dynamical matrices of Quantum ESPRESSO.

    Returns:
        The unit cell, and the matrix of the supercell whose rows are its lattice vectors.

    Raises:
        FileFormatError: no YAML file, or a damaged one.
        MissingExtraError: phonopy is not installed.
    """
    path = as_path(path)
    phonopy = import_phonopy("reading cells of phonopy")
    if _has_matrices(path):
        data = read_matrices(path)
        return data.structure, np.diag(wave_vector_grid(data, path)[0])
    yaml_file = path if path.is_file() else find_yaml(path)
    if yaml_file is None:
        raise FileFormatError(f"{path}: no YAML file of phonopy, which would say what the cell is")
    record = _record(phonopy, yaml_file, yaml_file.parent, None, "auto", named=path)
    name = path.name if path.is_dir() else path.name.split(".")[0]
    return _unit_cell(record, name), np.array(record.supercell_matrix).T


def _unit_cell(record: Any, name: str) -> Structure:
    """The cell of phonopy's record, whose unit of length is that of the program that made the files."""
    from phonopy.physical_units import get_calculator_physical_units

    return structure_of(record.unitcell, name, float(get_calculator_physical_units(record.calculator).distance_to_A))


def _record(
    phonopy: Any,
    yaml_file: Path | None,
    folder: Path,
    supercell: ArrayLike | None,
    primitive: ArrayLike | str,
    *,
    named: Path,
) -> Any:
    if yaml_file is not None:
        text = plain_yaml(yaml_file)
        with phonopy_errors(
            f"{yaml_file}: phonopy {phonopy.__version__} cannot read it: damaged or incomplete", FileFormatError
        ):
            record = load_record(phonopy, text, None, born=True)
        if any(mass is None for mass in np.ravel(record.unitcell.masses)):  # elements that phonopy has no mass of
            raise FileFormatError(f"{yaml_file}: atoms without masses: write `mass` for each of them into the file")
        return record
    cell = next((folder / name for name in _UNIT_CELLS if (folder / name).is_file()), None)
    if cell is None and not holds_phonons(named):
        raise FileFormatError(
            f"{named}: this is no file of phonons: expected a folder or a file of phonopy (phonopy_params.yaml, "
            "FORCE_CONSTANTS, ...), or dynamical matrices of ph.x"
        )
    if cell is None:
        raise FileFormatError(
            f"{folder}: no phonopy_params.yaml, phonopy_disp.yaml or phonopy.yaml, and no POSCAR-unitcell either: the "
            "cells are unknown"
        )
    if supercell is None:
        raise RequestError(
            f"{folder}: no YAML file of phonopy, so that the supercell of {cell.name} is unknown: give it, such as "
            "--supercell 2 2 2"
        )
    from phonopy.structure.atoms import PhonopyAtoms

    structure = as_structure(cell)
    with phonopy_errors(f"{cell}: phonopy has no masses of its elements", FileFormatError):
        masses = np.array(
            PhonopyAtoms(numbers=structure.numbers, cell=structure.cell, positions=structure.positions).masses
        )
    return make_record(
        structure, as_supercell_matrix(supercell, structure), primitive=primitive, symmetry=True, masses=masses
    )


def _set_force_constants(record: Any, folder: Path, yaml_file: Path | None, named: Path | None, phonopy: Any) -> str:
    """Set compact force constants. Returns where they came from."""
    n, m = len(record.supercell), len(record.primitive)
    source = f"{yaml_file}" if yaml_file is not None else f"{folder}"
    wants_sets = named is not None and named.name == _FORCE_SETS
    constants = None if named is not None else record.force_constants
    origin = "force constants in the YAML file"
    if constants is None and not wants_sets and not (named is None and _has_forces(record)):
        names = (named.name,) if named is not None else FORCE_CONSTANTS_FILES
        file = next((folder / name for name in names if (folder / name).is_file()), None)
        if file is not None:
            constants, origin = read_force_constants(file), f"force constants of {file.name}"
    if constants is not None:
        if constants.shape[1] != n or constants.shape[0] not in (n, m):
            raise LabelShapeError(
                f"{source}: {origin} are between {constants.shape[0]} and {constants.shape[1]} atoms, but the "
                f"supercell has {n} and its primitive cell {m}: they are of another supercell"
            )
        constants = np.ascontiguousarray(constants, dtype=np.float64)
        record.force_constants = constants if len(constants) == m else constants[record.primitive.p2s_map]
        return origin
    origin = "forces in the YAML file"
    if wants_sets or not _has_forces(record):
        file = folder / _FORCE_SETS
        if not file.is_file():
            raise MissingLabelError(
                f"{source}: neither force constants nor forces (FORCE_CONSTANTS, force_constants.hdf5, FORCE_SETS, or "
                "inside the YAML file). With an engine, hesse phonons computes them: --engine"
            )
        _read_force_sets(record, file)
        origin = f"forces of {file.name}"
    with phonopy_errors(f"{source}: phonopy cannot compute force constants from these displacements", FileFormatError):
        solver = "symfc" if "displacements" in record.dataset else None
        record.produce_force_constants(calculate_full_force_constants=False, show_drift=False, fc_calculator=solver)
    return origin


def _has_forces(record: Any) -> bool:
    data = record.dataset
    if not data:
        return False
    return "forces" in data or bool(data.get("first_atoms") and "forces" in data["first_atoms"][0])


def _read_force_sets(record: Any, file: Path) -> None:
    from phonopy.file_IO import parse_FORCE_SETS

    check_input_file(file)
    n = len(record.supercell)
    what = f"{file}: not forces of displaced supercells of {n} atoms: damaged, or of another supercell"
    with phonopy_errors(what, FileFormatError):
        dataset: Any = parse_FORCE_SETS(natom=n, filename=str(file))
        if "first_atoms" in dataset and dataset.get("natom", n) != n:
            raise LabelShapeError(f"{file}: forces on {dataset['natom']} atoms, but the supercell has {n}")
        for entry in dataset.get("first_atoms", ()):
            if np.shape(entry["forces"]) != (n, 3):
                raise LabelShapeError(f"{file}: forces on {len(entry['forces'])} atoms, but the supercell has {n}")
        record.dataset = dataset


def _n_displacements(record: Any) -> int:
    data = record.dataset or {}
    return len(data.get("first_atoms", data.get("displacements", ())))


def save_phonons(record: Any, path: str | Path, kind: Literal["params", "text", "hdf5"]) -> None:
    """Write a file that phonopy reads, see `Phonons.save`.

    Args:
        record: `phonopy.Phonopy`.
        path: the file.
        kind: "params", "text" or "hdf5".

    Raises:
        UnknownOptionError: another kind.
        WriteError: the file cannot be written.
    """
    check_choice(kind, ("params", "text", "hdf5"), "kind of file")
    from phonopy import file_IO

    with atomic_write(path) as aside:
        if kind == "params":
            record.save(aside, settings={"force_constants": True, "force_sets": True, "displacements": True})
        elif kind == "text":
            file_IO.write_FORCE_CONSTANTS(record.force_constants, filename=aside, p2s_map=record.primitive.p2s_map)
        else:
            file_IO.write_force_constants_to_hdf5(
                record.force_constants, filename=str(aside), p2s_map=record.primitive.p2s_map
            )
