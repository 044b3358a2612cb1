"""Crystals, their supercells and primitive cells, in phonopy's terms."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.errors import ConfigError, GeometryError, HesseError, check_numbers, first_line
from hesse.runtime.imports import import_optional
from hesse.structures import Structure, check_cell

__all__ = [
    "as_supercell_matrix",
    "atoms_of",
    "check_crystal",
    "default_supercell",
    "import_phonopy",
    "make_record",
    "phonopy_errors",
    "structure_of",
    "widths",
]

MAX_ATOMS = 50_000
"""Largest number of atoms of a supercell."""
DEFAULT_WIDTH = 10.0
"""Å; the supercell that is chosen where none is given is at least this wide in all directions."""
_SYMFC_RECURSION = 100_000
"""Recursion limit that symfc sets for its trees of blocks."""
_LARGE, _FEW = 600, 4
"""Above the first number of atoms of a supercell the space group is not used for primitive cells of up to the second:
the permutations of 1,000 atoms of rock salt by all its operations take 35 s, the twelve products at most seconds."""


def import_phonopy(purpose: str = "phonons of crystals") -> Any:
    """Import phonopy.

    Args:
        purpose: feature that needs it, for the message.

    Returns:
        The module.

    Raises:
        MissingExtraError: it is not installed.
    """
    return import_optional("phonopy", extra="materials", purpose=purpose)


@contextmanager
def phonopy_errors(what: str, error_class: type[HesseError] = GeometryError) -> Iterator[None]:
    """Context in which phonopy, spglib, symfc and seekpath work: their warnings are not shown, and their errors, which
    are of any type, become replies. symfc raises Python's recursion limit when it is imported; afterwards it is what it
    was, because a deeply nested file would end a process without a limit.

    Args:
        what: the work, for the message.
        error_class: class of the reply.
    """
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _SYMFC_RECURSION))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except HesseError:
        raise
    except (Exception, SystemExit) as error:
        raise error_class(f"{what}: {type(error).__name__}: {first_line(error)}") from error
    finally:
        sys.setrecursionlimit(limit)


def check_crystal(structure: Structure) -> None:
    """Check that a structure is a crystal.

    Args:
        structure: the structure.

    Raises:
        GeometryError: it is not periodic in three directions, or its cell is a placeholder.
    """
    if not all(structure.pbc):
        kind = "no cell: it is a molecule" if not structure.periodic else f"pbc {structure.pbc}"
        raise GeometryError(
            f'structure "{structure.id}" has {kind}. Phonons need a crystal, periodic in three directions; frequencies '
            "of molecules: hesse vibrations"
        )
    check_cell(structure)
    structure.check_no_overlap()


def widths(cell: Float[Array, "3 3"]) -> Float[Array, "3"]:
    """Distances between opposite faces of a cell.

    Args:
        cell: lattice vectors as rows, Å.

    Returns:
        Å.
    """
    return 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)


def default_supercell(structure: Structure) -> Int[Array, "3 3"]:
    """The smallest diagonal supercell that is at least 10 Å wide in all directions.

    Args:
        structure: the crystal.

    Returns:
        The matrix.
    """
    return np.diag(np.maximum(1, np.ceil(DEFAULT_WIDTH / widths(structure.cell) - 1e-6)).astype(int))


def as_supercell_matrix(supercell: ArrayLike, structure: Structure) -> Int[Array, "3 3"]:
    """Convert to a matrix of a supercell, and check it.

    Args:
        supercell: one number for all directions, three, or a matrix whose rows are the lattice vectors of the supercell
            in those of the cell.
        structure: the crystal.

    Returns:
        The matrix.

    Raises:
        ConfigError: not whole numbers, of another shape, without volume, left-handed, or with too many atoms.
    """
    try:
        values = np.asarray(supercell, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape in ((), (3,)):
        values = np.diag(np.broadcast_to(values, 3))
    if values.shape != (3, 3) or not np.isfinite(values).all():
        raise ConfigError(f"supercell: expected one whole number, three, or a matrix of nine; got {supercell!r}")
    matrix = np.rint(values).astype(int)
    if not np.allclose(matrix, values, atol=1e-9):
        raise ConfigError(
            f"supercell: {values.tolist()} has fractions, so that it does not fit the cell: expected whole numbers"
        )
    multiple = round(float(np.linalg.det(matrix)))
    if multiple < 1:
        raise ConfigError(f"supercell: {matrix.tolist()} has the volume {multiple} of the cell, expected at least 1")
    if multiple * len(structure) > MAX_ATOMS:
        raise ConfigError(f"supercell: {multiple * len(structure)} atoms, at most {MAX_ATOMS} are possible")
    return matrix


def atoms_of(structure: Structure, masses: Float[Array, "n"] | None = None) -> Any:
    """Convert to phonopy's cell.

    Args:
        structure: the crystal.
        masses: u; None for those of the structure.

    Returns:
        `phonopy.structure.atoms.PhonopyAtoms`.
    """
    from phonopy.structure.atoms import PhonopyAtoms

    return PhonopyAtoms(
        numbers=structure.numbers,
        cell=structure.cell,
        positions=structure.positions,
        masses=structure.atomic_masses if masses is None else masses,
    )


def structure_of(cell: Any, id: str, length: float = 1.0) -> Structure:
    """Convert from phonopy's cell.

    Args:
        cell: `phonopy.structure.atoms.PhonopyAtoms`.
        id: id of the structure.
        length: its unit of length, Å.

    Returns:
        The structure.
    """
    return Structure(
        cell.numbers,
        cell.positions * length,
        id=id,
        cell=cell.cell * length,
        pbc=(True, True, True),
        masses=cell.masses,
    )


def make_record(
    structure: Structure,
    matrix: Int[Array, "3 3"],
    *,
    primitive: ArrayLike | str = "auto",
    symmetry: bool | None = None,
    symprec: float = 1e-5,
    masses: Float[Array, "n"] | None = None,
) -> Any:
    """Make phonopy's record of a crystal: its supercell, primitive cell and space group.

    Args:
        structure: the crystal.
        matrix: rows are the lattice vectors of the supercell in those of the cell.
        primitive: the primitive cell: "auto" finds it, "P" takes the cell itself, "F", "I", "A", "C", "R" are
            centerings, or a matrix.
        symmetry: whether to use the space group; None does not where finding it in a large supercell of a small
            primitive cell takes longer than the few products that it saves.
        symprec: tolerance of the space group, Å.
        masses: u, `[n]`; None for those of the structure.

    Returns:
        `phonopy.Phonopy`.

    Raises:
        MissingExtraError: phonopy is not installed.
        ConfigError: a tolerance that is not positive.
        GeometryError: the supercell is no multiple of the primitive cell, or no space group is found.
    """
    phonopy = import_phonopy()
    check_numbers(symprec=symprec)
    if not 0 < symprec < 1:
        raise ConfigError(f"symprec: expected a small positive number of Å, got {symprec}")
    check_crystal(structure)
    weights = structure.atomic_masses if masses is None else masses
    # Isotopes are no part of the space group: a primitive cell that ignores them would mix them up.
    isotopes = any(np.ptp(weights[structure.numbers == z]) > 1e-6 for z in np.unique(structure.numbers))
    what = (
        f'structure "{structure.id}": phonopy cannot make the supercell {matrix.tolist()} and the primitive cell of it '
        f"(a supercell must be a multiple of the primitive cell; symprec {symprec:g} Å)"
    )
    options: dict[str, Any] = {
        "primitive_matrix": "P" if isotopes and isinstance(primitive, str) else primitive,
        "symprec": symprec,
        "log_level": 0,
    }
    with phonopy_errors(what):
        cell = atoms_of(structure, masses)
        n_atoms = len(structure) * round(float(np.linalg.det(matrix)))
        n_primitive = len(phonopy.Phonopy(cell, **options).primitive)
        if n_primitive == len(structure) and isinstance(primitive, str) and primitive == "auto":
            options["primitive_matrix"] = (
                "P"  # phonopy might permute its axes: wave vectors are those of the given cell
            )
        if symmetry is None:
            symmetry = n_atoms <= _LARGE or n_primitive > _FEW
        # phonopy's columns are lattice vectors
        return phonopy.Phonopy(cell, np.asarray(matrix).T, is_symmetry=symmetry, **options)
