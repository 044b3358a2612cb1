"""From atoms to beads: linear maps of positions and forces.

A bead is at `R_I = Σ_i c_Ii r_i` with weights that add up to one, and the force on it is `F_I = Σ_i d_Ii f_i`. The mean
force of the beads is the gradient of their potential of mean force if `Σ_i d_Ii c_Ji = δ_IJ` (moving bead J by moving
its atoms along d does not move the others), which every mapping here satisfies and checks. For beads of separate atoms
d is one on the atoms of the bead, whatever their weights: forces are summed. Source: W. G. Noid et al., J. Chem. Phys.
128, 244114 (2008).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

from hesse.coarse.atom_frames import AtomTopology
from hesse.errors import RequestError, did_you_mean
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import bead_number, species_names

__all__ = ["BeadGroup", "BeadMapping", "Center", "map_atoms", "map_groups", "map_molecules"]

Center = Literal["mass", "geometry"] | Callable[[Float[Array, "n"], tuple[str, ...]], Any]
"""Where a bead is: at the center of mass or the mean position of its atoms, or at weights that a function of their
masses and names gives."""
_ROUNDING: Final = 1e-9
BeadGroup = tuple[str, Sequence[str | int]]
"""A bead of a molecule: its type, and its atoms by name or by index within the molecule."""


@dataclass(frozen=True, eq=False, repr=False)
class BeadMapping(ShortRepr):
    """Weights of atoms in beads.

    Attributes:
        numbers: bead types, `[beads]`.
        masses: u, `[beads]`: the masses of their atoms.
        position_weights: c, sparse, `[beads, atoms]`.
        force_weights: d, sparse, `[beads, atoms]`.
        molecules: index of the molecule of each bead, `[beads]`.
        description: the mapping in words.

    Raises:
        RequestError: weights of positions that do not add up to one, or forces that are not consistent with them.
    """

    numbers: Int[Array, "beads"]
    masses: Float[Array, "beads"]
    position_weights: Any
    force_weights: Any
    molecules: Int[Array, "beads"]
    description: str

    def __post_init__(self) -> None:
        sums = np.asarray(self.position_weights.sum(axis=1)).ravel()
        wrong = np.flatnonzero(~(np.abs(sums - 1.0) < _ROUNDING))
        if len(wrong):
            bead = int(wrong[0])
            raise RequestError(
                f"weights of positions of a bead must add up to one, so that it moves with its atoms; those of bead "
                f"{bead} ({species_names(self.numbers[bead : bead + 1])[0]}) add up to {sums[bead]:.6g}"
            )
        product = (self.force_weights @ self.position_weights.T).tocoo()
        entries = {(int(i), int(j)): v for i, j, v in zip(product.row, product.col, product.data, strict=True)}
        diagonal = np.array([entries.pop((i, i), 0.0) for i in range(len(self.numbers))])
        off = max((abs(v) for v in entries.values()), default=0.0)
        if np.abs(diagonal - 1.0).max() > 1e-6 or off > 1e-6:
            raise RequestError(
                "the map of forces does not belong to the map of positions: a displacement of one bead along its force "
                f"weights moves it by {diagonal[np.abs(diagonal - 1.0).argmax()]:.6g} (expected 1) and others by up to "
                f"{off:.3g} (expected 0). Beads of separate atoms always fit"
            )

    def __len__(self) -> int:
        return len(self.numbers)

    def lost_atoms(self) -> Int[Array, "lost"]:
        """Atoms whose forces reach no bead.

        Returns:
            Their indices.
        """
        return np.flatnonzero(np.diff(self.force_weights.tocsc().indptr) == 0)

    def positions(self, positions: Float[Array, "atoms 3"]) -> Float[Array, "beads 3"]:
        """Positions of the beads.

        Args:
            positions: of the atoms of whole molecules, Å.

        Returns:
            Å.
        """
        return np.asarray(self.position_weights @ positions)

    def forces(self, forces: Float[Array, "atoms 3"]) -> Float[Array, "beads 3"]:
        """Forces on the beads.

        Args:
            forces: on the atoms, eV/Å.

        Returns:
            eV/Å.
        """
        return np.asarray(self.force_weights @ forces)

    def displacements(self, directions: Float[Array, "beads 3"]) -> Float[Array, "atoms 3"]:
        """Displacements of atoms that move the beads along given directions: `Bᵀ` of the map of forces.

        Args:
            directions: of the beads.

        Returns:
            Displacements of the atoms, in the same unit.
        """
        return np.asarray(self.force_weights.T @ directions)


def map_molecules(
    topology: AtomTopology,
    *,
    center: Center = "mass",
    bead_types: Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
) -> BeadMapping:
    """One bead for each molecule.

    Args:
        topology: atoms and molecules.
        center: see `Center`.
        bead_types: type of the bead of a molecule where it is not its name.
        drop: names of molecules that get no bead: their effect becomes a part of the model (an implicit solvent).

    Returns:
        The mapping.

    Raises:
        RequestError: molecules of two kinds under one name, a name that is no bead type, or all are dropped.
    """
    kinds = topology.kinds()
    types = dict(bead_types or {})
    for name in [*types, *drop]:
        if name not in kinds:
            raise RequestError(f'there is no molecule called "{name}". {did_you_mean(name, kinds)}')
    groups = {
        name: [(types.get(name, name), range(len(atoms)))] for name, (_, atoms) in kinds.items() if name not in drop
    }
    return map_groups(topology, groups, center=center, drop=drop)


def map_groups(
    topology: AtomTopology,
    groups: Mapping[str, Sequence[BeadGroup]],
    *,
    center: Center = "mass",
    drop: Sequence[str] = (),
    allow_lost_atoms: bool = False,
) -> BeadMapping:
    """Beads of parts of molecules.

    Args:
        topology: atoms and molecules.
        groups: for each name of a molecule its beads.
        center: see `Center`.
        drop: names of molecules that get no bead.
        allow_lost_atoms: also if atoms of a molecule belong to no bead.

    Returns:
        The mapping; beads are ordered as the molecules, and within one as its groups.

    Raises:
        RequestError: molecules without groups, atoms that do not exist, are named twice or belong to no bead.
    """
    kinds = topology.kinds()
    for name in [*groups, *drop]:
        if name not in kinds:
            raise RequestError(f'there is no molecule called "{name}". {did_you_mean(name, kinds)}')
    missing = [name for name in kinds if name not in groups and name not in drop]
    if missing:
        count = sum(kinds[name][0] * len(kinds[name][1]) for name in missing)
        raise RequestError(
            f"no beads for the molecules {', '.join(missing)}: {count} atoms would be lost. Give them beads, or name "
            "them in drop if their effect is to become a part of the model"
        )
    indices = {name: _group_indices(name, kinds[name][1], groups[name]) for name in groups}
    for name, beads in indices.items():
        used = {i for _, atoms in beads for i in atoms}
        lost = [f"{kinds[name][1][i]} ({i})" for i in range(len(kinds[name][1])) if i not in used]
        if lost and not allow_lost_atoms:
            raise RequestError(
                f"molecule {name!r}: {len(lost)} of its {len(kinds[name][1])} atoms belong to no bead, such as "
                f"{', '.join(lost[:4])}: their forces would be lost. Add them to a bead, or allow it "
                "(allow_lost_atoms, --allow-lost-atoms): the beads are then those of a larger system that is averaged "
                "over"
            )
    members, types, molecules = [], [], []
    for m, (name, atoms) in enumerate(zip(topology.molecule_names, topology.atoms_of_molecules(), strict=True)):
        for bead_type, within in indices.get(name, ()):
            members.append(atoms[within])
            types.append(bead_type)
            molecules.append(m)
    described = "; ".join(
        f"{name}: " + " ".join(f"{t}({len(atoms)} atoms)" for t, atoms in beads) for name, beads in indices.items()
    )
    return map_atoms(topology, members, types, center=center, molecules=molecules, description=described)


def map_atoms(
    topology: AtomTopology,
    members: Sequence[Int[Array, "n"]],
    bead_types: Sequence[str],
    *,
    center: Center = "mass",
    molecules: Sequence[int] | None = None,
    description: str = "",
) -> BeadMapping:
    """Beads of any atoms.

    Args:
        topology: atoms and molecules.
        members: indices of the atoms of each bead. An atom may belong to several.
        bead_types: type of each.
        center: see `Center`.
        molecules: molecule of each bead; by default that of its first atom.
        description: the mapping in words.

    Returns:
        The mapping. Atoms of several beads share their forces so that the maps are consistent:
        `d = (c m⁻¹ cᵀ)⁻¹ c m⁻¹`, which for separate atoms at their center of mass is one.

    Raises:
        RequestError: no beads, beads without atoms or of atoms of several molecules, or weights that do not fit.
    """
    from scipy.sparse import csr_matrix

    if not len(members):
        raise RequestError("the mapping has no beads")
    rows, columns, weights = [], [], []
    for bead, atoms in enumerate(members):
        if not len(atoms):
            raise RequestError(f"bead {bead} ({bead_types[bead]}) has no atoms")
        if len(set(topology.molecules[atoms].tolist())) > 1:
            raise RequestError(
                f"bead {bead} ({bead_types[bead]}) has atoms of {len(set(topology.molecules[atoms].tolist()))} "
                "molecules, which move apart; a bead is made of atoms of one molecule"
            )
        rows.append(np.full(len(atoms), bead))
        columns.append(atoms)
        weights.append(_center_weights(center, topology, atoms, f"bead {bead} ({bead_types[bead]})"))
    row, column = np.concatenate(rows), np.concatenate(columns)
    shape = (len(members), len(topology))
    positions = csr_matrix((np.concatenate(weights), (row, column)), shape=shape)
    belongs = csr_matrix((np.ones(len(row)), (row, column)), shape=shape)
    shared = bool((np.asarray(belongs.sum(axis=0)).ravel() > 1).any())
    return BeadMapping(
        numbers=np.array([bead_number(name) for name in bead_types]),
        masses=np.asarray(belongs @ topology.masses),
        position_weights=positions,
        force_weights=_consistent_forces(positions, topology.masses) if shared else belongs,
        molecules=topology.molecules[[atoms[0] for atoms in members]] if molecules is None else np.asarray(molecules),
        description=description or f"{len(members)} beads",
    )


def _consistent_forces(positions: Any, masses: Float[Array, "atoms"]) -> Any:
    from scipy.sparse import csr_matrix, diags
    from scipy.sparse.linalg import splu

    scaled = positions @ diags(1.0 / masses)
    try:
        inverse = splu((scaled @ positions.T).tocsc()).solve(np.eye(positions.shape[0]))
    except RuntimeError:
        raise RequestError(
            "two beads are at the same combination of atoms: their positions are not independent"
        ) from None
    inverse[np.abs(inverse) < 1e-12 * np.abs(inverse).max()] = 0.0
    return csr_matrix(csr_matrix(inverse) @ scaled)


def _center_weights(center: Center, topology: AtomTopology, atoms: Int[Array, "n"], where: str) -> Float[Array, "n"]:
    masses = topology.masses[atoms]
    if center == "mass":
        return masses / masses.sum()
    if center == "geometry":
        return np.full(len(atoms), 1.0 / len(atoms))
    if not callable(center):
        raise RequestError(f'center: expected "mass", "geometry" or a function of masses and names, got {center!r}')
    weights = np.asarray(center(masses, tuple(topology.names[i] for i in atoms)), dtype=np.float64)
    if weights.shape != masses.shape or not np.isfinite(weights).all():
        raise RequestError(
            f"{where}: the function of its center must give {len(masses)} finite weights, got shape {weights.shape}"
        )
    return weights


def _group_indices(
    molecule: str, names: tuple[str, ...], beads: Sequence[BeadGroup]
) -> list[tuple[str, Int[Array, "n"]]]:
    result = []
    for bead_type, atoms in beads:
        bead_number(bead_type)  # replies to a wrong name
        indices = []
        for atom in atoms:
            if isinstance(atom, str):
                matches = [i for i, name in enumerate(names) if name == atom]
                if len(matches) != 1:
                    problem = "no atom" if not matches else f"{len(matches)} atoms"
                    hint = did_you_mean(atom, names) if not matches else "Give indices within the molecule instead."
                    raise RequestError(f"molecule {molecule!r} has {problem} called {atom!r}. {hint}")
                indices += matches
            elif 0 <= int(atom) < len(names):
                indices.append(int(atom))
            else:
                raise RequestError(f"molecule {molecule!r} has atoms 0 to {len(names) - 1}, there is no atom {atom}")
        if len(set(indices)) < len(indices):
            raise RequestError(f"molecule {molecule!r}: bead {bead_type!r} names an atom twice")
        result.append((bead_type, np.array(indices, dtype=np.int64)))
    return result
