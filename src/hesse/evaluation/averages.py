"""Averages over structures, with confidence intervals under another choice of molecules.

Structures of one group (a molecule, a reaction) are alike, so whole groups are drawn with replacement; structures
without a group count alone. Intervals of means and root mean squares are those of this bootstrap, corrected for bias
and skewness (BCa: Efron, J. Am. Stat. Assoc. 82, 171 (1987)). Of fewer than 20 groups the bootstrap knows too little:
its 95 % intervals of skewed errors contain the truth in half of all cases for 2 groups and in about 78 % for 5. Those
of Student's t, with the standard error of the ratio, do so in about 90 % and 88 %; these are taken there. Intervals of
fractions are exact binomial ones (Clopper and Pearson, Biometrika 26, 404 (1934)) for the number of independent trials
that the structures are worth, as for survival curves (`hesse.pes.md_survival`): a bootstrap of "all 5 of 5" would say
that nothing is uncertain.

An interval describes the choice of test molecules. It does not contain the scatter between training seeds.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from hesse.errors import ConfigError, check_numbers
from hesse.pes.md_survival import design_effect
from hesse.structures import Structure

__all__ = [
    "CONFIDENCE",
    "Average",
    "Interval",
    "MetricRow",
    "average_row",
    "grouped_fraction_interval",
    "grouped_mean_interval",
    "independent_groups",
    "tag_masks",
]

CONFIDENCE: Final = 0.95
"""Probability of the intervals of an evaluation."""
_RESAMPLES: Final = 1000
_MIN_GROUPS: Final = 20
"""Fewer groups than this get intervals of Student's t."""
_MAX_GROUPS: Final = 1000
"""More groups than this are joined at random to so many blocks: sums of blocks have the same scatter, and less work."""

Interval = tuple[float, float]
"""Lower and upper limit."""


@dataclass(frozen=True)
class MetricRow:
    """One number of an evaluation; the fields are the stable contract of `hesse evaluate --json`.

    Attributes:
        dataset: name of the data set.
        tag: the tag of the structures counted, or "" for the whole data set.
        property: energy, energy_per_atom, forces, hvp, hessian, ...; with `--suite` also frequencies, barrier, ...
        metric: rmse, mae, noise_floor; with `--suite` also bias, slope, fraction, ...
        value: in `unit`.
        unit: eV, eV/atom, eV/Å, eV/Å², ...; "1" for pure numbers.
        n: number of values averaged: structures for energies, components for forces and Hessian-vector products,
            elements for Hessians, modes for frequencies, reactions for barriers. For a noise floor, the number of
            values that have an estimate.
        ci_low, ci_high: 95 % interval of `value` under another choice of molecules; None for fewer than two.
        groups: number of independent molecules, reactions or structures of that interval; None where none was asked.
    """

    dataset: str
    tag: str
    property: str
    metric: str
    value: float
    unit: str
    n: int
    ci_low: float | None = None
    ci_high: float | None = None
    groups: int | None = None


@dataclass(frozen=True, eq=False)
class Average:
    """A number that is a weighted average over structures, by its parts.

    Attributes:
        property, metric, unit: see `MetricRow`.
        totals: weighted sums of the values of each structure.
        weights: sums of the weights of each structure; 0 where it has no value.
        counts: number of values of each structure.
        root: the number is the square root of the average.
        fraction: the values are 0 or 1.
        at_most: the largest possible value.
    """

    property: str
    metric: str
    unit: str
    totals: Float[ndarray, "structures"]
    weights: Float[ndarray, "structures"]
    counts: Int[ndarray, "structures"]
    root: bool = False
    fraction: bool = False
    at_most: float = float("inf")


def independent_groups(structures: Sequence[Structure]) -> Int[ndarray, "structures"]:
    """Number the groups of structures; a structure without a group is one of its own.

    Args:
        structures: the structures.

    Returns:
        The number of the group of each structure, from 0.
    """
    names = [f"group:{s.group}" if s.group else f"id:{s.id}" for s in structures]
    return np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)[1]


def tag_masks(structures: Sequence[Structure], *, by_tag: bool = True) -> dict[str, Bool[ndarray, "structures"]]:
    """The parts of a data set that get rows of their own.

    Args:
        structures: the structures.
        by_tag: also the structures of each tag.

    Returns:
        Masks by tag, that of the whole data set first, under "".
    """
    tags = np.array([s.tag for s in structures], dtype=object)
    masks = {"": np.ones(len(tags), dtype=bool)}
    if by_tag:
        masks |= {tag: tags == tag for tag in sorted(set(tags) - {""})}
    return masks


def average_row(
    average: Average,
    name: str,
    tag: str,
    mask: Bool[ndarray, "structures"],
    groups: Int[ndarray, "structures"] | None = None,
) -> MetricRow | None:
    """The row of an average over a part of the structures.

    Args:
        average: the number.
        name: name of the data set.
        tag: name of the part.
        mask: its structures.
        groups: number of the group of each structure, for the interval; None for no interval.

    Returns:
        The row; None if there are no values.
    """
    used = mask & (average.counts > 0) & (average.weights > 0)
    if not used.any():
        return None
    totals, weights = average.totals[used], average.weights[used]
    mean = float(totals.sum() / weights.sum())
    value = float(np.sqrt(max(mean, 0.0))) if average.root else mean
    n = int(average.counts[used].sum())
    row = (name, tag, average.property, average.metric, value, average.unit, n)
    if groups is None:
        return MetricRow(*row)
    names = groups[used]
    n_groups = len(np.unique(names))
    interval = (
        grouped_fraction_interval(totals, weights, names)
        if average.fraction
        else grouped_mean_interval(totals, weights, names)
    )
    if interval is None:
        return MetricRow(*row, groups=n_groups)
    low, high = (float(np.sqrt(max(v, 0.0))) for v in interval) if average.root else interval
    return MetricRow(*row, low, min(high, average.at_most), n_groups)


def grouped_mean_interval(
    totals: Float[ndarray, "n"],
    weights: Float[ndarray, "n"],
    groups: Int[ndarray, "n"],
    *,
    confidence: float = CONFIDENCE,
    n_resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """Interval of a weighted mean when other groups are drawn: by bootstrap, or by Student's t for few groups.

    Args:
        totals: weighted sums of values.
        weights: weights, above zero.
        groups: number of the group of each.
        confidence: probability of the interval.
        n_resamples: number of bootstrap samples.
        seed: seed of the resampling.

    Returns:
        Lower and upper limit of `sum(totals) / sum(weights)`; None for fewer than two groups.

    Raises:
        ConfigError: a confidence outside 0 to 1.
    """
    _check_confidence(confidence)
    blocks = np.unique(groups, return_inverse=True)[1]
    n_blocks = int(blocks.max()) + 1
    if n_blocks < 2:
        return None
    if n_blocks > _MAX_GROUPS:
        blocks = (np.random.default_rng(seed).permutation(n_blocks) % _MAX_GROUPS)[blocks]
        n_blocks = _MAX_GROUPS
    sums = [np.bincount(blocks, values, n_blocks) for values in (totals, weights)]
    if n_blocks < _MIN_GROUPS:
        return _t_interval(sums[0], sums[1], confidence)
    from scipy.stats import bootstrap  # here, because the import takes half a second

    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore")  # of equal values, which have no skewness to correct for
        result = bootstrap(
            sums,
            lambda total, weight, axis: total.sum(axis) / weight.sum(axis),
            paired=True,
            confidence_level=confidence,
            n_resamples=n_resamples,
            batch=max(1, 2_000_000 // n_blocks),  # bounds the memory
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    low, high = (float(v) for v in result.confidence_interval)
    if not (np.isfinite(low) and np.isfinite(high)):
        low, high = np.quantile(result.bootstrap_distribution, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def _t_interval(totals: Float[ndarray, "n"], weights: Float[ndarray, "n"], confidence: float) -> Interval:
    """Interval of a ratio of sums by the spread of its linear approximation; not below zero if no value is."""
    from scipy.stats import t

    n, ratio = len(totals), float(totals.sum() / weights.sum())
    deviations = (totals - ratio * weights) / weights.mean()
    half = float(t.ppf(0.5 + confidence / 2, n - 1) * np.sqrt((deviations**2).sum() / (n * (n - 1))))
    low = ratio - half
    return (max(low, 0.0) if (totals >= 0).all() else low), ratio + half


def grouped_fraction_interval(
    successes: Float[ndarray, "n"],
    trials: Float[ndarray, "n"],
    groups: Int[ndarray, "n"],
    *,
    confidence: float = CONFIDENCE,
) -> Interval | None:
    """Exact binomial interval of a fraction, for as many independent trials as the structures are worth.

    Args:
        successes: number of successes of each structure.
        trials: number of trials of each structure, above zero.
        groups: number of the group of each structure.
        confidence: probability of the interval.

    Returns:
        Lower and upper limit; None for fewer than two groups.

    Raises:
        ConfigError: a confidence outside 0 to 1.
    """
    _check_confidence(confidence)
    if len(np.unique(groups)) < 2:
        return None
    from scipy.stats import beta

    fraction = float(successes.sum() / trials.sum())
    n = max(len(trials) / design_effect(successes / trials, [str(group) for group in groups]), 1.0)
    yes, no, tail = n * fraction, n * (1.0 - fraction), 0.5 * (1.0 - confidence)
    low = float(beta.ppf(tail, yes, no + 1.0)) if yes > 0 else 0.0
    high = float(beta.ppf(1.0 - tail, yes + 1.0, no)) if no > 0 else 1.0
    return low, high


def _check_confidence(confidence: float) -> None:
    check_numbers(confidence=confidence)
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"confidence: expected a number between 0 and 1, got {confidence:g}")
