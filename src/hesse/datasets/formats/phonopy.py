"""phonopy: force constants as Hessians of the supercell, and displaced supercells with their forces.

Two combinations of files are read: `phonopy*.yaml` (also `.xz`, `.gz`, `.bz2`) with `FORCE_CONSTANTS`,
`force_constants.hdf5` and `FORCE_SETS` in the same folder, or `FORCE_CONSTANTS` with its `SPOSCAR`. Force constants are
d²E/dx², not mass-weighted, `[atom, atom, 3, 3]`, in the units of the calculator that the YAML file names (eV and Å by
default).

phonopy's own YAML loader builds any Python object that a tag names, which can run programs. Files are therefore parsed
with PyYAML's safe loader first, and phonopy receives only what that returned: mappings, lists, texts and numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase import Atoms
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets.dataset import Dataset
from hesse.datasets.formats.phonopy_files import (
    FORCE_CONSTANTS_FILES,
    YAML_NAME,
    find_yaml,
    full_force_constants,
    load_record,
    plain_yaml,
    read_force_constants,
)
from hesse.datasets.formats.safety import hdf5_passes
from hesse.errors import FileFormatError, HesseError, InconsistentLabelsError, LabelShapeError, first_line
from hesse.runtime.filesystem import check_input_file
from hesse.runtime.imports import import_optional
from hesse.structures import Properties, Structure, from_ase

__all__ = ["from_phonopy", "is_phonopy", "read_phonopy", "to_phonopy"]

_MIN_CORRELATION: Final = 0.5
"""Smallest accepted correlation between forces and those predicted from the force constants; consistent files give more
than 0.99."""


def from_phonopy(constants: Float[Array, "n n 3 3"]) -> Float[Array, "n 3 n 3"]:
    """Convert force constants from phonopy's layout to that of a Hessian. Units are not changed.

    Args:
        constants: force constants `[n, n, 3, 3]`.

    Returns:
        The Hessian `[n, 3, n, 3]`.

    Raises:
        LabelShapeError: another shape.
    """
    array = _as_array(constants)
    if array.ndim != 4 or array.shape[0] != array.shape[1] or array.shape[2:] != (3, 3):
        raise LabelShapeError(
            f"from_phonopy expects full force constants [atoms, atoms, 3, 3], got shape {array.shape} (compact ones: "
            "phonopy.harmonic.force_constants.compact_fc_to_full_fc, or read_dataset on phonopy's files)"
        )
    return np.ascontiguousarray(array.transpose(0, 2, 1, 3))


def to_phonopy(hessian: Float[Array, "n 3 n 3"]) -> Float[Array, "n n 3 3"]:
    """Convert a Hessian to phonopy's layout of force constants. Units are not changed.

    Args:
        hessian: the Hessian `[n, 3, n, 3]`.

    Returns:
        Force constants `[n, n, 3, 3]`.

    Raises:
        LabelShapeError: another shape.
    """
    array = _as_array(hessian)
    if array.ndim != 4 or array.shape[0] != array.shape[2] or array.shape[1::2] != (3, 3):
        n, rest = divmod(array.shape[0] if array.ndim == 2 and array.shape[0] == array.shape[1] else 0, 3)
        advice = f": use .reshape({n}, 3, {n}, 3)" if n and not rest else ""
        raise LabelShapeError(f"to_phonopy expects a Hessian [atoms, 3, atoms, 3], got shape {array.shape}{advice}")
    return np.ascontiguousarray(array.transpose(0, 2, 1, 3))


def _as_array(values: object) -> Array:
    """The values as an array of numbers. Raises LabelShapeError otherwise."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise LabelShapeError(
            f"expected an array of numbers, got {type(values).__name__}: {first_line(error)}"
        ) from None


def is_phonopy(path: Path) -> bool:
    """Recognize phonopy's files by their names, and HDF5 files by force constants in them.

    Args:
        path: file or folder.

    Returns:
        True for a file of phonopy, or a folder that holds one.
    """
    if path.is_dir():
        return any(
            YAML_NAME.fullmatch(p.name) or p.name in (*FORCE_CONSTANTS_FILES, "FORCE_SETS") for p in path.iterdir()
        )
    if YAML_NAME.fullmatch(path.name) or path.name in (*FORCE_CONSTANTS_FILES, "FORCE_SETS"):
        return True
    return path.suffix.lower() in (".h5", ".hdf5") and hdf5_passes(path, lambda file: "force_constants" in file)


@dataclass(frozen=True, eq=False)
class _PhonopyData:
    """Content of the files, in eV and Å."""

    supercell: Structure
    force_constants: Float[Array, "n n 3 3"] | None
    displaced: list[tuple[Float[Array, "n 3"], Float[Array, "n 3"], float | None]]
    """Displacements of all atoms, forces, and energy of each displaced supercell."""
    origin: str
    """Source of the force constants, for the metadata."""


def read_phonopy(path: str | Path) -> Dataset:
    """Read a folder of phonopy, or one of its files together with the others in its folder.

    Args:
        path: the folder or the file.

    Returns:
        First the supercell with its Hessian (`NAME/supercell`), if there are force constants or displacements of one
        atom at a time from which phonopy computes them; then the displaced supercells with their forces
        (`NAME/displaced-0001`, …). The undisplaced supercell has no forces, because the files do not hold them.

    Raises:
        FileFormatError: no such files, damaged, or a YAML file with tags.
        MissingExtraError: phonopy is needed and not installed.
        InconsistentLabelsError: force constants and forces contradict each other: wrong sign, or different cells.
        GeometryError, LabelShapeError: cells and arrays that do not fit each other.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if not path.is_dir():
        check_input_file(path)
    name = folder.resolve().name if path.is_dir() or not YAML_NAME.fullmatch(path.name) else path.name.split(".")[0]
    yaml_file = path if YAML_NAME.fullmatch(path.name) and path.is_file() else find_yaml(folder)
    try:
        content = _read_with_phonopy(yaml_file, folder, name) if yaml_file else _read_with_poscar(folder, name)
        _check_agreement(content)
        pairs = _labeled_structures(content, name)
    except HesseError as error:
        raise type(error)(str(error) if str(folder) in str(error) else f"{path}: {error}") from None
    if not pairs:
        raise FileFormatError(
            f"{path}: neither force constants nor forces (FORCE_CONSTANTS, force_constants.hdf5, FORCE_SETS, or "
            "inside the YAML file)"
        )
    metadata = {"source_units": "of phonopy's calculator, read as eV, angstrom"}
    if content.force_constants is not None:
        metadata["hessian_from"] = content.origin
    return Dataset(
        tuple(s for s, _ in pairs), Properties.concatenate([label for _, label in pairs]), metadata, source=str(path)
    )


def _labeled_structures(content: _PhonopyData, name: str) -> list[tuple[Structure, Properties]]:
    supercell, n = content.supercell, len(content.supercell)
    pairs = []
    if content.force_constants is not None:
        labels = Properties.single(n, hessian=from_phonopy(content.force_constants), structure_id=supercell.id)
        pairs.append((supercell, labels))
    for i, (displacement, forces, energy) in enumerate(content.displaced, start=1):
        id = f"{name}/displaced-{i:04d}"
        structure = supercell.with_positions(supercell.positions + displacement, id=id, tag="displaced")
        pairs.append((structure, Properties.single(n, forces=forces, energy=energy, structure_id=id)))
    return pairs


def _check_agreement(content: _PhonopyData) -> None:
    """Compare the forces with minus the force constants times the displacements.

    This shows wrong signs in crystals, which have no rotational sum rule.
    """
    if content.force_constants is None or not content.displaced:
        return
    hessian = from_phonopy(content.force_constants)
    expected = np.array([-np.einsum("iajb,jb->ia", hessian, u) for u, _, _ in content.displaced]).ravel()
    forces = np.array([f - f.mean(0) for _, f, _ in content.displaced]).ravel()
    size = np.linalg.norm(expected) * np.linalg.norm(forces)
    correlation = float(expected @ forces / size) if size > 0 else 1.0
    if correlation < _MIN_CORRELATION:
        guess = (
            "one of the two has the wrong sign" if correlation < -_MIN_CORRELATION else "they are of different cells"
        )
        raise InconsistentLabelsError(
            f"the force constants contradict the forces of the displaced supercells (correlation {correlation:.2f}): "
            f"{guess}. Force constants must be plus d²E/dx², forces minus dE/dx."
        )


# --- force constants without a YAML file ------------------------------------------------------------------------------


def _read_with_poscar(folder: Path, name: str) -> _PhonopyData:
    file = next((folder / n for n in FORCE_CONSTANTS_FILES if (folder / n).is_file()), None)
    if file is None:
        raise FileFormatError(
            f"{folder}: no phonopy_disp.yaml (or phonopy.yaml), so that the cell of FORCE_SETS is unknown"
        )
    constants = read_force_constants(file)
    cell = next((folder / n for n in ("SPOSCAR", "POSCAR") if (folder / n).is_file()), None)
    if cell is None:
        raise FileFormatError(
            f"{file}: the supercell is unknown. Put its SPOSCAR or the phonopy.yaml of the calculation into the same "
            "folder."
        )
    from ase.io import read as read_with_ase  # imports half of ASE

    try:
        atoms = read_with_ase(cell, format="vasp")
    except Exception as error:  # the reader raises errors of any type
        raise FileFormatError(f"{cell}: cannot be read as a VASP cell ({type(error).__name__}: {error})") from error
    if not isinstance(atoms, Atoms):
        raise FileFormatError(f"{cell}: expected one cell")
    supercell = _tag_supercell(from_ase(atoms, id=f"{name}/supercell"), name)
    n = len(supercell)
    if constants.shape[:2] != (n, n):
        raise LabelShapeError(
            f"{file}: force constants between {constants.shape[0]} and {constants.shape[1]} atoms, but {cell.name} has "
            f"{n}. Expected the supercell and all its atoms (`phonopy --full-fc`); compact ones need the phonopy.yaml."
        )
    return _PhonopyData(supercell, constants, [], f"{file.name} and {cell.name}")


# --- through phonopy -----------------------------------------------------------------------------------------------


def _read_with_phonopy(file: Path, folder: Path, name: str) -> _PhonopyData:
    phonopy = import_optional("phonopy", extra="formats", purpose=f"reading {file.name}")
    text = plain_yaml(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _content_from_phonopy(phonopy, text, folder, name)
    except HesseError:
        raise
    except (Exception, SystemExit) as error:  # phonopy raises errors of any type and sometimes exits
        raise FileFormatError(
            f"{file}: phonopy {phonopy.__version__} cannot read it or other files in its folder: damaged, incomplete, "
            f"or of different cells ({type(error).__name__}: {error})"
        ) from error


def _content_from_phonopy(phonopy: Any, text: str, folder: Path, name: str) -> _PhonopyData:
    record = load_record(phonopy, text, None)
    has_forces = record.dataset is not None and "forces" in str(_dataset_keys(record.dataset))
    force_sets = folder / "FORCE_SETS"
    if not has_forces and record.force_constants is None and force_sets.is_file():
        record = load_record(phonopy, text, force_sets.resolve())
        has_forces = True
    units = phonopy.physical_units.get_calculator_physical_units(record.calculator)
    length, force, energy = units.distance_to_A, units.force_to_eVperA, units.energy_to_eV
    cell = record.supercell
    supercell = Structure(
        cell.numbers, cell.positions * length, id=f"{name}/supercell", cell=cell.cell * length, pbc=(True, True, True)
    )
    displaced = _displaced_supercells(record.dataset, len(supercell)) if has_forces else []
    constants, origin = record.force_constants, "the yaml"
    constants_file = next((folder / n for n in FORCE_CONSTANTS_FILES if (folder / n).is_file()), None)
    if constants is None and constants_file is not None:
        constants, origin = read_force_constants(constants_file), constants_file.name
    elif constants is None and displaced and "first_atoms" in record.dataset:
        record.produce_force_constants(calculate_full_force_constants=True)
        constants, origin = record.force_constants, f"differences of forces, by phonopy {phonopy.__version__}"
    if constants is not None:
        constants = full_force_constants(constants, record, len(supercell)) * (force / length)
    return _PhonopyData(
        _tag_supercell(supercell, name),
        constants,
        [(u * length, f * force, None if e is None else e * energy) for u, f, e in displaced],
        origin,
    )


def _dataset_keys(dataset: Mapping[str, Any]) -> list[str]:
    first = dataset["first_atoms"][0] if dataset.get("first_atoms") else {}
    return [*dataset, *first]


def _displaced_supercells(dataset: Mapping[str, Any], n: int) -> list[tuple[Array, Array, float | None]]:
    supercells: list[tuple[Array, Array, float | None]] = []
    if "first_atoms" in dataset:  # one atom at a time
        for entry in dataset["first_atoms"]:
            u = np.zeros((n, 3))
            u[entry["number"]] = entry["displacement"]
            supercells.append(
                (u, np.asarray(entry["forces"], dtype=float).reshape(n, 3), entry.get("supercell_energy"))
            )
        return supercells
    energies = dataset.get("supercell_energies")
    pairs = zip(dataset["displacements"], dataset["forces"], strict=True)
    for i, (u, forces) in enumerate(pairs):
        energy = None if energies is None else float(energies[i])
        supercells.append((np.asarray(u).reshape(n, 3), np.asarray(forces, dtype=float).reshape(n, 3), energy))
    return supercells


def _tag_supercell(structure: Structure, group: str) -> Structure:
    """The structure with the tag and the group of a supercell."""
    return replace(structure, tag="supercell", group=group)
