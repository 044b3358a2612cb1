"""The prior of beads from data: repulsion below the distances that occur, bonds and angles from their fluctuations."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

from hesse.coarse.state_points import StatePoint, check_state_points, state_point_of
from hesse.coarse.wholeness import minimum_image
from hesse.datasets import Dataset
from hesse.errors import MissingLabelError, RequestError
from hesse.models import BeadAngle, BeadBond, BeadMolecule, BeadPrior, BeadPriorConfig, PairRepulsion
from hesse.models.bead_prior import molecule_starts
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Structure, bead_number, find_neighbors, species_name, species_names
from hesse.units import BOLTZMANN

__all__ = ["InternalDistribution", "PairDistribution", "PriorFit", "fit_prior"]

_THRESHOLD: Final = 0.01
"""g(r) from which beads count as seen."""
_BIN: Final = 0.05
"""Å."""
_RANGE: Final = 10.0
"""Å; largest distance of g(r)."""
_FRAMES: Final = 200
"""Frames of each state point that g(r) is made from, evenly spread."""
_LEAST_PAIRS: Final = 3
"""Pairs in a bin below which it counts as empty."""

Bonds = Mapping[tuple[str, ...], Sequence[tuple[int, int]]]
"""Bonds of each kind of molecule, which the types of its beads name."""


@dataclass(frozen=True, eq=False, repr=False)
class PairDistribution(ShortRepr):
    """Distances of two types, of all state points together.

    Attributes:
        types: names of the two bead types.
        distances: Å, centers of the bins.
        g: radial distribution function, without beads that share a bond or an angle.
        temperature: K, mean over the frames.
        repulsion: what was fitted.
    """

    types: tuple[str, str]
    distances: Float[Array, "bins"]
    g: Float[Array, "bins"]
    temperature: float
    repulsion: PairRepulsion


@dataclass(frozen=True, eq=False, repr=False)
class InternalDistribution(ShortRepr):
    """Values of a bond length (Å) or the cosine of an angle within a kind of molecule.

    Attributes:
        name: such as "CH3-CH2" or "CH3-CH2-CH3".
        values: of all molecules and frames.
        term: what was fitted.
    """

    name: str
    values: Float[Array, "values"]
    term: BeadBond | BeadAngle


@dataclass(frozen=True, eq=False, repr=False)
class PriorFit(ShortRepr):
    """A fitted prior and what it was fitted to.

    Attributes:
        potential: the prior.
        pairs: distribution of each pair of types.
        internal: distributions of bonds and angles.
    """

    potential: BeadPrior
    pairs: tuple[PairDistribution, ...]
    internal: tuple[InternalDistribution, ...]

    def rows(self) -> list[dict[str, object]]:
        """The parameters, one row for each term.

        Returns:
            Values for JSON, in eV and Å.
        """
        rows: list[dict[str, object]] = []
        for pair in self.pairs:
            fitted = pair.repulsion
            rows.append(
                {
                    "term": "pair",
                    "beads": "-".join(pair.types),
                    "taper": fitted.taper,
                    "strength": fitted.strength,
                    "steepness": fitted.steepness,
                    "reach": fitted.reach,
                }
            )
        for item in self.internal:
            is_bond = isinstance(item.term, BeadBond)
            center = {"length": item.term.length} if isinstance(item.term, BeadBond) else {"cosine": item.term.cosine}
            rows.append(
                {"term": "bond" if is_bond else "angle", "beads": item.name, **center, "stiffness": item.term.stiffness}
            )
        return rows


def fit_prior(dataset: Dataset, *, temperature: float | None = None, bonds: Bonds | None = None) -> PriorFit:
    """Fit the prior of beads to mapped data.

    The repulsion of two types begins (`taper`) at the first distance with g(r) > 0.01, the smallest of all state
    points; its strength is the mean size of the forces on beads of these types. Bonds and angles get the mean and
    `k_B T / variance` of the data. They are meant to hold beads together where there are no data: what they get wrong,
    the network learns. Source of the repulsion: arXiv 2406.12112.

    Args:
        dataset: beads with forces; periodic.
        temperature: K, of frames whose tags name no state point.
        bonds: bonds of molecules of several beads, by the types of their beads: `{("A", "B", "A"): [(0, 1), (1, 2)]}`.
            By default the shortest tree that connects the beads of a molecule, which is right for chains and branches,
            not for rings.

    Returns:
        The prior.

    Raises:
        MissingLabelError: no forces.
        RequestError: frames without beads, without a cell or without a temperature, a mixture of state points without
            tags, or a pair that never comes near.
    """
    if temperature is not None:
        StatePoint(temperature)  # refuses what is no temperature
    check_state_points(dataset.structures, dataset.source or "the data")
    if dataset.labels.forces is None or not bool(dataset.labels.has("forces").any()):
        raise MissingLabelError(
            f"{dataset.source or 'the data'}: no forces, from which the strength of the prior follows"
        )
    if not all(all(s.pbc) for s in dataset.structures):
        raise RequestError("the prior of pairs needs g(r): periodic boxes in all three directions")
    temperatures = _temperatures(dataset, temperature)
    molecules, internal = _fit_molecules(dataset, temperatures, bonds)
    excluded = _Exclusions(molecules, dataset)
    names = sorted(set(species_names(np.unique(np.concatenate([s.numbers for s in dataset.structures])))))
    strengths = _mean_forces(dataset)
    pairs = []
    for first, second in itertools.combinations_with_replacement(names, 2):
        distribution = _pair_distribution(dataset, first, second, excluded)
        if distribution is None:
            continue
        distances, g, taper = distribution
        beads, total = (sum(strengths[n][k] for n in {first, second}) for k in (0, 1))
        repulsion = PairRepulsion(types=(first, second), taper=taper, strength=total / beads)
        pairs.append(PairDistribution((first, second), distances, g, float(temperatures.mean()), repulsion))
    config = BeadPriorConfig(pairs=tuple(pair.repulsion for pair in pairs), molecules=molecules)
    return PriorFit(BeadPrior(config, tuple(map(bead_number, names))), tuple(pairs), tuple(internal))


def _temperatures(dataset: Dataset, temperature: float | None) -> Float[Array, "structures"]:
    """Temperature of each frame, from its tag. Raises RequestError if one has none."""
    values = []
    for structure in dataset.structures:
        point = state_point_of(structure)
        if point is None and temperature is None:
            raise RequestError(
                f'structure "{structure.id}": its tag {structure.tag!r} names no temperature; give it (temperature, '
                "--temperature), or map with hesse coarse map"
            )
        values.append(point.temperature if point is not None else float(temperature or 0.0))
    return np.array(values)


def _mean_forces(dataset: Dataset) -> dict[str, tuple[int, float]]:
    """By bead type the number of beads and the sum of the sizes of their forces."""
    assert dataset.labels.forces is not None
    sizes = np.linalg.norm(dataset.labels.forces.numpy(), axis=1)
    numbers = dataset.numbers.numpy()
    return {
        species_name(z): (int((numbers == z).sum()), float(sizes[numbers == z].sum()))
        for z in np.unique(numbers).tolist()
    }


# --- pairs ---------------------------------------------------------------------------------------------------------


class _Exclusions:
    """Pairs of beads of a frame that share a bond or an angle."""

    def __init__(self, molecules: tuple[BeadMolecule, ...], dataset: Dataset) -> None:
        self.molecules = molecules
        self._known: dict[bytes, Int[Array, "pairs"]] = {}

    def keys(self, structure: Structure) -> Int[Array, "pairs"]:
        """`first * n + second` of the excluded pairs, both ways."""
        content = structure.numbers.tobytes()
        if content not in self._known:
            n, keys = len(structure), [np.zeros(0, dtype=np.int64)]
            starts = molecule_starts(self.molecules, structure.numbers, np.array([n]), (structure.id,))
            for molecule, first in zip(self.molecules, starts, strict=True):
                ends = [bond.beads for bond in molecule.bonds] + [(a.beads[0], a.beads[2]) for a in molecule.angles]
                keys += [(first + i) * n + first + j for a, b in ends for i, j in ((a, b), (b, a))]
            self._known[content] = np.concatenate(keys)
        return self._known[content]


def _pair_distribution(
    dataset: Dataset, first: str, second: str, excluded: _Exclusions
) -> tuple[Float[Array, "bins"], Float[Array, "bins"], float] | None:
    """Distances, g(r) of all frames, and the taper; None if there are no such pairs. Raises RequestError if beads of
    these types never come near."""
    a, b = bead_number(first), bead_number(second)
    edges = np.arange(0.0, _RANGE + 0.5 * _BIN, _BIN)
    shells = 4.0 / 3.0 * math.pi * np.diff(edges**3)
    totals, ideals, tapers = np.zeros(len(shells)), np.zeros(len(shells)), []
    by_tag: dict[str, list[Structure]] = {}
    for structure in dataset.structures:
        by_tag.setdefault(structure.tag, []).append(structure)
    for structures in by_tag.values():
        counts, ideal = np.zeros(len(shells)), np.zeros(len(shells))
        for structure in structures[:: max(1, len(structures) // _FRAMES)]:
            reach = min(_RANGE, _half_width(structure.cell))
            pairs = find_neighbors(structure.positions, structure.cell, structure.pbc, reach)
            chosen = (structure.numbers[pairs.centers] == a) & (structure.numbers[pairs.neighbors] == b)
            keys = pairs.centers[chosen] * len(structure) + pairs.neighbors[chosen]
            within = ~np.isin(keys, excluded.keys(structure))
            counts += np.histogram(pairs.distances[chosen][within], edges)[0]
            n_a, n_b = int((structure.numbers == a).sum()), int((structure.numbers == b).sum())
            volume = abs(float(np.linalg.det(structure.cell)))
            ideal += n_a * (n_b - (a == b)) / volume * shells * (edges[1:] <= reach)
        if ideal.any():
            g = np.divide(counts, ideal, out=np.zeros_like(counts), where=ideal > 0)
            seen = np.flatnonzero((g > _THRESHOLD) & (counts >= _LEAST_PAIRS))
            if len(seen):
                tapers.append(float(edges[seen[0]] + 0.5 * _BIN))
        totals, ideals = totals + counts, ideals + ideal
    if not ideals.any():
        return None
    if not tapers:
        raise RequestError(
            f"beads {first} and {second} are nowhere closer than {_RANGE:g} Å in these data: the prior would not know "
            "where they repel each other. Use more frames"
        )
    known = ideals > 0
    return (edges[:-1] + 0.5 * _BIN)[known], totals[known] / ideals[known], min(tapers)


def _half_width(cell: Float[Array, "3 3"]) -> float:
    return 0.5 * float((1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)).min())


# --- molecules -----------------------------------------------------------------------------------------------------


def _fit_molecules(
    dataset: Dataset, temperatures: Float[Array, "structures"], bonds: Bonds | None
) -> tuple[tuple[BeadMolecule, ...], list[InternalDistribution]]:
    # Joined data have one text for each part.
    texts = dataset.metadata.get("molecules", "").split("; ")
    kinds = [tuple(kind) for text in texts if text for kind in json.loads(text) if len(kind) > 1]
    kinds = list(dict.fromkeys(kinds))
    for kind in bonds or {}:
        if kind not in kinds:
            kinds.append(kind)
    molecules, internal = [], []
    plain = tuple(BeadMolecule(types=kind) for kind in kinds)
    for k, kind in enumerate(kinds):
        frames = _molecule_positions(dataset, plain, k)
        if not sum(len(frame) for frame in frames):
            continue
        energies = np.concatenate([np.full(len(f), BOLTZMANN * t) for f, t in zip(frames, temperatures, strict=True)])
        positions = np.concatenate(frames)
        connections = list((bonds or {}).get(kind, [])) or _tree(positions)
        fitted_bonds, fitted_angles = [], []
        for i, j in connections:
            values = np.linalg.norm(positions[:, i] - positions[:, j], axis=1)
            stiffness = _stiffness(values, energies)
            bond = BeadBond(beads=(i, j), length=float(values.mean()), stiffness=stiffness)
            fitted_bonds.append(bond)
            internal.append(InternalDistribution(f"{kind[i]}-{kind[j]}", values, bond))
        for i, j, m in _angles(connections):
            one, two = positions[:, i] - positions[:, j], positions[:, m] - positions[:, j]
            values = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
            angle = BeadAngle(beads=(i, j, m), cosine=float(values.mean()), stiffness=_stiffness(values, energies))
            fitted_angles.append(angle)
            internal.append(InternalDistribution(f"{kind[i]}-{kind[j]}-{kind[m]}", values, angle))
        molecules.append(BeadMolecule(types=kind, bonds=tuple(fitted_bonds), angles=tuple(fitted_angles)))
    return tuple(molecules), internal


def _stiffness(values: Float[Array, "n"], energies: Float[Array, "n"]) -> float:
    """k of `½ k (x − x0)²` with the mean thermal energy and the variance of the data."""
    variance = float(values.var())
    if variance < 1e-8:
        raise RequestError(
            "a bond or angle between beads does not fluctuate (a rigid molecule, or a single one): there is no "
            "stiffness to fit. Use one bead for a rigid molecule"
        )
    return float(energies.mean()) / variance


def _molecule_positions(
    dataset: Dataset, kinds: tuple[BeadMolecule, ...], kind: int
) -> list[Float[Array, "m beads 3"]]:
    """Positions of all molecules of a kind, nearest images of the first bead's neighbors, for each frame."""
    size, frames = len(kinds[kind].types), []
    for structure in dataset.structures:
        n = np.array([len(structure)])
        starts = molecule_starts(kinds, structure.numbers, n, (structure.id,))[kind]
        positions = structure.positions[starts[:, None] + np.arange(size)]
        for i in range(1, size):
            step = minimum_image(positions[:, i] - positions[:, i - 1], structure.cell, structure.pbc)
            positions[:, i] = positions[:, i - 1] + step
        frames.append(positions)
    return frames


def _tree(positions: Float[Array, "m beads 3"]) -> list[tuple[int, int]]:
    """The tree of shortest mean distances."""
    from scipy.sparse.csgraph import minimum_spanning_tree

    distances = np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1).mean(0)
    edges = minimum_spanning_tree(distances).tocoo()
    return sorted((min(int(i), int(j)), max(int(i), int(j))) for i, j in zip(edges.row, edges.col, strict=True))


def _angles(bonds: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    neighbors: dict[int, list[int]] = {}
    for i, j in bonds:
        neighbors.setdefault(i, []).append(j)
        neighbors.setdefault(j, []).append(i)
    return [(i, j, m) for j, ends in sorted(neighbors.items()) for i, m in itertools.combinations(sorted(ends), 2)]
