"""Structures for benchmarks: random molecules and crystals of any size, with random labels.

Time and memory of a step on them are those of real structures. The labels are random numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from ase.build import bulk, make_supercell
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets import Dataset, StructuresLike, as_structures
from hesse.errors import ConfigError
from hesse.structures import Properties, Structure, from_ase

__all__ = [
    "random_molecule",
    "random_molecules",
    "random_molecules_in_range",
    "random_subset",
    "rocksalt_cell",
    "with_random_labels",
]

HEAVY_ELEMENTS = (6, 7, 8)
"""Carbon, nitrogen, oxygen: bonds of 1.3 to 1.5 Å, and at least 2 Å between atoms that are not bonded."""
MAX_DISTINCT_MOLECULES = 256
"""Number of different molecules in a large set; the others are copies of these with other displacements."""
DISPLACEMENT = 0.05
"""Standard deviation of the random displacement of every coordinate, Å."""


def random_molecule(atoms: int, rng: np.random.Generator) -> Structure:
    """A random tree of C, N and O atoms with about as many hydrogen atoms, without overlapping atoms.

    Args:
        atoms: number of atoms.
        rng: source of random numbers.

    Returns:
        The molecule.

    Raises:
        ConfigError: fewer than one atom.
    """
    if atoms < 1:
        raise ConfigError(f"a molecule has at least one atom, got {atoms}")
    n_heavy = max(1, round(atoms / 2))
    while True:
        numbers, positions = [int(rng.choice(HEAVY_ELEMENTS))], [np.zeros(3)]
        for _ in range(200 * atoms):
            if len(positions) == atoms:
                return Structure(np.array(numbers), np.array(positions))
            is_heavy = len(positions) < n_heavy
            parent = int(rng.integers(min(len(positions), n_heavy)))
            direction = rng.normal(size=3)
            length = rng.uniform(1.3, 1.5) if is_heavy else rng.uniform(1.0, 1.1)
            candidate = positions[parent] + length * direction / np.linalg.norm(direction)
            distances = np.linalg.norm(np.array(positions) - candidate, axis=1)
            min_distances = np.where(np.arange(len(positions)) < n_heavy, 2.0 if is_heavy else 1.6, 1.5)
            min_distances[parent] = 0.0
            if (distances >= min_distances).all():
                numbers.append(int(rng.choice(HEAVY_ELEMENTS)) if is_heavy else 1)
                positions.append(candidate)


def random_molecules(sizes: Sequence[int], *, seed: int = 0) -> list[Structure]:
    """Random molecules of H, C, N and O with given sizes.

    Args:
        sizes: number of atoms of each molecule.
        seed: seed of the random numbers.

    Returns:
        The molecules, with ids `molecule-0`, `molecule-1`, ...
    """
    rng = np.random.default_rng(seed)
    size_counts = Counter(int(size) for size in sizes)
    molecules_by_size: dict[int, list[Structure]] = {}
    structures = []
    for k, size in enumerate(sizes):
        same_size = molecules_by_size.setdefault(int(size), [])
        if len(same_size) < max(1, MAX_DISTINCT_MOLECULES * size_counts[int(size)] // len(sizes)):
            same_size.append(random_molecule(int(size), rng))
        template = same_size[k % len(same_size)]
        positions = template.positions + DISPLACEMENT * rng.normal(size=template.positions.shape)
        structures.append(template.with_positions(positions, id=f"molecule-{k}"))
    return structures


def random_molecules_in_range(min_atoms: int, max_atoms: int, count: int, *, seed: int = 0) -> list[Structure]:
    """Random molecules with sizes in a range, every size equally likely.

    Args:
        min_atoms: smallest number of atoms.
        max_atoms: largest number of atoms.
        count: number of molecules.
        seed: seed of the random numbers.

    Returns:
        The molecules.

    Raises:
        ConfigError: a range out of order or below one atom, or fewer than one molecule.
    """
    if not (1 <= min_atoms <= max_atoms and count >= 1):
        raise ConfigError(
            f"expected at least one molecule of 1 or more atoms, got {count} of {min_atoms} to {max_atoms}"
        )
    sizes = np.random.default_rng(seed).integers(min_atoms, max_atoms + 1, size=count)
    return random_molecules(sizes.tolist(), seed=seed)


def random_subset(structures: Sequence[Structure], count: int, *, seed: int = 0) -> list[Structure]:
    """A random subset of structures, in their original order.

    Args:
        structures: the structures.
        count: maximum number of structures in the subset.
        seed: seed of the random numbers.

    Returns:
        The subset; all structures if there are at most `count`.
    """
    if count >= len(structures):
        return list(structures)
    indices = np.random.default_rng(seed).choice(len(structures), size=count, replace=False)
    return [structures[k] for k in sorted(indices.tolist())]


def rocksalt_cell(atoms: int, *, seed: int = 0) -> Structure:
    """A periodic supercell of rock salt MgO (lattice constant 4.21 Å), nearly cubic, every coordinate displaced by
    0.05 Å. The density is the same for all sizes.

    Args:
        atoms: approximate number of atoms.
        seed: seed of the displacements.

    Returns:
        The supercell, with the id `MgO-` and its number of atoms.

    Raises:
        ConfigError: fewer than the 8 atoms of the cubic unit cell.
    """
    if atoms < 8:
        raise ConfigError(f"a cell of MgO has at least 8 atoms, got {atoms}")
    n_unit_cells = atoms / 8
    edge = max(1, round(n_unit_cells ** (1 / 3)))
    choices = [(a, b, c) for a in (edge - 1, edge, edge + 1) for b in (a, a + 1) for c in (b, b + 1) if a > 0]
    shape = min(choices, key=lambda abc: (abs(abc[0] * abc[1] * abc[2] - n_unit_cells), abc[2] - abc[0]))
    unit_cell = bulk("MgO", "rocksalt", a=4.21, cubic=True)
    supercell = make_supercell(unit_cell, np.diag(shape))
    supercell.positions += DISPLACEMENT * np.random.default_rng(seed).normal(size=supercell.positions.shape)
    return from_ase(supercell, id=f"MgO-{len(supercell)}")


def with_random_labels(structures: StructuresLike, *, probes: int = 1, hessian: bool = False, seed: int = 0) -> Dataset:
    """A data set of the structures with random numbers as labels: energies, forces, Hessian-vector products along
    Rademacher probes, and Hessians.

    Args:
        structures: Structures, ASE Atoms, a data set or the path of a file.
        probes: probes per structure.
        hessian: whether to add Hessians.
        seed: seed of the random numbers.

    Returns:
        The data set.
    """
    structures = as_structures(structures)
    rng = np.random.default_rng(seed)
    sizes = torch.tensor([len(s) for s in structures])
    atoms = int(sizes.sum())

    def normal(*shape: int) -> Float[torch.Tensor, "*shape"]:
        values: Float[Array, "*shape"] = rng.standard_normal(shape)
        return torch.from_numpy(values)

    labels = Properties(
        n_atoms=sizes,
        energy=normal(len(sizes)),
        forces=normal(atoms, 3),
        probes=normal(probes, atoms, 3).sign() if probes else None,
        hvp=normal(probes, atoms, 3) if probes else None,
        hessian=normal(int((9 * sizes**2).sum())) if hessian else None,
    )
    return Dataset(structures, labels, source="random labels")
