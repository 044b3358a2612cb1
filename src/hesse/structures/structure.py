"""One structure (elements or bead types, positions, cell) and its conversion from and to ASE `Atoms`.

Structures are immutable and contain no energies or forces; these are `Properties`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

from hesse.errors import GeometryError, RequestError
from hesse.structures.charge_state import ChargeState, read_charge_state
from hesse.structures.elements import own_masses
from hesse.structures.pairs import Neighbors, distance_matrix, find_neighbors
from hesse.structures.species import (
    LAST_ELEMENT,
    bead_number,
    chemical_formula,
    is_bead,
    is_species,
    species_names,
    standard_masses,
)

__all__ = [
    "BEAD_COLUMN",
    "NO_BEAD",
    "Structure",
    "charge_state_of",
    "from_ase",
    "rng_key",
    "species_numbers",
    "to_ase",
    "to_structure",
]

_MAX_DENSE_ATOMS = 512
"""Above this number of atoms distances are searched in a tree, in memory proportional to the atoms."""
BEAD_COLUMN: Final = "bead_type"
"""Name of the array of ASE atoms, and of the column of extended XYZ files, with the names of bead types."""
NO_BEAD: Final = "-"
"""Stands there for an atom."""
_HINT = "several structures, files and other objects are converted by hesse.datasets.as_structures"


def rng_key(structure_id: str) -> int:
    """Key of the random numbers (probes) of a structure: the same id gives the same key in all versions of Hesse.

    Args:
        structure_id: id of the structure.

    Returns:
        A 63-bit integer.
    """
    digest = hashlib.blake2b(structure_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


_MAX_COORDINATE: Final = 1e6
"""Å."""
_MAX_CHARGE: Final = 100_000
"""Of a structure, in elementary charges; also the largest multiplicity."""


@dataclass(frozen=True, eq=False)
class Structure:
    """Elements, positions and an optional cell, with a stable id.

    Attributes:
        numbers: atomic numbers, `[atoms]`; those of bead types (`bead_number`) in coarse-grained structures.
        positions: Å, `[atoms, 3]`.
        id: unique name in a data set; by default the chemical formula and a digest of the content.
        cell: lattice vectors as rows, Å, `[3, 3]`; zeros without a lattice vector.
        pbc: which of the three directions are periodic.
        charge: total charge in e.
        multiplicity: spin multiplicity 2S+1.
        tag: kind of geometry ("relaxed", "nms-300K"); errors are reported per tag.
        group: structures of one group (a molecule, a reaction) are kept together when data are split.
        masses: u, `[atoms]`, of isotopes and beads; None for the standard atomic masses.

    Raises:
        GeometryError: shapes that do not fit, non-finite positions, a periodic direction without a lattice vector,
            masses that are not positive.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    id: str = ""
    cell: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: tuple[bool, bool, bool] = (False, False, False)
    charge: int = 0
    multiplicity: int = 1
    tag: str = ""
    group: str = ""
    masses: NDArray[np.float64] | None = None
    _neighbors: dict[float, Neighbors] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        def set_field(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        set_field("numbers", _readonly_array(self.numbers, np.int64))
        set_field("positions", _readonly_array(self.positions, np.float64))
        set_field("cell", _readonly_array(self.cell, np.float64))
        pbc = (self.pbc,) * 3 if isinstance(self.pbc, bool | np.bool_) else self.pbc  # True, as in ASE
        set_field("pbc", tuple(bool(p) for p in pbc))
        if self.masses is not None:
            set_field("masses", _readonly_array(self.masses, np.float64))
        n = self.numbers.size
        if not self.id:
            set_field("id", self._content_id())
        if self.numbers.ndim != 1 or n == 0 or self.positions.shape != (n, 3):
            raise GeometryError(
                f'structure "{self.id}": expected numbers [atoms] and positions [atoms, 3] with at least one atom, '
                f"got {self.numbers.shape} and {self.positions.shape}"
            )
        wrong = [z for z in np.unique(self.numbers).tolist() if not is_species(z)]
        if wrong:
            ghosts = " (0 stands for ghost or dummy atoms, which no potential knows: remove them)" if 0 in wrong else ""
            beads = "" if max(wrong) <= LAST_ELEMENT else "; the number of a bead type is hesse.bead_number(name)"
            raise GeometryError(
                f'structure "{self.id}": atomic numbers must lie in 1..118, got {wrong[:8]}{ghosts}{beads}'
            )
        masses = self.masses
        if masses is not None and (masses.shape != (n,) or not (np.isfinite(masses).all() and (masses > 0).all())):
            raise GeometryError(
                f'structure "{self.id}": expected {n} positive masses in u, got {np.array2string(masses, threshold=8)}'
            )
        if not np.isfinite(self.positions).all():
            raise GeometryError(f'structure "{self.id}": positions are not all finite numbers')
        if not (abs(self.charge) <= _MAX_CHARGE and 0 <= self.multiplicity <= _MAX_CHARGE):
            raise GeometryError(
                f'structure "{self.id}": charge {str(self.charge)[:20]}, multiplicity {str(self.multiplicity)[:20]}: '
                "no calculation has such numbers"
            )
        if np.abs(self.positions).max() > _MAX_COORDINATE:
            raise GeometryError(
                f'structure "{self.id}": coordinates of up to {np.abs(self.positions).max():.3g} Å, expected at most '
                f"{_MAX_COORDINATE:g} Å; they are in other units, or damaged"
            )
        if self.cell.shape == (3, 3) and not (np.abs(self.cell) <= _MAX_COORDINATE).all():
            raise GeometryError(
                f'structure "{self.id}": lattice vectors {self.cell.tolist()}, expected finite numbers of at most '
                f"{_MAX_COORDINATE:g} Å"
            )
        if self.cell.shape != (3, 3) or len(self.pbc) != 3:
            raise GeometryError(f'structure "{self.id}": expected a cell [3, 3] and pbc [3], got {self.cell.shape}')
        periodic_vectors = self.cell[list(self.pbc)]
        if len(periodic_vectors) and np.linalg.matrix_rank(periodic_vectors, tol=1e-3) < len(periodic_vectors):
            raise GeometryError(
                f'structure "{self.id}": periodic along {self.pbc}, but the lattice vectors {self.cell.tolist()} '
                "do not span those directions"
            )

    def _content_id(self) -> str:
        digest = hashlib.blake2b(digest_size=8)
        for array in (self.numbers, np.round(self.positions, 8) + 0.0, np.round(self.cell, 8) + 0.0):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(f"{self.pbc}{self.charge}{self.multiplicity}".encode())
        if self.masses is not None:
            digest.update(np.round(self.masses, 6).tobytes())
        has_symbols = self.numbers.ndim == 1 and all(is_species(z) for z in np.unique(self.numbers).tolist())
        formula = chemical_formula(self.numbers) if has_symbols else "unknown"
        return f"{formula}-{digest.hexdigest()}"

    def __repr__(self) -> str:
        lattice = ", periodic" if self.periodic else ""
        return f"Structure({self.id!r}, {chemical_formula(self.numbers)}, {len(self)} atoms{lattice})"

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def periodic(self) -> bool:
        """Whether any direction is periodic."""
        return any(self.pbc)

    @property
    def atomic_masses(self) -> NDArray[np.float64]:
        """Mass of every atom in u: `masses`, or the standard atomic masses (as in ASE).

        Raises:
            GeometryError: beads without masses.
        """
        if self.masses is not None:
            return np.asarray(self.masses, dtype=np.float64)
        bead = is_bead(self.numbers)
        if bead.any():
            raise GeometryError(
                f'structure "{self.id}": the beads {", ".join(species_names(np.unique(self.numbers[bead])))} have no '
                "masses, and no table holds those of beads; give them: Structure(..., masses=...), or atoms.set_masses"
            )
        return standard_masses(self.numbers)

    def with_positions(self, positions: ArrayLike, *, id: str | None = None, tag: str | None = None) -> Structure:
        """Copy with other positions.

        Args:
            positions: Å, `[atoms, 3]`.
            id: id of the new structure; by default formula and digest of the new content.
            tag: tag of the new structure; by default unchanged.

        Returns:
            The new structure, with cell, charge, multiplicity, masses and group of this one.
        """
        return Structure(
            self.numbers,
            np.asarray(positions, dtype=np.float64),
            id=id or "",
            cell=self.cell,
            pbc=self.pbc,
            charge=self.charge,
            multiplicity=self.multiplicity,
            tag=self.tag if tag is None else tag,
            group=self.group,
            masses=self.masses,
        )

    @classmethod
    def from_ase(cls, atoms: Atoms, *, id: str | None = None) -> Structure:
        """See `from_ase`."""
        return from_ase(atoms, id=id)

    def to_ase(self) -> Atoms:
        """See `to_ase`."""
        return to_ase(self)

    def neighbors(self, cutoff: float) -> Neighbors:
        """Neighbor pairs below a cutoff. The result is cached.

        Args:
            cutoff: Å.

        Returns:
            The pairs, periodic images included.
        """
        if cutoff not in self._neighbors:
            self._neighbors[cutoff] = find_neighbors(self.positions, self.cell, self.pbc, cutoff)
        return self._neighbors[cutoff]

    def closest_pair(self) -> tuple[float, int, int]:
        """The shortest distance between two atoms, periodic images included.

        Returns:
            Distance (Å) and the two indices; infinity and (0, 0) for a single atom, or if all distances in a periodic
            structure exceed 3 Å.
        """
        if self.periodic:
            pairs = self.neighbors(3.0)
            if len(pairs.distances) == 0:
                return np.inf, 0, 0
            k = int(pairs.distances.argmin())
            return float(pairs.distances[k]), int(pairs.centers[k]), int(pairs.neighbors[k])
        if len(self) > _MAX_DENSE_ATOMS:
            from scipy.spatial import KDTree

            nearest, neighbors = KDTree(self.positions).query(self.positions, k=2)
            i = int(nearest[:, 1].argmin())
            j = int(neighbors[i, 1]) if neighbors[i, 1] != i else int(neighbors[i, 0])
            return float(nearest[i, 1]), i, j
        distances = distance_matrix(self.positions)
        row, column = np.unravel_index(int(distances.argmin()), distances.shape)
        return float(distances[row, column]), int(row), int(column)

    def check_no_overlap(self, minimum: float = 0.3) -> None:
        """Check that no atoms overlap.

        Args:
            minimum: smallest allowed distance, Å.

        Raises:
            GeometryError: two atoms are closer than `minimum`.
        """
        distance, i, j = self.closest_pair()
        if distance < minimum:
            raise GeometryError(
                f'structure "{self.id}": atoms {i} and {j} are {distance:.3f} Å apart (at least {minimum} Å expected). '
                "Remove the structure, or check that positions are in Å."
            )


def _readonly_array(values: ArrayLike | Sequence[Any], dtype: type[np.generic]) -> NDArray[Any]:
    try:
        array = np.array(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise GeometryError(f"a structure needs arrays of numbers, got {type(values).__name__}: {error}") from error
    array.setflags(write=False)
    return array


def from_ase(atoms: Atoms, *, id: str | None = None) -> Structure:
    """Convert ASE `Atoms` to a structure: geometry only, without calculator results.

    Id, tag and group are read from `atoms.info` (keys `structure_id`, `tag`, `group`), charge and multiplicity under
    their usual names (see `read_charge_state`), bead types from `atoms.arrays["bead_type"]`. Masses are kept where they
    are not the standard ones, up to the rounding of usual tables.

    Args:
        atoms: ASE atoms.
        id: id of the structure; takes precedence over `atoms.info["structure_id"]`.

    Returns:
        The structure.

    Raises:
        GeometryError: not ASE atoms, or an invalid geometry.
        LabelValueError: a charge or multiplicity that is not a whole number, or two that contradict each other.
    """
    if not isinstance(atoms, Atoms):
        raise GeometryError(f"expected ase.Atoms, got {type(atoms).__name__}: {_HINT}")
    info, state = atoms.info, charge_state_of(atoms)
    numbers = species_numbers(atoms)
    return Structure(
        numbers,
        atoms.positions,
        id=id or str(info.get("structure_id", "")),
        cell=np.asarray(atoms.cell),
        pbc=tuple(bool(p) for p in atoms.pbc),  # type: ignore[arg-type]
        charge=state.charge,
        multiplicity=state.multiplicity,
        tag=str(info.get("tag", "")),
        group=str(info.get("group", "")),
        masses=own_masses(numbers, atoms.get_masses()) if atoms.has("masses") else None,
    )


def species_numbers(atoms: Atoms) -> NDArray[np.int64]:
    """Numbers of the elements and bead types of ASE atoms.

    Args:
        atoms: ASE atoms; the array `bead_type`, if any, names the types of beads.

    Returns:
        Atomic numbers; those of bead types where the atoms have one.

    Raises:
        GeometryError: not the name of a bead type.
    """
    numbers = np.array(atoms.numbers, dtype=np.int64)
    if BEAD_COLUMN in atoms.arrays:
        names = np.asarray(atoms.arrays[BEAD_COLUMN]).astype(str)
        for name in np.unique(names).tolist():
            if name not in ("", NO_BEAD):
                numbers[names == name] = bead_number(name)
    return numbers


def charge_state_of(atoms: Atoms) -> ChargeState:
    """Charge and multiplicity that ASE atoms state, in `atoms.info`, by initial charges, or by the initial magnetic
    moments of a molecule. Those of crystals are where a calculation begins, and say nothing about its result.

    Args:
        atoms: ASE atoms.

    Returns:
        See `read_charge_state`.

    Raises:
        LabelValueError: a value that is not a whole number, or statements that contradict each other.
    """
    charges = atoms.get_initial_charges() if atoms.has("initial_charges") else None
    magmoms = None
    if atoms.has("initial_magmoms") and not atoms.pbc.any():
        magmoms = atoms.get_initial_magnetic_moments()
    return read_charge_state(atoms.info, atoms.numbers, charges, magmoms)


def to_ase(structure: Structure) -> Atoms:
    """Convert a structure to ASE `Atoms`.

    Args:
        structure: any structure.

    Returns:
        Atoms with the same geometry; id, tag, group, charge and multiplicity are in `atoms.info`. Beads have the symbol
        X, and the names of their types are in `atoms.arrays["bead_type"]` ("-" for atoms).

    Raises:
        RequestError: not a structure.
    """
    if not isinstance(structure, Structure):
        raise RequestError(f"expected a hesse.Structure, got {type(structure).__name__}")
    bead = is_bead(structure.numbers)
    numbers = np.where(bead, 0, structure.numbers)
    atoms = Atoms(numbers=numbers, positions=structure.positions, cell=structure.cell, pbc=structure.pbc)
    if bead.any():
        names = np.full(len(structure), NO_BEAD, dtype=object)
        names[bead] = species_names(structure.numbers[bead])
        atoms.arrays[BEAD_COLUMN] = names.astype(str)
    if structure.masses is not None:
        atoms.set_masses(structure.masses)
    atoms.info["structure_id"] = structure.id
    if structure.tag:
        atoms.info["tag"] = structure.tag
    if structure.group:
        atoms.info["group"] = structure.group
    if structure.charge:
        atoms.info["charge"] = structure.charge
    if structure.multiplicity != 1:
        atoms.info["multiplicity"] = structure.multiplicity
    return atoms


def to_structure(item: Structure | Atoms) -> Structure:
    """The structure itself, or the one with the geometry of ASE Atoms.

    Args:
        item: a Structure or ASE Atoms.

    Returns:
        A structure.

    Raises:
        RequestError: the argument is of another type.
    """
    if isinstance(item, Structure):
        return item
    if isinstance(item, Atoms):
        return from_ase(item)
    raise RequestError(f"expected a hesse.Structure or ASE Atoms, got {type(item).__name__}")
