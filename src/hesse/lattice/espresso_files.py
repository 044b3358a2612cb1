"""Dynamical matrices of Quantum ESPRESSO, which ph.x writes for each star of wave vectors, and CellConstructor as well.

A file has the cell, masses, and for each wave vector the matrix `D(q) = Σ_R Φ(0 a, R b) exp(i q·R)` without masses, in
Rydberg/bohr²; that of Γ may have the dielectric constant and Born effective charges. Wave vectors are Cartesian, in
2π over the lattice parameter (description of the format: https://www.quantum-espresso.org, ph.x and q2r.x).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import units as ase_units
from ase.data import atomic_numbers
from jaxtyping import Complex, Float
from numpy import ndarray as Array

from hesse.errors import FileFormatError, HesseError
from hesse.lattice.bravais_cells import bravais_cell
from hesse.runtime.filesystem import check_input_file
from hesse.structures import Structure
from hesse.units import energy_unit, length_unit

__all__ = ["EspressoMatrices", "is_matrix_file", "matrix_files", "read_matrices"]

_HEADING = "dynamical matrix file"
_MAX_BYTES = 1 << 28
_MAX_ATOMS = 2000
_MASS = float(2 * ase_units._me / ase_units._amu)
"""Unit of mass of the files, two electron masses, in u."""
_MIN_MASS = 0.1
"""u; a smaller mass is none."""
_NUMBERED = re.compile(r"(.*?)(\d+)$")
_Q = re.compile(r"q\s*=\s*\((.*)\)")
_HERMITIAN = 1e-4
"""Largest deviation from a Hermitian matrix, over its largest element, that rounding explains."""


@dataclass(frozen=True, eq=False)
class EspressoMatrices:
    """Dynamical matrices of a crystal.

    Attributes:
        structure: the cell, with the masses of the files.
        q: wave vectors in reciprocal lattice vectors.
        matrices: `D(q)` without masses, eV/Å².
        dielectric: dielectric constant; None if the files have none.
        born: Born effective charges, e, `[atoms, field, displacement]`; None if the files have none.
    """

    structure: Structure
    q: Float[Array, "q 3"]
    matrices: Complex[Array, "q m m"]
    dielectric: Float[Array, "3 3"] | None
    born: Float[Array, "n 3 3"] | None


def is_matrix_file(path: Path) -> bool:
    """Whether a file is one of dynamical matrices, or the list of their wave vectors beside them.

    Args:
        path: the file.

    Returns:
        True if it begins as such a file; for a name that ends with 0 also if the one that ends with 1 does.
    """
    numbered = _NUMBERED.fullmatch(path.name)
    if not path.is_file():
        return False
    if numbered and numbered[2] == "0" and not _begins(path):
        path = path.with_name(f"{numbered[1]}1")
    return path.is_file() and _begins(path)


def _begins(path: Path) -> bool:
    with open(path, "rb") as handle:
        return handle.read(200).strip().lower().startswith(_HEADING.encode())


def matrix_files(path: Path) -> list[Path]:
    """Files that belong together: names that differ in the number at their end, without the list of wave vectors (0).

    Args:
        path: one of them, or a folder with one set.

    Returns:
        The files in the order of their numbers; empty if a folder has none.

    Raises:
        FileFormatError: a folder with several sets.
    """
    if path.is_dir():
        names = [f.name for f in path.iterdir() if _NUMBERED.fullmatch(f.name) and is_matrix_file(f)]
        prefixes = sorted({name.rstrip("0123456789") for name in names})
        if len(prefixes) > 1:
            shown = ", ".join(f"{prefix}*" for prefix in prefixes[:4])
            raise FileFormatError(
                f"{path}: {len(prefixes)} sets of dynamical matrices ({shown}): give one file of a set"
            )
        if not names:
            return []
        path = path / names[0]
    numbered = _NUMBERED.fullmatch(path.name)
    if numbered is None:
        return [path]
    siblings = [(_NUMBERED.fullmatch(file.name), file) for file in path.parent.iterdir()]
    numbers = {int(other[2]): file for other, file in siblings if other and other[1] == numbered[1]}
    numbers.pop(0, None)
    return [numbers[k] for k in sorted(numbers)]


def read_matrices(path: Path) -> EspressoMatrices:
    """Read all dynamical matrices of a crystal.

    Args:
        path: one file, or a folder; those whose names differ in the number at their end belong together.

    Returns:
        The matrices of all wave vectors; equivalent ones are read once.

    Raises:
        FileFormatError: damaged, incomplete, or of different crystals.
    """
    files = matrix_files(path)
    if not files:
        raise FileFormatError(f"{path}: no dynamical matrices")
    parts = [_read_file(file) for file in files]
    first = parts[0].structure
    for file, part in zip(files, parts, strict=True):
        same = np.array_equal(part.structure.numbers, first.numbers) and np.allclose(
            np.vstack([part.structure.cell, part.structure.positions]),
            np.vstack([first.cell, first.positions]),
            atol=1e-4,
        )
        if not same:
            raise FileFormatError(f"{file}: of another crystal than {files[0].name}: other atoms, positions or cell")
    with_field = next((p for p in parts if p.dielectric is not None), parts[0])
    q, matrices = np.concatenate([p.q for p in parts]), np.concatenate([p.matrices for p in parts])
    _, unique = np.unique(np.round((q + 1e-5) % 1.0, 3), axis=0, return_index=True)
    unique.sort()
    return EspressoMatrices(first, q[unique], matrices[unique], with_field.dielectric, with_field.born)


def _read_file(file: Path) -> EspressoMatrices:
    check_input_file(file, "file of dynamical matrices")
    if file.stat().st_size > _MAX_BYTES:
        raise FileFormatError(f"{file}: too large for a file of dynamical matrices")
    if not _begins(file):
        raise FileFormatError(f'{file}: does not begin with "Dynamical matrix file" (matrices as XML are not read)')
    lines = [line for line in file.read_bytes().decode("utf-8", errors="replace").splitlines() if line.strip()]
    try:
        return _parse(lines, file)
    except HesseError as error:
        raise FileFormatError(f"{file}: {error}") from None
    except (ValueError, IndexError, OverflowError):
        raise FileFormatError(f"{file}: damaged or incomplete: not the cell, masses and matrices of ph.x") from None


def _parse(lines: list[str], file: Path) -> EspressoMatrices:
    start = 1 if _is_header(lines[1]) else 2  # the title may be an empty line
    words = lines[start].split()
    n_types, n_atoms, number = (int(w) for w in words[:3])
    if not (0 < n_types <= n_atoms <= _MAX_ATOMS):
        raise FileFormatError(f"{n_atoms} atoms of {n_types} elements; expected at most {_MAX_ATOMS}")
    parameters = [_number(w) for w in words[3:9]]
    length, at = parameters[0] * length_unit("bohr"), start + 1
    if number == 0:
        cell, at = _table(lines[at + 1 : at + 4], 3), at + 4
    else:
        cell = bravais_cell(number, parameters)
    kinds = [_kind(line) for line in lines[at : at + n_types]]
    rows = _table(lines[at + n_types : at + n_types + n_atoms], 5)
    species = rows[:, 1].astype(int) - 1
    if min(species) < 0:
        raise ValueError
    structure = Structure(
        np.array([kinds[k][0] for k in species]),
        rows[:, 2:] * length,
        id=file.name.rstrip("0123456789").rstrip("._-") or file.name,
        cell=cell * length,
        pbc=(True, True, True),
        masses=np.array([kinds[k][1] for k in species]),
    )
    q, matrices = list[Array](), list[Array]()
    at += n_types + n_atoms
    while at + 1 < len(lines) and lines[at].split()[:2] == ["Dynamical", "Matrix"]:
        match = _Q.search(lines[at + 1])
        if match is None:
            raise ValueError
        q.append(cell @ np.array([_number(w) for w in match[1].split()]))
        block = lines[at + 2 : at + 2 + 4 * n_atoms**2]
        matrices.append(_matrix(block, n_atoms))
        at += 2 + len(block)
    if not q:
        raise FileFormatError("no dynamical matrix; ph.x has not finished, or another kind of file")
    dielectric = born = None
    if at < len(lines) and lines[at].strip().startswith("Dielectric"):
        dielectric, at = _table(lines[at + 1 : at + 4], 3), at + 4
    if at < len(lines) and lines[at].strip().startswith("Effective Charges E-U"):
        body = lines[at + 1 : at + 1 + 4 * n_atoms]
        born = _table([line for line in body if "#" not in line], 3).reshape(n_atoms, 3, 3)
    unit = energy_unit("rydberg") / length_unit("bohr") ** 2
    return EspressoMatrices(structure, np.array(q), np.array(matrices) * unit, dielectric, born)


def _is_header(line: str) -> bool:
    words = line.split()
    return len(words) == 9 and all(re.fullmatch(r"-?\d+", w) for w in words[:3])


def _kind(line: str) -> tuple[int, float]:
    """Atomic number and mass (u) from a line such as `1 'Fe1 ' 50903.2`."""
    match = re.fullmatch(r"\s*\d+\s+'(.*)'\s*(\S*)\s*", line)
    if match is None:
        raise ValueError
    letters = re.match(r"[A-Za-z]*", match[1].strip())
    symbol = letters[0][:2].capitalize() if letters else ""
    symbol = symbol if symbol in atomic_numbers else symbol[:1]
    if symbol not in atomic_numbers:
        raise FileFormatError(f'"{match[1].strip()}" is no element')
    mass = _number(match[2]) * _MASS if match[2] else 0.0
    if not mass > _MIN_MASS:
        raise FileFormatError(
            f"the mass of {symbol} is missing ({match[2] or 'nothing'}): give it in the input of ph.x"
        )
    return atomic_numbers[symbol], mass


def _number(word: str) -> float:
    value = float(word.lower().replace("d", "e"))
    if not np.isfinite(value):
        raise ValueError
    return value


def _table(lines: list[str], columns: int) -> Float[Array, "rows columns"]:
    rows = [[_number(w) for w in line.split()] for line in lines]
    if any(len(row) != columns for row in rows) or not rows:
        raise ValueError
    return np.array(rows)


def _matrix(lines: list[str], n: int) -> Complex[Array, "m m"]:
    """The matrix of one wave vector: for each pair of atoms their numbers, and three rows of three complex numbers."""
    if len(lines) != 4 * n * n:
        raise FileFormatError(f"the last of its matrices is incomplete: {len(lines)} of {4 * n * n} lines")
    result = np.empty((n, 3, n, 3), dtype=complex)
    for k in range(n * n):
        a, b = (int(w) - 1 for w in lines[4 * k].split())
        if (a, b) != divmod(k, n):
            raise ValueError
        values = _table(lines[4 * k + 1 : 4 * k + 4], 6)
        result[a, :, b] = values[:, 0::2] + 1j * values[:, 1::2]
    matrix = result.reshape(3 * n, 3 * n)
    if np.abs(matrix - matrix.conj().T).max() > _HERMITIAN * np.abs(matrix).max():
        raise FileFormatError("a matrix is not Hermitian: damaged")
    return matrix
