"""Molecules that the boundaries of a cell cut are made whole again."""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

from hesse.coarse.atom_frames import AtomFrame, AtomTopology
from hesse.errors import GeometryError

__all__ = ["MoleculeTrees", "minimum_image"]

_LARGEST = 5000
"""Atoms of a molecule whose bonds are sought among all its pairs."""
_STRETCH: Final = 2.0
_SLACK: Final = 2.0
"""Å; a bond longer than twice its typical length and this is none: the molecule is in pieces."""


def minimum_image(
    vectors: Float[Array, "*n 3"], cell: Float[Array, "3 3"], pbc: tuple[bool, bool, bool]
) -> Float[Array, "*n 3"]:
    """The periodic images of vectors that lie in the cell around the origin: the shortest images of vectors that are
    shorter than half the distance of the faces of the cell.

    Args:
        vectors: Å.
        cell: lattice vectors as rows.
        pbc: periodic directions.

    Returns:
        Å.
    """
    if not any(pbc):
        return vectors
    full = np.where(np.asarray(pbc)[:, None], cell, np.eye(3))
    shifts = np.round(vectors @ np.linalg.inv(full)) * np.asarray(pbc)
    return np.asarray(vectors - shifts @ full)


class MoleculeTrees:
    """For each atom the atom of its molecule to which it is bonded on the way to the first one.

    The tree of a molecule is the one of shortest total length in a frame (minimum images), which follows its bonds.
    Molecules of one kind get the same tree.

    Args:
        topology: the molecules.
        frame: a frame, from which the trees are made.

    Raises:
        GeometryError: a molecule whose parts are farther from each other than half the cell.
    """

    def __init__(self, topology: AtomTopology, frame: AtomFrame) -> None:
        self._topology = topology
        trees: dict[str, list[tuple[Int[Array, "m"], Int[Array, "m"]]]] = {}
        collected: list[tuple[list[Int[Array, "m"]], ...]] = []
        for name, atoms in zip(topology.molecule_names, topology.atoms_of_molecules(), strict=True):
            if name not in trees:
                trees[name] = _tree(name, frame.positions[atoms], frame)
            kind = list(trees).index(name) * len(topology)
            for depth, (children, parents) in enumerate(trees[name]):
                if depth == len(collected):
                    collected.append(([], [], []))
                collected[depth][0].append(atoms[children])
                collected[depth][1].append(atoms[parents])
                collected[depth][2].append(kind + children)
        self._levels = [
            (children, parents, _typical(np.linalg.norm(_bonds(frame, children, parents), axis=1), same))
            for children, parents, same in (tuple(map(np.concatenate, level)) for level in collected)
        ]

    def whole(self, frame: AtomFrame, where: str = "the frame") -> Float[Array, "atoms 3"]:
        """Positions of whole molecules.

        Args:
            frame: any frame of the same atoms.
            where: the frame, for the message.

        Returns:
            Å; the first atom of each molecule stays where it is.

        Raises:
            GeometryError: a molecule in pieces, far from each other compared with the same atoms of other molecules in
                the first frame.
        """
        positions = np.array(frame.positions)
        for children, parents, typical in self._levels:
            bonds = _bonds(frame, children, parents)
            lengths = np.linalg.norm(bonds, axis=1)
            broken = np.flatnonzero(lengths > _STRETCH * typical + _SLACK)
            if len(broken):
                k = int(broken[(lengths - typical)[broken].argmax()])
                i, j = sorted((int(children[k]), int(parents[k])))
                molecule = int(self._topology.molecules[i])
                raise GeometryError(
                    f"{where}: molecule {molecule} ({self._topology.molecule_names[molecule]}) is in pieces: its atoms "
                    f"{i} and {j} are {lengths[k]:.3g} Å apart, {typical[k]:.3g} Å in the others. Frames with atoms "
                    "wrapped into a cell need that cell with its pbc; others must hold whole molecules"
                )
            positions[children] = positions[parents] + bonds
        return positions


def _bonds(frame: AtomFrame, children: Int[Array, "m"], parents: Int[Array, "m"]) -> Float[Array, "m 3"]:
    """Vectors from parents to children, nearest images."""
    return minimum_image(frame.positions[children] - frame.positions[parents], frame.cell, frame.pbc)


def _typical(lengths: Float[Array, "m"], same: Int[Array, "m"]) -> Float[Array, "m"]:
    """The median of the lengths of the same bond in all molecules."""
    _, inverse = np.unique(same, return_inverse=True)
    medians = np.array([np.median(lengths[inverse == k]) for k in range(int(inverse.max(initial=-1)) + 1)])
    return medians[inverse]


def _tree(name: str, positions: Float[Array, "n 3"], frame: AtomFrame) -> list[tuple[Int[Array, "m"], Int[Array, "m"]]]:
    """Children and parents, by distance (in bonds) from the first atom."""
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

    n = len(positions)
    if n == 1:
        return []
    if n > _LARGEST:
        raise GeometryError(f"molecule {name!r} of {n} atoms: molecules of up to {_LARGEST} atoms are mapped")
    distances = np.empty((n, n))
    for i in range(n):
        distances[i] = np.linalg.norm(minimum_image(positions - positions[i], frame.cell, frame.pbc), axis=1)
    spanning = minimum_spanning_tree(np.maximum(distances, 1e-9))
    periodic = frame.cell[list(frame.pbc)]
    widths = np.abs(1.0 / np.linalg.norm(np.linalg.inv(frame.cell), axis=0)) if all(frame.pbc) else None
    smallest = (
        np.inf
        if not len(periodic)
        else float(np.linalg.norm(periodic, axis=1).min() if widths is None else widths.min())
    )
    if spanning.max() > 0.5 * smallest:
        raise GeometryError(
            f"molecule {name!r}: two of its parts are {spanning.max():.3g} Å apart, more than half the cell "
            f"({smallest:.3g} Å), so that it is not clear where the boundary cuts it. Are its atoms really one "
            "molecule?"
        )
    order, predecessors = breadth_first_order(spanning, 0, directed=False)
    depth = np.zeros(n, dtype=np.int64)
    for i in order[1:]:
        depth[i] = depth[predecessors[i]] + 1
    levels = []
    for d in range(1, int(depth.max()) + 1):
        children = np.flatnonzero(depth == d)
        levels.append((children, predecessors[children].astype(np.int64)))
    return levels
