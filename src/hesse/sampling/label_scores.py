"""Which structures are worth an expensive curvature label: scores by energy, curvature and sparsity, and the choice.

The score of a structure is the mean of three ranks (as in Hessian-informed training, arXiv 2603.25373):

- energy above reference: the energy per atom above that of the elements (energies per element fitted to all
  candidates);
- curvature: the root mean square of H v along random probes of a cheap model, or its largest eigenvalue;
- sparsity: the distance to the k-th nearest candidate in the space of a descriptor.

The descriptor of a structure has, for each element, the share of its atoms and the mean of their surroundings
(`hesse.structures.environment_vectors`), in units of its standard deviation over the candidates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray as Array
from numpy.typing import ArrayLike
from pydantic import Field, model_validator

from hesse.curvature import evaluate_structures
from hesse.datasets import StructuresLike, as_structures
from hesse.engines import PotentialLike, as_potential
from hesse.errors import ConfigError, RequestError
from hesse.models import fit_reference_energies
from hesse.potential import Potential
from hesse.probes import ProbeSeed, Rademacher
from hesse.runtime.settings import Settings, settings_from
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Properties, Request, Structure, collate
from hesse.structures.environment_vectors import environment_vectors

__all__ = ["LabelScores", "ScoreSettings", "choose_structures", "score_structures", "structure_descriptors"]

_CHUNK = 256
"""Structures whose distances to all others are computed at once."""


class ScoreSettings(Settings):
    """Options of the score of a structure."""

    energy: bool = Field(True, description="a high energy per atom above that of the elements")
    curvature: Literal["products", "eigenvalue", "none"] = Field(
        "products", description="root mean square of H v of the model; its largest eigenvalue; or neither"
    )
    sparsity: bool = Field(True, description="a large distance to the k-th neighbor in descriptor space")
    neighbors: int = Field(5, ge=1, description="k of sparsity")
    probes: int = Field(4, ge=1, description="probes of products")

    @model_validator(mode="after")
    def _check_any(self) -> ScoreSettings:
        if not (self.energy or self.sparsity) and self.curvature == "none":
            raise ValueError("a score needs energy, curvature or sparsity")
        return self


@dataclass(frozen=True, eq=False, repr=False)
class LabelScores(ShortRepr):
    """Scores of candidates.

    Attributes:
        ids: ids of the structures.
        groups: group (molecule, reaction) of each; its id where it has none.
        parts: the numbers behind the ranks by name: "energy" (eV per atom), "curvature" (eV/Å²), "sparsity".
        score: mean of the ranks, from 0 (least worth a label) to 1.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    parts: dict[str, Float[Array, "structures"]]
    score: Float[Array, "structures"]

    def rows(self) -> list[dict[str, Any]]:
        """The scores as rows.

        Returns:
            Mappings with id, group, score and the parts.
        """
        return [
            {"id": name, "group": group, "score": float(self.score[i]),
             **{part: float(values[i]) for part, values in self.parts.items()}}
            for i, (name, group) in enumerate(zip(self.ids, self.groups, strict=True))
        ]  # fmt: skip


def score_structures(
    structures: StructuresLike,
    model: PotentialLike | None = None,
    settings: ScoreSettings | None = None,
    *,
    energies: ArrayLike | None = None,
    seed: int = 0,
    quiet: bool = True,
    **options: Any,
) -> LabelScores:
    """Score candidates for expensive labels.

    Args:
        structures: ASE Atoms, a list of them or of Structures, a Dataset, or the path of a file.
        model: a cheap potential, or its name or file; for curvature, and for energies if they are not given.
        settings: what makes a structure worth a label; by default all three ranks.
        energies: eV, one per structure; None: those of the model.
        seed: seed of the probes.
        quiet: show no progress.
        **options: the fields of `ScoreSettings` in place of `settings`.

    Returns:
        The scores.

    Raises:
        RequestError: a score that needs a model without one.
        ConfigError: the number of energies differs from that of the structures.
        HesseError: see `hesse.evaluate_structures`.
    """
    chosen = settings_from(ScoreSettings, settings, options)
    candidates = as_structures(structures)
    predictions = None
    if (chosen.energy and energies is None) or chosen.curvature != "none":
        if model is None:
            raise RequestError("energies and curvature of a score come from a model: give one, or leave them out")
        predictions = _predict(as_potential(model), candidates, chosen, seed, quiet)
    parts: dict[str, Float[Array, "structures"]] = {}
    if chosen.energy:
        values = predictions.energy if energies is None and predictions is not None else energies
        parts["energy"] = _energies_above_elements(candidates, np.asarray(values, dtype=np.float64))
    if chosen.curvature != "none":
        assert predictions is not None
        parts["curvature"] = _curvature(predictions, candidates)
    if chosen.sparsity:
        parts["sparsity"] = _neighbor_distances(structure_descriptors(candidates), chosen.neighbors)
    score = np.mean([_ranks(values) for values in parts.values()], axis=0)
    return LabelScores(tuple(s.id for s in candidates), tuple(s.group or s.id for s in candidates), parts, score)


def choose_structures(
    scores: ArrayLike, groups: Sequence[str], count: int, *, per_group: int | None = None
) -> list[int]:
    """Choose the structures of the highest scores, at most so many of a group.

    Args:
        scores: one number per structure; equal ones are taken in their order.
        groups: group (molecule, reaction) of each.
        count: number of structures.
        per_group: largest number of structures of a group; None for no limit.

    Returns:
        Their indices, the highest score first; fewer than `count` if the groups have no more.

    Raises:
        ConfigError: numbers below one, or scores of another number.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (len(groups),):
        raise ConfigError(f"expected one score for each of {len(groups)} structures, got {values.shape}")
    if count < 1 or (per_group is not None and per_group < 1):
        raise ConfigError(f"expected a count and a number per group of 1 or more, got {count} and {per_group}")
    taken: Counter[str] = Counter()
    chosen: list[int] = []
    for i in np.argsort(-values, kind="stable").tolist():
        if len(chosen) == count:
            break
        if per_group is None or taken[groups[i]] < per_group:
            taken[groups[i]] += 1
            chosen.append(i)
    return chosen


def structure_descriptors(structures: StructuresLike) -> Float[Array, "structures d"]:
    """Describe structures by numbers of the same length for all compositions.

    Args:
        structures: ASE Atoms, a list of them or of Structures, a Dataset, or the path of a file.

    Returns:
        For each element, the share of atoms and the mean surroundings times this share, in units of the standard
        deviation over the structures. Invariant under rotation and permutation.
    """
    candidates = as_structures(structures)
    elements = sorted({int(z) for s in candidates for z in s.numbers})
    rows = []
    for structure in candidates:
        vectors = np.column_stack([np.ones(len(structure)), environment_vectors(structure)])
        rows.append(np.concatenate([vectors[structure.numbers == z].sum(0) / len(structure) for z in elements]))
    values = np.array(rows)
    spread = values.std(0)
    return np.asarray((values - values.mean(0)) / np.where(spread > 1e-9, spread, 1.0))


def _predict(
    potential: Potential, structures: Sequence[Structure], settings: ScoreSettings, seed: int, quiet: bool
) -> Properties:
    probes, hessian = None, settings.curvature == "eigenvalue"
    if settings.curvature == "products":
        probes = Rademacher(settings.probes).draw(collate(list(structures), 0.1), ProbeSeed(seed))
    return evaluate_structures(potential, structures, Request(probes=probes, hessian=hessian), quiet=quiet)


def _curvature(predictions: Properties, structures: Sequence[Structure]) -> Float[Array, "structures"]:
    """Root mean square of H v over probes and components, or the largest absolute eigenvalue, eV/Å²."""
    if predictions.hvp is not None:
        sizes = [len(s) for s in structures]
        squares = predictions.hvp.square().mean(dim=(0, 2)).split(sizes)
        return np.array([float(part.mean().sqrt()) for part in squares])
    largest = []
    for i, structure in enumerate(structures):
        n = 3 * len(structure)
        largest.append(float(torch.linalg.eigvalsh(predictions.hessian_of(i).reshape(n, n)).abs().max()))
    return np.array(largest)


def _energies_above_elements(
    structures: Sequence[Structure], energies: Float[Array, "structures"]
) -> Float[Array, "structures"]:
    """eV per atom above fitted energies of the elements."""
    if energies.shape != (len(structures),) or not np.isfinite(energies).all():
        raise ConfigError(f"expected one finite energy for each of {len(structures)} structures, got {energies.shape}")
    n_atoms = torch.tensor([len(s) for s in structures])
    labels = Properties(n_atoms=n_atoms, energy=torch.from_numpy(energies))
    elements = tuple(sorted({int(z) for s in structures for z in s.numbers}))
    references = dict(zip(elements, fit_reference_energies(list(structures), labels, elements).tolist(), strict=True))
    base = np.array([sum(references[z] for z in s.numbers.tolist()) for s in structures])
    return (energies - base) / n_atoms.numpy()


def _neighbor_distances(points: Float[Array, "points d"], k: int) -> Float[Array, "points"]:
    """Distance of each point to its k-th nearest other one (the farthest if there are fewer)."""
    count = len(points)
    if count < 2:
        return np.zeros(count)
    squares = np.einsum("ij,ij->i", points, points)
    result = np.empty(count)
    for start in range(0, count, _CHUNK):
        block = slice(start, min(start + _CHUNK, count))
        distances = np.maximum(squares[block, None] + squares - 2.0 * points[block] @ points.T, 0.0)
        # The smallest one is the point itself.
        result[block] = np.sqrt(np.partition(distances, min(k, count - 1), axis=1)[:, min(k, count - 1)])
    return result


def _ranks(values: Float[Array, "n"]) -> Float[Array, "n"]:
    """Ranks from 0 to 1, the mean rank for equal values."""
    if len(values) < 2:
        return np.zeros(len(values))
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    first: Int[Array, "k"] = np.cumsum(counts) - counts
    return np.asarray((first + (counts - 1) / 2)[inverse] / (len(values) - 1))
