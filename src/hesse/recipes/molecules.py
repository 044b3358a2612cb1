"""Starting structures: molecules of the G2 collection, which is part of ASE."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np
from ase.neighborlist import natural_cutoffs, neighbor_list

from hesse.datasets import StructuresLike, as_structures
from hesse.errors import ConfigError
from hesse.structures import Structure, from_ase, to_ase

__all__ = ["EXCLUDED_NAMES", "g2_molecules", "hold_out"]

EXCLUDED_NAMES = frozenset({"CH2_s1A1d"})
"""Molecules left out: singlet methylene is closed-shell in the collection, but it is an excited state."""


def g2_molecules(symbols: Collection[str] = ("H", "C", "N", "O"), *, min_atoms: int = 3) -> tuple[Structure, ...]:
    """Closed-shell molecules of the G2 collection that contain hydrogen. Geometries are from MP2 (Curtiss et al., J.
    Chem. Phys. 106, 1063 (1997)).

    Args:
        symbols: symbols of the allowed elements.
        min_atoms: smallest number of atoms.

    Returns:
        The molecules, ordered by name (53 for H, C, N, O); ids and groups are the names.
    """
    from ase.collections import g2  # takes a second, and few processes need it

    molecules = []
    for name in sorted(g2.names):
        atoms = g2[name]
        allowed = "H" in atoms.symbols and set(atoms.symbols) <= set(symbols)
        if (
            not allowed
            or len(atoms) < min_atoms
            or atoms.get_initial_magnetic_moments().any()
            or name in EXCLUDED_NAMES
        ):
            continue
        structure = from_ase(atoms, id=name)
        molecules.append(Structure(structure.numbers, structure.positions, id=name, tag="g2", group=name))
    return tuple(molecules)


def hold_out(molecules: StructuresLike, count: int, *, seed: int) -> tuple[str, ...]:
    """Draw molecules at random to hold out from training, so that every bonding environment in them (an element with
    the elements bonded to it) also occurs in a molecule that remains.

    They are new molecules, but not new chemistry: the only peroxide, for example, is never held out, since a model
    cannot learn its O-O bond from the others.

    Args:
        molecules: Structures, ASE Atoms, a data set or the path of a file.
        count: number of molecules to hold out.
        seed: seed of the drawing.

    Returns:
        The ids of the molecules held out, sorted.

    Raises:
        ConfigError: fewer than `count` can be held out.
    """
    molecules = as_structures(molecules)
    environments = {m.id: _bonding_environments(m) for m in molecules}
    remaining = Counter(environment for group in environments.values() for environment in group)
    chosen: list[str] = []
    for index in np.random.default_rng(seed).permutation(len(molecules)):
        name = molecules[index].id
        if len(chosen) < count and all(remaining[environment] > 1 for environment in environments[name]):
            remaining.subtract(environments[name])
            chosen.append(name)
    if len(chosen) < count:
        raise ConfigError(
            f"cannot hold out {count} of {len(molecules)} molecules and keep every bonding environment in the others; "
            f"at most {len(chosen)}"
        )
    return tuple(sorted(chosen))


def _bonding_environments(molecule: Structure) -> frozenset[tuple[int, tuple[int, ...]]]:
    first, second = neighbor_list("ij", to_ase(molecule), natural_cutoffs(to_ase(molecule), mult=1.15))
    return frozenset(
        (int(z), tuple(sorted(int(molecule.numbers[j]) for j in second[first == i])))
        for i, z in enumerate(molecule.numbers)
    )
