"""Molecules that ship with ASE, as starting structures: nothing to download."""

from __future__ import annotations

from collections.abc import Collection

from ase.collections import g2

from hesse.structures import Structure, from_ase

__all__ = ["EXCLUDED", "g2_molecules"]

EXCLUDED = frozenset({"CH2_s1A1d"})
"""Singlet methylene: closed-shell in the table, but an excited state."""


def g2_molecules(symbols: Collection[str] = ("H", "C", "N", "O"), *, smallest: int = 3) -> tuple[Structure, ...]:
    """Closed-shell molecules of the G2 collection with hydrogen and no other elements than `symbols`, at least
    `smallest` atoms, ordered by name (53 for H, C, N, O). Geometries are MP2's (Curtiss et al., J. Chem. Phys. 106,
    1063 (1997)); ids and groups are the names."""
    chosen = []
    for name in sorted(g2.names):
        atoms = g2[name]
        inside = "H" in atoms.symbols and set(atoms.symbols) <= set(symbols)
        if not inside or len(atoms) < smallest or atoms.get_initial_magnetic_moments().any() or name in EXCLUDED:
            continue
        plain = from_ase(atoms, id=name)
        chosen.append(Structure(plain.numbers, plain.positions, id=name, tag="g2", group=name))
    return tuple(chosen)
