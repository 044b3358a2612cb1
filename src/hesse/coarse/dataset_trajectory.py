"""All-atom frames in a data set of Hesse: molecules are found by their bonds, or by their size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations_with_replacement
from typing import Final

import numpy as np
from jaxtyping import Int
from numpy import ndarray as Array

from hesse.coarse.atom_frames import AtomFrame, AtomTopology, Trajectory, split_by_molecule
from hesse.datasets import Dataset
from hesse.errors import RequestError
from hesse.structures import BOND_FACTOR, Structure, chemical_formula, species_names, species_radii

__all__ = ["DatasetTrajectory"]

_CLEAR_BOND: Final = 1.15
"""Multiple of the sum of covalent radii; a distance below it is a bond, and no close contact of two molecules."""


class DatasetTrajectory(Trajectory):
    """Frames in a data set, in its order.

    Args:
        dataset: frames of the same atoms, with forces; Hessian-vector products are kept.
        molecule_size: number of consecutive atoms of every molecule; None to find molecules by their bonds in the first
            frame (distances below 1.3 sums of covalent radii, across boundaries too).
        names: names of molecules by their formula; formulas by default.
        frame_time: ps between frames; None if it is not known.

    Raises:
        RequestError: frames of different atoms, atoms that `molecule_size` does not divide or whose bonds connect
            molecules of that size, molecules that the boundaries of a missing cell cut, or molecules of one formula
            with different bonds.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        molecule_size: int | None = None,
        names: dict[str, str] | None = None,
        frame_time: float | None = None,
    ) -> None:
        self.dataset, self.source, self._frame_time = dataset, dataset.source or "the data set", frame_time
        first = dataset.structures[0]
        for structure in dataset.structures:
            if not np.array_equal(structure.numbers, first.numbers):
                raise RequestError(
                    f'{self.source}: frame "{structure.id}" has other atoms ({chemical_formula(structure.numbers)}) '
                    "than "
                    f"the first one ({chemical_formula(first.numbers)}, or another order): a trajectory is of one "
                    "system. Map systems one by one, and join the results (hesse convert)"
                )
        molecules = _by_size(first, molecule_size, self.source) if molecule_size else _by_bonds(first, self.source)
        formulas = [chemical_formula(first.numbers[atoms]) for atoms in split_by_molecule(molecules)]
        renamed = dict(names or {})
        self.topology = AtomTopology(
            names=tuple(species_names(first.numbers)),
            masses=first.atomic_masses,
            molecules=molecules,
            molecule_names=tuple(renamed.get(formula, formula) for formula in formulas),
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[AtomFrame]:
        """See `Trajectory.frames`."""
        labels = self.dataset.labels
        has_forces, has_hvps = labels.has("forces"), labels.has("hvp")
        for i in range(len(self))[start:stop:step]:
            structure, atoms = self.dataset.structures[i], labels.atom_slice(i)
            forces = probes = hvps = None
            if labels.forces is not None and bool(has_forces[i]):
                forces = labels.forces[atoms].numpy()
            if labels.hvp is not None and labels.probes is not None and bool(has_hvps[i]):
                slots = labels.mask("hvp")[:, i]
                probes, hvps = labels.probes[slots, atoms].numpy(), labels.hvp[slots, atoms].numpy()
            time = None if self._frame_time is None else i * self._frame_time
            yield AtomFrame(
                structure.positions, structure.cell, structure.pbc, forces, time, structure.id, probes, hvps
            )


def _by_size(structure: Structure, size: int, source: str) -> Int[Array, "atoms"]:
    if size < 1 or len(structure) % size:
        raise RequestError(f"{source}: {len(structure)} atoms are no multiple of the molecule size {size}")
    molecules = np.arange(len(structure)) // size
    if size > 1:  # beads of single atoms are a choice
        first, second = _bonds(structure, _CLEAR_BOND)
        wrong = np.flatnonzero(molecules[first] != molecules[second])
        if len(wrong):
            i, j = sorted((int(first[wrong[0]]), int(second[wrong[0]])))
            count = len({(int(a), int(b)) for a, b in zip(first[wrong], second[wrong], strict=True) if a < b})
            raise RequestError(
                f"{source}: bonds connect atoms of different molecules of size {size} (--molecule-size), such as "
                f"atoms {i} and {j} ({count} bonds in the first frame). Give the number of atoms of one molecule, or "
                "leave the size out to find molecules by their bonds"
            )
    return molecules


def _bonds(structure: Structure, factor: float) -> tuple[Int[Array, "bonds"], Int[Array, "bonds"]]:
    """Atoms closer than a multiple of the sum of their covalent radii, across boundaries too; each pair both ways."""
    radii = species_radii(structure.numbers)
    pairs = structure.neighbors(float(2.0 * factor * radii.max()) + 1e-9)
    bonded = pairs.distances < factor * (radii[pairs.centers] + radii[pairs.neighbors])
    return pairs.centers[bonded], pairs.neighbors[bonded]


def _by_bonds(structure: Structure, source: str) -> Int[Array, "atoms"]:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    first, second = _bonds(structure, BOND_FACTOR)
    n = len(structure)
    components = connected_components(coo_matrix((np.ones(len(first)), (first, second)), shape=(n, n)), directed=False)
    molecules = components[1]
    # In order of their first atoms.
    _, start, inverse = np.unique(molecules, return_index=True, return_inverse=True)
    rank = np.empty(len(start), dtype=np.int64)
    rank[np.argsort(start)] = np.arange(len(start))
    molecules = rank[inverse]
    _check_pieces(structure, molecules, source)
    _check_isomers(structure, molecules, first, second, source)
    return molecules


def _check_pieces(structure: Structure, molecules: Int[Array, "atoms"], source: str) -> None:
    """Refuse fragments that are pieces of other molecules: lone atoms of an element that others have bonded (not so
    noble gases and ions), and without a cell any two that add up to a third."""
    kinds = Counter(tuple(sorted(structure.numbers[atoms].tolist())) for atoms in split_by_molecule(molecules))
    bonded = {number for kind in kinds if len(kind) > 1 for number in kind}
    pieces = [kind for kind in kinds if len(kind) == 1 and kind[0] in bonded]
    if not all(structure.pbc) and not pieces:
        sums = {tuple(sorted((*a, *b))): (a, b) for a, b in combinations_with_replacement(kinds, 2)}
        pieces = [part for kind in kinds if kind in sums for part in dict.fromkeys(sums[kind])]
    if pieces:
        found = ", ".join(f"{count} {chemical_formula(list(kind))}" for kind, count in kinds.items())
        cell = "" if all(structure.pbc) else ", and the frames have no periodic cell, which cut molecules need"
        raise RequestError(
            f"{source}: molecules seem to be in pieces: the bonds of the first frame make {found}{cell}. Give frames "
            "with their cell and pbc, the number of atoms of a molecule (--molecule-size), or a topology (--topology)"
        )


def _check_isomers(
    structure: Structure,
    molecules: Int[Array, "atoms"],
    first: Int[Array, "bonds"],
    second: Int[Array, "bonds"],
    source: str,
) -> None:
    """Molecules of one formula must have the same bonds between elements."""
    bonds: list[Counter[tuple[int, int]]] = [Counter() for _ in range(int(molecules.max()) + 1)]
    for m, a, b in zip(
        molecules[first].tolist(), structure.numbers[first].tolist(), structure.numbers[second].tolist(), strict=True
    ):
        bonds[m][(min(a, b), max(a, b))] += 1
    known: dict[str, tuple[int, Counter[tuple[int, int]]]] = {}
    for m, (kind, atoms) in enumerate(zip(bonds, split_by_molecule(molecules), strict=True)):
        formula = chemical_formula(structure.numbers[atoms])
        other, expected = known.setdefault(formula, (m, kind))
        if kind != expected:
            raise RequestError(
                f"{source}: molecules of two kinds have the formula {formula}: molecules {other} and {m} have "
                "different bonds. Give a topology with their names (--topology), or their size (--molecule-size) if a "
                "bond is only stretched"
            )
