"""Is the end of a path the molecule that was meant? Compared by bonds, then by the distance after superposition."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hesse.pes.geometry_changes import displacement
from hesse.structures import Structure, bonded_pairs

__all__ = ["SAME_GEOMETRY", "EndComparison", "EndMatch", "compare_end", "match_ends"]

SAME_GEOMETRY = 0.05
"""Å; two ends that are closer than this to each other are one geometry: there is no reaction between them."""
_SAME_RMSD = 0.2
"""Å; the same minimum, relaxed from two sides, is closer than this to itself."""
_SAME_ENERGY = 0.02
"""eV; likewise."""


class EndMatch(StrEnum):
    """How the end of a path compares with the molecule that was expected there."""

    SAME = "same"
    """The same minimum."""
    CONFORMER = "conformer"
    """The same bonds, another geometry."""
    RELABELED = "relabeled"
    """The same molecule, but atoms of one element have exchanged their places."""
    DIFFERENT = "different"
    """Other bonds."""

    @property
    def rank(self) -> int:
        """0 for the best match."""
        return list(EndMatch).index(self)


@dataclass(frozen=True)
class EndComparison:
    """The end of a path beside the molecule that was expected.

    Attributes:
        match: how they compare.
        rmsd: Å, after superposition.
        formed: pairs of atoms that are bonded at the end of the path only.
        broken: pairs of atoms that are bonded in the expected molecule only.
    """

    match: EndMatch
    rmsd: float
    formed: tuple[tuple[int, int], ...]
    broken: tuple[tuple[int, int], ...]


def compare_end(expected: Structure, end: Structure, energy_difference: float = 0.0) -> EndComparison:
    """Compare the end of a path with the molecule that was expected there.

    Mirror images, and isomers that differ in their arrangement in space only, count as conformers: bonds do not tell
    them apart.

    Args:
        expected: the relaxed molecule.
        end: the relaxed end of the path, with the same atoms in the same order.
        energy_difference: of the two, eV.

    Returns:
        How they compare.
    """
    change = displacement(expected, end)
    if not (change.formed or change.broken):
        same = change.rmsd < _SAME_RMSD and abs(energy_difference) < _SAME_ENERGY
        match = EndMatch.SAME if same else EndMatch.CONFORMER
    else:
        match = EndMatch.RELABELED if _same_molecule(expected, end) else EndMatch.DIFFERENT
    return EndComparison(match, change.rmsd, change.formed, change.broken)


def match_ends(
    reactant: tuple[Structure, float], product: tuple[Structure, float], ends: tuple[tuple[Structure, float], ...]
) -> tuple[tuple[int, int], tuple[EndComparison, EndComparison], bool]:
    """Find which end of a path belongs to the reactant and which to the product.

    Args:
        reactant: the relaxed reactant and its energy (eV).
        product: the relaxed product and its energy.
        ends: both relaxed ends of the path and their energies.

    Returns:
        Indices of the ends of the reactant and of the product; how they compare; and whether the path is one of this
        reaction: both ends are the molecules that were meant. Where reactant and product have the same bonds, only the
        same minima count; where they are the same molecule with exchanged atoms, exchanged atoms do not.
    """
    options = []
    for order in ((0, 1), (1, 0)):
        pair = tuple(
            compare_end(expected[0], ends[k][0], ends[k][1] - expected[1])
            for k, expected in zip(order, (reactant, product), strict=True)
        )
        options.append((sum(c.match.rank for c in pair), sum(c.rmsd for c in pair), order, (pair[0], pair[1])))
    _, _, order, matches = min(options, key=lambda option: option[:2])
    between = compare_end(reactant[0], product[0], product[1] - reactant[1]).match
    worst = {
        EndMatch.SAME: EndMatch.SAME,
        EndMatch.CONFORMER: EndMatch.SAME,
        EndMatch.RELABELED: EndMatch.CONFORMER,
        EndMatch.DIFFERENT: EndMatch.RELABELED,
    }[between]
    return order, matches, all(c.match.rank <= worst.rank for c in matches)


def _same_molecule(first: Structure, second: Structure) -> bool:
    """Whether the bonds of both are the same up to an exchange of atoms of one element."""
    import networkx  # type: ignore[import-untyped]

    graphs = []
    for structure in (first, second):
        graph = networkx.Graph()
        graph.add_nodes_from((i, {"element": int(z)}) for i, z in enumerate(structure.numbers))
        graph.add_edges_from(bonded_pairs(structure).tolist())
        graphs.append(graph)
    return bool(networkx.is_isomorphic(*graphs, node_match=lambda a, b: a["element"] == b["element"]))
