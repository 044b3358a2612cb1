"""What costs are measured on: made-up molecules and crystals of any size, with random labels. They take the time and
memory of real ones; nothing can be learnt from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from ase.build import bulk, make_supercell
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets import Dataset
from hesse.errors import ConfigError
from hesse.structures import Labels, Structure, from_ase

__all__ = [
    "crystal",
    "labelled_at_random",
    "made_up_molecule",
    "made_up_molecules",
    "molecules_between",
    "some_of",
]

HEAVY = (6, 7, 8)
"""Carbon, nitrogen, oxygen: bonds of 1.3 to 1.5 Å, and at least 2 Å between two that are not bonded."""
PATTERNS = 256
"""Different molecules in a large set; the others are these with other displacements."""
JITTER = 0.05
"""Å; random displacement of every coordinate."""


def made_up_molecule(atoms: int, rng: np.random.Generator) -> Structure:
    """A random tree of C, N and O with hydrogen on it, about as many, folded so that nothing overlaps.

    Raises:
        ConfigError: no atom.
    """
    if atoms < 1:
        raise ConfigError(f"a molecule has at least one atom, got {atoms}")
    heavy = max(1, round(atoms / 2))
    while True:
        numbers, places = [int(rng.choice(HEAVY))], [np.zeros(3)]
        for _ in range(200 * atoms):
            if len(places) == atoms:
                return Structure(np.array(numbers), np.array(places))
            is_heavy = len(places) < heavy
            parent = int(rng.integers(min(len(places), heavy)))
            step = rng.normal(size=3)
            length = rng.uniform(1.3, 1.5) if is_heavy else rng.uniform(1.0, 1.1)
            new = places[parent] + length * step / np.linalg.norm(step)
            gaps = np.linalg.norm(np.array(places) - new, axis=1)
            limits = np.where(np.arange(len(places)) < heavy, 2.0 if is_heavy else 1.6, 1.5)
            limits[parent] = 0.0
            if (gaps >= limits).all():
                numbers.append(int(rng.choice(HEAVY)) if is_heavy else 1)
                places.append(new)


def made_up_molecules(sizes: Sequence[int], *, seed: int = 0) -> list[Structure]:
    """Molecules with so many atoms each, H C N O, named `molecule-0`, `molecule-1`, ..."""
    rng = np.random.default_rng(seed)
    occurs = Counter(int(size) for size in sizes)
    patterns: dict[int, list[Structure]] = {}
    found = []
    for k, size in enumerate(sizes):
        known = patterns.setdefault(int(size), [])
        if len(known) < max(1, PATTERNS * occurs[int(size)] // len(sizes)):
            known.append(made_up_molecule(int(size), rng))
        pattern = known[k % len(known)]
        moved = pattern.positions + JITTER * rng.normal(size=pattern.positions.shape)
        found.append(pattern.moved(moved, id=f"molecule-{k}"))
    return found


def molecules_between(smallest: int, largest: int, count: int, *, seed: int = 0) -> list[Structure]:
    """So many made-up molecules of `smallest` to `largest` atoms, every size equally likely.

    Raises:
        ConfigError: sizes out of order, or below one atom; no molecule.
    """
    if not (1 <= smallest <= largest and count >= 1):
        raise ConfigError(f"expected at least one molecule of 1 or more atoms, got {count} of {smallest} to {largest}")
    sizes = np.random.default_rng(seed).integers(smallest, largest + 1, size=count)
    return made_up_molecules(sizes.tolist(), seed=seed)


def some_of(structures: Sequence[Structure], count: int, *, seed: int = 0) -> list[Structure]:
    """At most so many of the structures, drawn at random, in their order."""
    if count >= len(structures):
        return list(structures)
    chosen = np.random.default_rng(seed).choice(len(structures), size=count, replace=False)
    return [structures[k] for k in sorted(chosen.tolist())]


def crystal(atoms: int, *, seed: int = 0) -> Structure:
    """A periodic cell of rock salt MgO (4.21 Å) with about so many atoms, as near to a cube as that allows, every
    coordinate displaced by 0.05 Å. Always the same density.

    Raises:
        ConfigError: fewer atoms than the 8 of the cubic cell.
    """
    if atoms < 8:
        raise ConfigError(f"a cell of MgO has at least 8 atoms, got {atoms}")
    cells = atoms / 8
    edge = max(1, round(cells ** (1 / 3)))
    choices = [(a, b, c) for a in (edge - 1, edge, edge + 1) for b in (a, a + 1) for c in (b, b + 1) if a > 0]
    shape = min(choices, key=lambda abc: (abs(abc[0] * abc[1] * abc[2] - cells), abc[2] - abc[0]))
    unit = bulk("MgO", "rocksalt", a=4.21, cubic=True)
    whole = make_supercell(unit, np.diag(shape))
    whole.positions += JITTER * np.random.default_rng(seed).normal(size=whole.positions.shape)
    return from_ase(whole, id=f"MgO-{len(whole)}")


def labelled_at_random(
    structures: Sequence[Structure], *, probes: int = 1, hessian: bool = False, seed: int = 0
) -> Dataset:
    """The structures with energies, forces, `H v` along Rademacher probes, and Hessians: all of them random numbers."""
    rng = np.random.default_rng(seed)
    sizes = torch.tensor([len(s) for s in structures])
    atoms = int(sizes.sum())

    def normal(*shape: int) -> Float[torch.Tensor, "*shape"]:
        values: Float[Array, "*shape"] = rng.standard_normal(shape)
        return torch.from_numpy(values)

    labels = Labels(
        n_atoms=sizes,
        energy=normal(len(sizes)),
        forces=normal(atoms, 3),
        probes=normal(probes, atoms, 3).sign() if probes else None,
        hvp=normal(probes, atoms, 3) if probes else None,
        hessian=normal(int((9 * sizes**2).sum())) if hessian else None,
    )
    return Dataset(tuple(structures), labels, source="random labels")
