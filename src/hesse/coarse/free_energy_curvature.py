"""Curvature of the potential of mean force: labels for models of beads from Hessian-vector products of all atoms.

Moving the beads along v moves the atoms along `Bᵀ v` (B: the map of forces). The Hessian of the potential of mean force
at the positions R of the beads is `⟨B H Bᵀ⟩_R - β Cov(f)_R`: the mean Hessian of the atoms between the beads, less the
fluctuation of the forces on the beads. Products of single frames become labels whose mean is right, as instantaneous
forces are labels of the mean force. The fluctuation is taken about the forces of a model that is matched to the forces
before. Source of the idea: arXiv 2605.12823.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray as Array

from hesse.coarse.state_points import state_point_of
from hesse.curvature import evaluate_structures
from hesse.datasets import Dataset, with_metadata
from hesse.engines import PotentialLike, as_potential
from hesse.errors import MissingLabelError, RequestError, check_choice
from hesse.structures import Neighbors, Request, Structure, find_neighbors
from hesse.units import BOLTZMANN

__all__ = ["curvature_labels"]

Covariance = Literal["averaged", "instantaneous"]
_BINS: Final = 40
_CHUNK: Final = 8
_MARK: Final = "free energy"


def curvature_labels(
    dataset: Dataset,
    mean_forces: PotentialLike,
    *,
    reach: float,
    covariance: Covariance = "averaged",
    temperature: float | None = None,
) -> Dataset:
    """Turn projected products of single frames into labels of the Hessian of the free energy.

    Args:
        dataset: mapped frames with forces and projected products (`map_trajectory` of frames with products).
        mean_forces: a model whose forces are the mean forces, or nearly.
        reach: Å; the forces on beads farther from each other fluctuate independently.
        covariance: "instantaneous": the product of the fluctuations in the frame itself, unbiased but noisy;
            "averaged": its mean over all frames and beads of these types at this distance, along and across the vector
            between them, which has little noise and neglects what else it depends on.
        temperature: K, of frames whose tags name no state point.

    Returns:
        The data set with other products.

    Raises:
        MissingLabelError: frames without forces or products.
        RequestError: frames without temperature, or products that are labels of the free energy already.
    """
    check_choice(covariance, ("averaged", "instantaneous"), "kind of covariance")
    labels = dataset.labels
    if labels.forces is None or labels.hvp is None or labels.probes is None or not bool(labels.has("forces").all()):
        raise MissingLabelError(
            f"{dataset.source or 'the data'}: expected beads with forces and Hessian-vector products. Map all-atom "
            "frames that have both (their directions must move whole beads)"
        )
    if dataset.metadata.get("curvature") == _MARK:
        raise RequestError(f"{dataset.source or 'the data'}: its products are labels of the free energy already")
    betas = [1.0 / (BOLTZMANN * _temperature(s, temperature)) for s in dataset.structures]
    fluctuations = _fluctuations(dataset, mean_forces)
    pairs = [find_neighbors(s.positions, s.cell, s.pbc, reach) for s in dataset.structures]
    averages = _Averages(dataset.structures, fluctuations, pairs, betas, reach) if covariance == "averaged" else None
    products = labels.hvp.clone()
    for i, structure in enumerate(dataset.structures):
        atoms = labels.atom_slice(i)
        for k in range(len(products)):
            direction = labels.probes[k, atoms].numpy()
            if averages is None:
                correction = betas[i] * _instantaneous(fluctuations[i], pairs[i], direction)
            else:
                correction = averages.product(structure, pairs[i], direction)
            products[k, atoms] -= torch.from_numpy(correction)
    return with_metadata(replace(dataset, labels=labels.replace(hvp=products)), curvature=_MARK)


def _temperature(structure: Structure, given: float | None) -> float:
    point = state_point_of(structure)
    if point is None and given is None:
        raise RequestError(f'structure "{structure.id}": its tag {structure.tag!r} names no temperature; give it')
    return point.temperature if point is not None else float(given or 0.0)


def _fluctuations(dataset: Dataset, mean_forces: PotentialLike) -> list[Float[Array, "beads 3"]]:
    """Force minus mean force in each frame."""
    model = as_potential(mean_forces)
    forces, result = dataset.labels.forces, []
    assert forces is not None
    for start in range(0, len(dataset), _CHUNK):
        part = dataset.structures[start : start + _CHUNK]
        predicted = evaluate_structures(model, part, Request(forces=True)).forces
        assert predicted is not None
        first = dataset.labels.atom_slice(start).start
        stop = first + len(predicted)
        split = np.cumsum([len(s) for s in part])[:-1]
        result += np.split(forces[first:stop].numpy() - predicted.detach().cpu().numpy(), split)
    return result


def _instantaneous(
    fluctuation: Float[Array, "beads 3"], pairs: Neighbors, direction: Float[Array, "beads 3"]
) -> Float[Array, "beads 3"]:
    """`δf_I Σ_J δf_J·v_J` over the bead itself and those within reach."""
    along = (fluctuation * direction).sum(1)
    sums = along.copy()
    np.add.at(sums, pairs.centers, along[pairs.neighbors])
    return np.asarray(fluctuation * sums[:, None])


class _Averages:
    """Mean of `β δf_I δf_Jᵀ` by the types of the beads and their distance: along and across the vector between them."""

    def __init__(
        self,
        structures: tuple[Structure, ...],
        fluctuations: list[Float[Array, "beads 3"]],
        pairs: list[Neighbors],
        betas: list[float],
        reach: float,
    ) -> None:
        self.types = np.unique(np.concatenate([s.numbers for s in structures]))
        self.reach, n = reach, len(self.types)
        self.own, counts = np.zeros(n), np.zeros(n)
        self.parallel, self.across, pair_counts = (np.zeros(n * n * _BINS) for _ in range(3))
        for structure, delta, near, beta in zip(structures, fluctuations, pairs, betas, strict=True):
            types = np.searchsorted(self.types, structure.numbers)
            np.add.at(self.own, types, beta * (delta**2).mean(1))
            np.add.at(counts, types, 1.0)
            bins, units = self._bins(structure, near)
            one, two = delta[near.centers], delta[near.neighbors]
            parallel = (one * units).sum(1) * (two * units).sum(1)
            np.add.at(self.parallel, bins, beta * parallel)
            np.add.at(self.across, bins, beta * 0.5 * ((one * two).sum(1) - parallel))
            np.add.at(pair_counts, bins, 1.0)
        self.own /= np.maximum(counts, 1.0)
        self.parallel /= np.maximum(pair_counts, 1.0)
        self.across /= np.maximum(pair_counts, 1.0)

    def _bins(self, structure: Structure, near: Neighbors) -> tuple[Int[Array, "pairs"], Float[Array, "pairs 3"]]:
        types = np.searchsorted(self.types, structure.numbers)
        kind = types[near.centers] * len(self.types) + types[near.neighbors]
        bins = kind * _BINS + np.minimum((near.distances / self.reach * _BINS).astype(np.int64), _BINS - 1)
        ends = structure.positions[near.neighbors] + near.cell_shifts @ structure.cell
        units = (ends - structure.positions[near.centers]) / np.maximum(near.distances, 1e-9)[:, None]
        return bins, units

    def product(
        self, structure: Structure, near: Neighbors, direction: Float[Array, "beads 3"]
    ) -> Float[Array, "beads 3"]:
        """The covariance, times β, multiplied with a direction."""
        types = np.searchsorted(self.types, structure.numbers)
        result = self.own[types][:, None] * direction
        bins, units = self._bins(structure, near)
        moved = direction[near.neighbors]
        along = (moved * units).sum(1)[:, None] * units
        np.add.at(
            result, near.centers, self.parallel[bins][:, None] * along + self.across[bins][:, None] * (moved - along)
        )
        return result
