"""phonopy: force constants as Hessians of the supercell, and displaced supercells with their forces.

Read are `phonopy*.yaml` (also `.xz`, `.gz`, `.bz2`), with `FORCE_CONSTANTS`, `force_constants.hdf5` and `FORCE_SETS` in
the same folder; or `FORCE_CONSTANTS` with the `SPOSCAR` it belongs to. Force constants are plus d²E/dx², not
mass-weighted, `[atom, atom, 3, 3]`; units are those of the calculator that the yaml names, eV and Å by default.

phonopy's own YAML loader builds any Python object that a tag names, which can run programs. Files are therefore parsed
with PyYAML's safe loader first, and phonopy receives only what that returned: mappings, lists, texts and numbers.
"""

from __future__ import annotations

import bz2
import datetime
import gzip
import io
import lzma
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import h5py
import numpy as np
import yaml
from ase import Atoms
from ase.io import read as read_with_ase
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets.dataset import Dataset
from hesse.datasets.hdf5.plain import DAMAGE, has_possible_size, is_plain
from hesse.errors import FileFormatError, HesseError, IdentityError, LabelShapeError
from hesse.files import require_file
from hesse.optional import require
from hesse.structures import Labels, Structure, from_ase

__all__ = ["from_phonopy", "is_phonopy", "read_phonopy", "to_phonopy"]

_YAML: Final = re.compile(r"phonopy.*\.ya?ml(\.xz|\.gz|\.bz2)?$", re.IGNORECASE)
_CONSTANTS: Final = ("force_constants.hdf5", "FORCE_CONSTANTS")
_LARGEST: Final = 1 << 30
"""Bytes of text after decompression; a small archive can otherwise fill the memory."""
_UNPACK: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
)
_AGREEMENT: Final = 0.5
"""Correlation between forces and what the force constants say of them, below which they do not belong together;
measured ones are above 0.99."""

Constants = Float[Array, "some atoms 3 3"]


def from_phonopy(constants: Float[Array, "n n 3 3"]) -> Float[Array, "n 3 n 3"]:
    """phonopy's layout of force constants as a Hessian; units are left alone."""
    return np.ascontiguousarray(np.asarray(constants).transpose(0, 2, 1, 3))


def to_phonopy(hessian: Float[Array, "n 3 n 3"]) -> Float[Array, "n n 3 3"]:
    """A Hessian in phonopy's layout of force constants; units are left alone."""
    return np.ascontiguousarray(np.asarray(hessian).transpose(0, 2, 1, 3))


def is_phonopy(path: Path) -> bool:
    """Whether a file is of phonopy by its name, or a folder holds such files."""
    if path.is_dir():
        return any(_YAML.fullmatch(p.name) or p.name in (*_CONSTANTS, "FORCE_SETS") for p in path.iterdir())
    return bool(_YAML.fullmatch(path.name)) or path.name in (*_CONSTANTS, "FORCE_SETS")


@dataclass(frozen=True, eq=False)
class _Content:
    """What was found, in eV and Å."""

    supercell: Structure
    constants: Float[Array, "n n 3 3"] | None
    displaced: list[tuple[Float[Array, "n 3"], Float[Array, "n 3"], float | None]]
    """Displacement of all atoms, forces, energy."""
    origin: str
    """Where the force constants came from."""


def read_phonopy(path: str | Path) -> Dataset:
    """Read a folder of phonopy, or one of its files with those beside it.

    The first structure is the supercell with its Hessian (`NAME/supercell`), where there are force constants or where
    they follow from one displacement after the other; then come the displaced supercells with their forces
    (`NAME/displaced-0001`, …). Forces of the undisplaced supercell are not known, and absent.

    Raises:
        FileFormatError: no such files, damaged, or a yaml with tags.
        MissingExtraError: phonopy is needed and not installed.
        IdentityError: force constants and forces contradict each other: a wrong sign, or of different cells.
        GeometryError, LabelShapeError: cells and arrays that do not fit each other.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if not path.is_dir():
        require_file(path)
    name = folder.resolve().name if path.is_dir() or not _YAML.fullmatch(path.name) else path.name.split(".")[0]
    yaml = path if _YAML.fullmatch(path.name) and path.is_file() else _yaml_in(folder)
    try:
        content = _with_phonopy(yaml, folder, name) if yaml else _with_supercell(folder, name)
        _require_agreement(content)
        pairs = _pairs(content, name)
    except HesseError as error:
        raise type(error)(str(error) if str(folder) in str(error) else f"{path}: {error}") from None
    if not pairs:
        raise FileFormatError(
            f"{path}: neither force constants nor forces there (FORCE_CONSTANTS, force_constants.hdf5, FORCE_SETS, or "
            "inside the yaml)"
        )
    attributes = {"source_units": "of phonopy's calculator, read as eV, angstrom"}
    if content.constants is not None:
        attributes["hessian_from"] = content.origin
    return Dataset(
        tuple(s for s, _ in pairs), Labels.concatenate([label for _, label in pairs]), attributes, source=str(path)
    )


def _pairs(content: _Content, name: str) -> list[tuple[Structure, Labels]]:
    supercell, n = content.supercell, len(content.supercell)
    pairs = []
    if content.constants is not None:
        labels = Labels.of(n, hessian=from_phonopy(content.constants), structure_id=supercell.id)
        pairs.append((supercell, labels))
    for i, (displacement, forces, energy) in enumerate(content.displaced, start=1):
        id = f"{name}/displaced-{i:04d}"
        structure = supercell.moved(supercell.positions + displacement, id=id, tag="displaced")
        pairs.append((structure, Labels.of(n, forces=forces, energy=energy, structure_id=id)))
    return pairs


def _require_agreement(content: _Content) -> None:
    """Forces are minus the force constants times the displacement: the check of signs that a crystal allows."""
    if content.constants is None or not content.displaced:
        return
    hessian = from_phonopy(content.constants)
    expected = np.array([-np.einsum("iajb,jb->ia", hessian, u) for u, _, _ in content.displaced]).ravel()
    forces = np.array([f - f.mean(0) for _, f, _ in content.displaced]).ravel()
    size = np.linalg.norm(expected) * np.linalg.norm(forces)
    correlation = float(expected @ forces / size) if size > 0 else 1.0
    if correlation < _AGREEMENT:
        guess = "one of the two has the wrong sign" if correlation < -_AGREEMENT else "they are of different cells"
        raise IdentityError(
            f"the force constants contradict the forces of the displaced supercells (correlation {correlation:.2f}): "
            f"{guess}. Force constants must be plus d²E/dx², forces minus dE/dx."
        )


# --- force constants without a yaml --------------------------------------------------------------------------------


def _with_supercell(folder: Path, name: str) -> _Content:
    file = next((folder / n for n in _CONSTANTS if (folder / n).is_file()), None)
    if file is None:
        raise FileFormatError(
            f"{folder}: no phonopy_disp.yaml (or phonopy.yaml), so that the cell of FORCE_SETS is not known"
        )
    constants = _constants(file)
    cell = next((folder / n for n in ("SPOSCAR", "POSCAR") if (folder / n).is_file()), None)
    if cell is None:
        raise FileFormatError(
            f"{file}: the supercell is not known. Put its SPOSCAR beside it, or the phonopy.yaml of the calculation."
        )
    try:
        atoms = read_with_ase(cell, format="vasp")
    except Exception as error:  # the reader raises what it likes
        raise FileFormatError(f"{cell}: cannot be read as a VASP cell ({type(error).__name__}: {error})") from error
    if not isinstance(atoms, Atoms):
        raise FileFormatError(f"{cell}: expected one cell")
    supercell = _named(from_ase(atoms, id=f"{name}/supercell"), name)
    n = len(supercell)
    if constants.shape[:2] != (n, n):
        raise LabelShapeError(
            f"{file}: force constants between {constants.shape[0]} and {constants.shape[1]} atoms, but {cell.name} has "
            f"{n}. Expected the supercell and all its atoms (`phonopy --full-fc`); compact ones need the phonopy.yaml."
        )
    return _Content(supercell, constants, [], f"{file.name} and {cell.name}")


def _constants(file: Path) -> Constants:
    require_file(file)
    return _constants_of_hdf5(file) if file.suffix == ".hdf5" else _constants_of_text(file)


def _constants_of_text(file: Path) -> Constants:
    """`atoms atoms`, then for each pair its two numbers and nine values."""
    try:
        with open(file, encoding="ascii") as handle:
            sizes = [int(w) for w in handle.readline().split()]
            rows, columns = sizes if len(sizes) == 2 else (sizes[0], sizes[0])
            if not 0 < rows * columns * 11 <= file.stat().st_size:
                raise ValueError(f"{rows} x {columns} atoms announced, more than the file can hold")
            values = np.array(handle.read().split(), dtype=np.float64)
        table = values.reshape(rows, columns, 11)
        if not (table[..., 1] == np.arange(1, columns + 1)).all():
            raise ValueError("the pairs of atoms are not in order")
        return np.ascontiguousarray(table[..., 2:]).reshape(rows, columns, 3, 3)
    except (ValueError, IndexError, OSError, UnicodeDecodeError, MemoryError) as error:
        raise FileFormatError(f"{file}: truncated, damaged, or no FORCE_CONSTANTS of phonopy ({error})") from error


def _constants_of_hdf5(file: Path) -> Constants:
    try:
        with h5py.File(file, "r", locking="best-effort") as handle:
            data = handle.get("force_constants")
            if not isinstance(data, h5py.Dataset) or len(data.shape) != 4 or data.shape[2:] != (3, 3):
                raise FileFormatError(f"{file}: no array force_constants (atoms, atoms, 3, 3)")
            if not is_plain(data) or not has_possible_size(data, file.stat().st_size) or data.dtype.kind != "f":
                raise FileFormatError(f"{file}: force_constants is not stored plainly, or damaged")
            return np.asarray(data[()], dtype=np.float64)
    except DAMAGE as error:
        raise FileFormatError(f"{file}: cannot be read as HDF5; it is truncated or damaged ({error})") from error


# --- through phonopy -----------------------------------------------------------------------------------------------


def _yaml_in(folder: Path) -> Path | None:
    """The one that says most; with several of equal rank, none can be chosen for the user."""
    found = sorted(p for p in folder.iterdir() if _YAML.fullmatch(p.name))
    for wanted in ("phonopy_params.yaml", "phonopy_disp.yaml", "phonopy.yaml"):
        named = [p for p in found if p.name.startswith(wanted)]
        if named:
            return named[0]
    if len(found) > 1:
        raise FileFormatError(
            f"{folder}: several files of phonopy ({', '.join(p.name for p in found)}): name one of them"
        )
    return found[0] if found else None


def _yaml_text(file: Path) -> str:
    require_file(file)
    opener = _UNPACK.get(file.suffix.lower(), open)
    try:
        with opener(file, "rt", encoding="utf-8") as handle:
            text: str = handle.read(_LARGEST + 1)
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError, ValueError) as error:
        raise FileFormatError(f"{file}: truncated or damaged ({error})") from error
    if len(text) > _LARGEST:
        raise FileFormatError(f"{file}: more than {_LARGEST >> 20} MiB of text")
    return text


def _plain_yaml(file: Path) -> str:
    """The file's content as YAML text without tags, written anew from what the safe loader makes of it.

    Raises:
        FileFormatError: damaged, not YAML, or with values that are no mappings, lists, texts or numbers (tags such as
            `!!python/object/apply`).
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    try:
        content = yaml.load(_yaml_text(file), Loader=loader)
        _require_plain(content)
    except yaml.constructor.ConstructorError as error:
        raise FileFormatError(
            f"{file}: holds YAML tags or keys that are no plain data ({error.problem}); loading such a file can run "
            "programs, and phonopy writes none. Nothing was run. Remove the tags if you trust the rest."
        ) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise FileFormatError(f"{file}: cannot be read as YAML; it is truncated or damaged ({error})") from error
    return yaml.dump(content, Dumper=dumper, sort_keys=False)


def _require_plain(content: Any) -> None:
    """Raise ConstructorError unless `content` holds mappings, lists, texts, numbers, dates, booleans and None only."""
    pending, seen = [content], set()
    while pending:
        value = pending.pop()
        if isinstance(value, dict | list):
            if id(value) not in seen:  # an alias: several places hold one object
                seen.add(id(value))
                pending.extend([*value, *value.values()] if isinstance(value, dict) else value)
        elif not isinstance(value, str | int | float | datetime.date | None):
            raise yaml.constructor.ConstructorError(problem=f"a value of type {type(value).__name__}")


def _with_phonopy(file: Path, folder: Path, name: str) -> _Content:
    phonopy = require("phonopy", extra="formats", purpose=f"reading {file.name}")
    text = _plain_yaml(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _content_of(phonopy, text, folder, name)
    except HesseError:
        raise
    except (Exception, SystemExit) as error:  # phonopy raises what it likes, and leaves the program in places
        raise FileFormatError(
            f"{file}: phonopy {phonopy.__version__} cannot read it or the files beside it: damaged, incomplete, or of "
            f"different cells ({type(error).__name__}: {error})"
        ) from error


def _content_of(phonopy: Any, text: str, folder: Path, name: str) -> _Content:
    options = {"produce_fc": False, "is_nac": False, "symmetrize_fc": False, "is_compact_fc": False, "log_level": 0}
    record = phonopy.load(io.StringIO(text), force_constants_filename=None, **options)
    has_forces = record.dataset is not None and "forces" in str(_keys(record.dataset))
    sets = folder / "FORCE_SETS"
    if not has_forces and record.force_constants is None and sets.is_file():
        record = phonopy.load(io.StringIO(text), force_sets_filename=str(sets), **options)
        has_forces = True
    units = phonopy.physical_units.get_calculator_physical_units(record.calculator)
    length, force, energy = units.distance_to_A, units.force_to_eVperA, units.energy_to_eV
    cell = record.supercell
    supercell = Structure(
        cell.numbers, cell.positions * length, id=f"{name}/supercell", cell=cell.cell * length, pbc=(True, True, True)
    )
    displaced = _displaced(record.dataset, len(supercell)) if has_forces else []
    constants, origin = record.force_constants, "the yaml"
    beside = next((folder / n for n in _CONSTANTS if (folder / n).is_file()), None)
    if constants is None and beside is not None:
        constants, origin = _constants(beside), beside.name
    elif constants is None and displaced and "first_atoms" in record.dataset:
        record.produce_force_constants(calculate_full_force_constants=True)
        constants, origin = record.force_constants, f"differences of forces, by phonopy {phonopy.__version__}"
    if constants is not None:
        constants = _full(constants, record, len(supercell)) * (force / length)
    return _Content(
        _named(supercell, name),
        constants,
        [(u * length, f * force, None if e is None else e * energy) for u, f, e in displaced],
        origin,
    )


def _keys(dataset: Mapping[str, Any]) -> list[str]:
    first = dataset["first_atoms"][0] if dataset.get("first_atoms") else {}
    return [*dataset, *first]


def _displaced(dataset: Mapping[str, Any], n: int) -> list[tuple[Array, Array, float | None]]:
    found: list[tuple[Array, Array, float | None]] = []
    if "first_atoms" in dataset:  # one atom at a time
        for entry in dataset["first_atoms"]:
            u = np.zeros((n, 3))
            u[entry["number"]] = entry["displacement"]
            found.append((u, np.asarray(entry["forces"], dtype=float).reshape(n, 3), entry.get("supercell_energy")))
        return found
    energies = dataset.get("supercell_energies")
    pairs = zip(dataset["displacements"], dataset["forces"], strict=True)
    for i, (u, forces) in enumerate(pairs):
        energy = None if energies is None else float(energies[i])
        found.append((np.asarray(u).reshape(n, 3), np.asarray(forces, dtype=float).reshape(n, 3), energy))
    return found


def _full(constants: Constants, record: Any, n: int) -> Float[Array, "n n 3 3"]:
    """All rows, where phonopy kept only those of the primitive cell."""
    if constants.shape[:2] == (n, n):
        return constants
    if constants.shape[:2] == (len(record.primitive), n):
        from phonopy.harmonic.force_constants import compact_fc_to_full_fc

        return np.asarray(compact_fc_to_full_fc(record.primitive, np.ascontiguousarray(constants)))
    raise LabelShapeError(
        f"force constants between {constants.shape[0]} and {constants.shape[1]} atoms for a supercell of {n}"
    )


def _named(structure: Structure, group: str) -> Structure:
    return replace(structure, tag="supercell", group=group)
