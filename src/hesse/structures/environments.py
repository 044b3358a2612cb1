"""Whether a structure resembles the training data of a model: a summary of atomic environments, and the comparison.

The surroundings of an atom are described by a short vector (`hesse.structures.environment_vectors`). The summary keeps,
for each element, a metric from the covariance of its vectors and some training environments that lie far from each
other. The distance of an atom is that to the nearest of them. Its limit is the distance that 99 % of training
structures keep when a quarter of the data, other molecules, is left out: distances beyond what new structures of the
same kind have.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

from hesse.structures.charge_state import electronic_state
from hesse.structures.environment_vectors import ENVIRONMENT_CUTOFF, VECTOR_SIZE, environment_vectors
from hesse.structures.pairs import find_neighbors
from hesse.structures.species import is_bead, is_species, species_name, species_names, species_radii
from hesse.structures.structure import Structure

__all__ = ["MAX_CHARGE_STATES", "Extrapolation", "TrainingEnvironments", "describe_states", "environment_sample"]

_MAX_STRUCTURES, _MAX_ATOMS = 2000, 40_000
"""Size of the sample of the training data."""
_KEPT, _KEPT_PER_ELEMENT = 256, 8
"""Training environments that the summary keeps, altogether and at least for each element."""
_FOLDS = 4
_QUANTILE = 0.99
_MIN_LIMIT, _MIN_LIMIT_PERIODIC = 2.0, 4.5
"""Least limits of distances, for data of (nearly) one geometry. Larger for periodic data: in a small cell an atom
meets several images of the same neighbor, so that environments vary less than in larger cells of the same crystal."""
_PRIOR_ATOMS = 40
"""Weight of the variances of all elements, as a number of atoms, in the covariance of one."""
_MIN_VARIANCE = 1e-2
_CONTACT, _SHORTER = 1.5, 0.85
"""A pair of elements closer than 1.5 sums of covalent radii and than 0.85 of its shortest training distance is new."""
MAX_CHARGE_STATES = 256
"""Charges and multiplicities that the summary keeps."""
_MAX_TEXT = 4_000_000
"""Characters of a summary in a file, far above those of any that is written."""


@dataclass(frozen=True)
class Extrapolation:
    """How far a structure is from the training data of a model.

    Attributes:
        grade: the largest ratio of a distance to its limit: above 1, the structure is outside what the model was
            trained on, and its energies and forces there are not to be trusted.
        atom: index of the atom with this grade.
        reason: what was found, as a text.
    """

    grade: float
    atom: int
    reason: str

    @property
    def outside(self) -> bool:
        """Whether the structure is outside the training data."""
        return self.grade > 1.0


def environment_sample(n_atoms: Int[Array, "structures"]) -> list[int]:
    """Choose the structures of a data set that a summary is made from: all of small data, always the same of large.

    Args:
        n_atoms: number of atoms of each structure.

    Returns:
        Indices of structures, ascending.
    """
    order = np.random.default_rng(0).permutation(len(n_atoms))[:_MAX_STRUCTURES]
    within = np.cumsum(n_atoms[order]) <= _MAX_ATOMS
    within[:1] = True
    return sorted(order[within].tolist())


@dataclass(frozen=True, eq=False)
class _Element:
    """Training environments of one element: `(x - mean) @ metric` are coordinates in which they have unit variance."""

    mean: Float[Array, "d"]
    metric: Float[Array, "d d"]
    kept: Float[Array, "k d"]

    @classmethod
    def fit(cls, vectors: Float[Array, "m d"], pooled: Float[Array, "d"], n_kept: int) -> _Element:
        mean = vectors.mean(axis=0)
        centered = vectors - mean
        covariance = (centered.T @ centered + _PRIOR_ATOMS * np.diag(pooled)) / (len(vectors) + _PRIOR_ATOMS)
        metric = np.linalg.cholesky(np.linalg.inv(covariance + 0.1 * np.diag(pooled)))
        # Rounded as in a file, so that a model gives the same grades before and after it is stored.
        mean, metric = mean.astype(np.float32).astype(float), metric.astype(np.float32).astype(float)
        selected = _far_apart((vectors - mean) @ metric, n_kept)
        return cls(mean, metric, np.clip(selected, -6e4, 6e4).astype(np.float16).astype(float))

    def distances(self, vectors: Float[Array, "m d"]) -> Float[Array, "m"]:
        points = (vectors - self.mean) @ self.metric
        squares = (points**2).sum(1)[:, None] + (self.kept**2).sum(1) - 2.0 * points @ self.kept.T
        return np.sqrt(np.maximum(squares.min(axis=1), 0.0))


@dataclass(frozen=True, eq=False)
class TrainingEnvironments:
    """A summary of the atomic environments in training data, some kB.

    Attributes:
        n_structures: number of structures it was made from.
        limit: largest distance of an atom within the training data, dimensionless.
        elements: by atomic number.
        shortest: Å, the shortest distance of each pair of elements (atomic numbers, the smaller first) below 5 Å.
        charge_states: charges and multiplicities of the structures; None if they were not recorded.
    """

    n_structures: int
    limit: float
    elements: Mapping[int, _Element]
    shortest: Mapping[tuple[int, int], float]
    charge_states: tuple[tuple[int, int], ...] | None = None

    @classmethod
    def from_structures(cls, structures: Sequence[Structure]) -> TrainingEnvironments:
        """Summarize training data. Of large data, use those that `environment_sample` chooses.

        Args:
            structures: the structures; those of one group (molecule) are left out together to find the limit.

        Returns:
            The summary.

        Raises:
            ValueError: there are no structures.
        """
        if not structures:
            raise ValueError("there are no structures to summarize")
        vectors = np.concatenate([environment_vectors(s) for s in structures])
        numbers = np.concatenate([s.numbers for s in structures])
        owner = np.repeat(np.arange(len(structures)), [len(s) for s in structures])
        names = [s.group or s.id for s in structures]
        if len(set(names)) < _FOLDS:
            names = [str(i) for i in range(len(structures))]
        least = _MIN_LIMIT_PERIODIC if any(s.periodic for s in structures) else _MIN_LIMIT
        limit = max(least, _limit(vectors, numbers, owner, names))
        states = sorted({_state(s) for s in structures})[:MAX_CHARGE_STATES]
        fitted = _fit(vectors, numbers)
        return cls(len(structures), float(np.float32(limit)), fitted, _shortest(structures), tuple(states))

    def compare(self, structure: Structure) -> Extrapolation:
        """Compare a structure with the training data.

        Args:
            structure: any structure.

        Returns:
            Its grade, the atom that determines it, and why.
        """
        symbols = species_names(structure.numbers)
        for i, z in enumerate(structure.numbers.tolist()):
            if z not in self.elements:
                return Extrapolation(np.inf, i, f"the training data hold no {symbols[i]}")
        grades = _distances(self.elements, environment_vectors(structure), structure.numbers) / self.limit
        atom = int(grades.argmax())
        grade, contact = float(grades[atom]), self._closest_contact(structure)
        if contact is not None and contact[0] > max(grade, 1.0):
            grade, i, j, distance, shortest = contact
            known = "none below 5 Å" if shortest is None else f"none below {shortest:.2f} Å"
            name = f"{symbols[i]}{i}-{symbols[j]}{j}"
            return Extrapolation(grade, i, f"{name} at {distance:.2f} Å, of which the training data have {known}")
        word = "beyond" if grade > 1.0 else "within"
        return Extrapolation(
            grade, atom, f"surroundings of {symbols[atom]}{atom} {word} the training data ({grade:.1f} of the limit)"
        )

    def _closest_contact(self, structure: Structure) -> tuple[float, int, int, float, float | None] | None:
        """The pair of atoms that is most too close: its grade, the atoms, their distance and the shortest known."""
        radii, numbers = species_radii(structure.numbers), structure.numbers
        longest = float(2.0 * _CONTACT * radii.max())
        pairs = find_neighbors(structure.positions, structure.cell, structure.pbc, longest)
        near = pairs.distances < _CONTACT * (radii[pairs.centers] + radii[pairs.neighbors])
        if not near.any():
            return None
        first, second, r = pairs.centers[near], pairs.neighbors[near], np.maximum(pairs.distances[near], 1e-6)
        keys, inverse = _pair_keys(numbers[first], numbers[second])
        known = np.array([self.shortest.get(key, np.nan) for key in keys])[inverse]
        grades = _SHORTER * np.where(np.isnan(known), ENVIRONMENT_CUTOFF, known) / r
        k = int(grades.argmax())
        shortest = None if np.isnan(known[k]) else float(known[k])
        return float(grades[k]), int(first[k]), int(second[k]), float(r[k]), shortest

    def other_charge_state(self, structure: Structure) -> tuple[int, int] | None:
        """Compare charge and multiplicity of a structure with those of the training data.

        Args:
            structure: any structure.

        Returns:
            Its charge and multiplicity if no training structure has them; None if one has, or nothing was recorded.
        """
        state = _state(structure)
        return None if self.charge_states is None or state in self.charge_states else state

    def describe(self) -> str:
        """Describe the summary.

        Returns:
            A line: the number of structures, the elements with the numbers of environments that are kept, and charges
            and multiplicities if they were recorded.
        """
        counts = ", ".join(f"{species_name(z)} {len(e.kept)}" for z, e in sorted(self.elements.items()))
        states = "" if self.charge_states is None else f"; {describe_states(self.charge_states)}"
        return f"of {self.n_structures} structures; kept {counts}; limit {self.limit:.3g}{states}"

    def to_text(self) -> str:
        """Convert to JSON, for the header of a file.

        Returns:
            The text.
        """
        return json.dumps(
            {
                "version": 1,
                "structures": self.n_structures,
                "limit": self.limit,
                "shortest": [[a, b, round(r, 3)] for (a, b), r in sorted(self.shortest.items())],
                "elements": {
                    str(z): [_encode(e.mean, "<f4"), _encode(e.metric, "<f4"), _encode(e.kept, "<f2")]
                    for z, e in sorted(self.elements.items())
                },
                **({} if self.charge_states is None else {"charge_states": [list(s) for s in self.charge_states]}),
            }
        )

    @classmethod
    def from_text(cls, text: str) -> TrainingEnvironments:
        """Read the text of `to_text`.

        Args:
            text: JSON.

        Returns:
            The summary.

        Raises:
            ValueError, KeyError, TypeError: not such a text.
        """
        if len(text) > _MAX_TEXT:
            raise ValueError("a summary of the training data that is too long")
        values = json.loads(text)
        if values["version"] != 1:
            raise ValueError(f"a summary of the training data of an unknown version, {values['version']!r}")
        elements = {}
        for z, (mean, metric, vectors) in values["elements"].items():
            matrix = _decode(metric, "<f4").reshape(VECTOR_SIZE, VECTOR_SIZE)
            elements[int(z)] = _Element(
                _decode(mean, "<f4").reshape(VECTOR_SIZE), matrix, _decode(vectors, "<f2").reshape(-1, VECTOR_SIZE)
            )
        if not all(is_species(z) and len(e.kept) for z, e in elements.items()):
            raise ValueError("a summary of the training data with wrong elements")
        limit, shortest = float(values["limit"]), {(int(a), int(b)): float(r) for a, b, r in values["shortest"]}
        if not (np.isfinite(limit) and limit > 0 and np.isfinite(list(shortest.values())).all()):
            raise ValueError("a summary of the training data with wrong numbers")
        states = values.get("charge_states")  # files of older versions have none
        if states is not None:
            states = tuple((int(charge), int(multiplicity)) for charge, multiplicity in states)
            if not states or len(states) > MAX_CHARGE_STATES:
                raise ValueError("a summary of the training data with wrong charge states")
        return cls(int(values["structures"]), limit, elements, shortest, states)


def describe_states(states: Sequence[tuple[int, int]]) -> str:
    """Describe charges and multiplicities.

    Args:
        states: charge and multiplicity of each.

    Returns:
        "charge 0 and multiplicity 1, charge +1 and multiplicity 2 and 3 more".
    """
    shown = [f"charge {charge:+d} and multiplicity {m}".replace("+0", "0") for charge, m in states[:4]]
    return ", ".join(shown) + (f" and {len(states) - 4} more" if len(states) > 4 else "")


def _state(structure: Structure) -> tuple[int, int]:
    n_protons = int(structure.numbers[~is_bead(structure.numbers)].sum())
    return electronic_state(n_protons, structure.charge, structure.multiplicity)


def _encode(values: Float[Array, "*n"], kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode()


def _decode(text: str, kind: str) -> Float[Array, "n"]:
    """Numbers of a text. Raises ValueError if one is not finite."""
    values = np.frombuffer(base64.b64decode(text, validate=True), dtype=kind).astype(float)
    if not np.isfinite(values).all():
        raise ValueError("a summary of the training data with numbers that are not finite")
    return values


def _fit(vectors: Float[Array, "m d"], numbers: Int[Array, "m"]) -> dict[int, _Element]:
    """The environments of each element."""
    elements, counts = np.unique(numbers, return_counts=True)
    squares = [((vectors[numbers == z] - vectors[numbers == z].mean(axis=0)) ** 2).sum(axis=0) for z in elements]
    pooled = np.sum(squares, axis=0) / max(len(numbers) - len(elements), 1) + _MIN_VARIANCE
    shares = np.maximum(_KEPT_PER_ELEMENT, _KEPT * np.sqrt(counts) / np.sqrt(counts).sum()).astype(int)
    return {
        int(z): _Element.fit(vectors[numbers == z], pooled, int(share))
        for z, share in zip(elements, shares, strict=True)
    }


def _far_apart(points: Float[Array, "m d"], count: int) -> Float[Array, "k d"]:
    """Points that cover all: each next one is the farthest from those chosen before, the first the one of the mean."""
    chosen = [int((points**2).sum(axis=1).argmin())]
    distances = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < min(count, len(points)) and distances.max() > 0:
        chosen.append(int(distances.argmax()))
        distances = np.minimum(distances, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return points[chosen]


def _distances(
    elements: Mapping[int, _Element], vectors: Float[Array, "m d"], numbers: Int[Array, "m"]
) -> Float[Array, "m"]:
    """Distance of each atom from the training environments of its element; zero for elements that have none."""
    result = np.zeros(len(numbers))
    for z in np.unique(numbers).tolist():
        if z in elements:
            result[numbers == z] = elements[z].distances(vectors[numbers == z])
    return result


def _limit(
    vectors: Float[Array, "m d"], numbers: Int[Array, "m"], owner: Int[Array, "m"], names: Sequence[str]
) -> float:
    """The distance that 99 % of structures keep from the data without their part; structures of one name stay
    together."""
    labels = np.asarray(names)[owner]
    groups = np.unique(labels)
    if len(groups) < 2:
        return 0.0
    order = np.random.default_rng(0).permutation(len(groups))
    parts = (order % _FOLDS)[np.searchsorted(groups, labels)]
    distances = np.zeros(len(numbers))
    for part in np.unique(parts):
        inside = parts == part
        distances[inside] = _distances(_fit(vectors[~inside], numbers[~inside]), vectors[inside], numbers[inside])
    largest = np.zeros(int(owner.max()) + 1)
    np.maximum.at(largest, owner, distances)
    return float(np.quantile(largest, _QUANTILE))


def _pair_keys(first: Int[Array, "p"], second: Int[Array, "p"]) -> tuple[list[tuple[int, int]], Int[Array, "p"]]:
    """The different pairs of elements, the smaller number first, and which of them each pair is."""
    kinds, codes = np.unique(np.stack([first, second]), return_inverse=True)
    low, high = np.sort(codes.reshape(2, -1), axis=0)
    keys, inverse = np.unique(low * len(kinds) + high, return_inverse=True)
    pairs = zip(kinds[keys // max(len(kinds), 1)].tolist(), kinds[keys % max(len(kinds), 1)].tolist(), strict=True)
    return list(pairs), inverse


def _shortest(structures: Sequence[Structure]) -> dict[tuple[int, int], float]:
    """The shortest distance of each pair of elements."""
    distances: dict[tuple[int, int], float] = {}
    for structure in structures:
        pairs = find_neighbors(structure.positions, structure.cell, structure.pbc, ENVIRONMENT_CUTOFF)
        keys, inverse = _pair_keys(structure.numbers[pairs.centers], structure.numbers[pairs.neighbors])
        for k, pair in enumerate(keys):
            shortest = float(pairs.distances[inverse == k].min())
            distances[pair] = min(shortest, distances.get(pair, np.inf))
    return distances
