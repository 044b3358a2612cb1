"""Survival curves: the fraction of replicas that have not failed yet, with confidence bands.

The curve is the estimate of Kaplan and Meier (J. Am. Stat. Assoc. 53, 457 (1958)). Its band is that of an exact
binomial proportion (Clopper and Pearson, Biometrika 26, 404 (1934)), pointwise. Its number of trials is that of the
replicas while none is censored before the end; otherwise the one whose binomial variance equals Greenwood's (Dorey and
Korn, Stat. Med. 6, 679 (1987)). Replicas of one molecule tend to share their fate: the number of trials is divided by
the design effect `1 + (m − 1) ρ`, with m replicas per molecule and the correlation ρ of their times within molecules.
Without that, five seeds of one bad molecule would count like five bad molecules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray as Array

from hesse.errors import RequestError
from hesse.runtime.short_repr import ShortRepr

__all__ = ["SurvivalCurve", "compare_survival", "survival_curve", "survival_of_rows"]


@dataclass(frozen=True, eq=False, repr=False)
class SurvivalCurve(ShortRepr):
    """A step function: the values hold from each time until the next.

    Attributes:
        times: 0, the times of failures, and the last time of observation; in the unit of the input.
        fraction: surviving fraction from each time on.
        low: lower limit of the band.
        high: upper limit of the band.
        level: confidence of the band, pointwise.
        n: number of replicas.
        n_failed: number of failures.
        n_effective: number of independent trials that they are worth.
    """

    times: Float[Array, "k"]
    fraction: Float[Array, "k"]
    low: Float[Array, "k"]
    high: Float[Array, "k"]
    level: float
    n: int
    n_failed: int
    n_effective: float

    @property
    def median(self) -> float | None:
        """The time at which half of the replicas have failed; None if fewer have."""
        below = np.flatnonzero(self.fraction <= 0.5)
        return float(self.times[below[0]]) if len(below) else None


def survival_curve(
    times: Sequence[float] | Float[Array, "n"],
    failed: Sequence[bool] | Bool[Array, "n"],
    groups: Sequence[str] | None = None,
    *,
    level: float = 0.95,
) -> SurvivalCurve:
    """Estimate a survival curve.

    Args:
        times: time of failure, or of the end of the observation, of each replica.
        failed: whether it failed; False: it was still alive at its time.
        groups: the molecule of each replica; None: all are independent.
        level: confidence of the band.

    Returns:
        The curve with its band.

    Raises:
        RequestError: no replicas, lengths that differ, times that are negative or not finite, a level outside 0 to 1.
    """
    from scipy.stats import beta

    t, bad = np.asarray(times, dtype=np.float64), np.asarray(failed, dtype=bool)
    if len(t) == 0 or t.shape != bad.shape or (groups is not None and len(groups) != len(t)):
        raise RequestError(
            f"a survival curve needs a time, a flag and (with groups) a group for each replica, got {len(t)} times, "
            f"{len(bad)} flags and {'no' if groups is None else len(groups)} groups"
        )
    if not (np.isfinite(t).all() and (t >= 0).all()):
        raise RequestError("times of a survival curve must be numbers, zero or more")
    if not 0 < level < 1:
        raise RequestError(f"the level of confidence must lie between 0 and 1, got {level}")
    at = np.unique(np.concatenate([[0.0], t[bad], [t.max()]]))
    at_risk = (t[None] >= at[:, None]).sum(1)
    events = ((t[None] == at[:, None]) & bad).sum(1)
    fraction = np.cumprod(1.0 - events / np.maximum(at_risk, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.cumsum(np.where(at_risk > events, events / (at_risk * (at_risk - events)), 0.0))
        n_equivalent = (1.0 - fraction) / (fraction * greenwood)
    n_equivalent = np.where((fraction > 0) & (greenwood > 0), n_equivalent, np.maximum(at_risk, 1))
    n_equivalent[fraction == 0] = len(t)
    effect = 1.0 if groups is None else design_effect(t, groups)
    trials = np.maximum(n_equivalent / effect, 1.0)
    alive, dead, tail = trials * fraction, trials * (1.0 - fraction), 0.5 * (1.0 - level)
    with np.errstate(invalid="ignore"):
        low = np.where(alive > 0, beta.ppf(tail, np.maximum(alive, 1e-300), dead + 1.0), 0.0)
        high = np.where(dead > 0, beta.ppf(1.0 - tail, alive + 1.0, np.maximum(dead, 1e-300)), 1.0)
    return SurvivalCurve(at, fraction, low, high, level, len(t), int(bad.sum()), len(t) / effect)


def design_effect(times: Float[Array, "n"], groups: Sequence[str]) -> float:
    """How many replicas count as one independent trial: `1 + (m − 1) ρ`.

    Args:
        times: time of failure or of the end of each replica.
        groups: the molecule of each.

    Returns:
        1 for replicas without correlation within groups, and for a single group; the mean size of a group where all of
        them have the same time, so that nothing is known of the correlation.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    n, k = len(times), len(names)
    if k in (1, n):
        return 1.0
    sizes = np.bincount(index)
    means = np.bincount(index, times) / sizes
    within = float(((times - means[index]) ** 2).sum() / (n - k))
    between = float((sizes * (means - times.mean()) ** 2).sum() / (k - 1))
    size = float((n - (sizes**2).sum() / n) / (k - 1))  # of the analysis of variance with unequal groups
    correlation = 1.0 if within == between == 0.0 else (between - within) / (between + (size - 1.0) * within)
    return 1.0 + (size - 1.0) * min(max(correlation, 0.0), 1.0)


def survival_of_rows(rows: Sequence[Mapping[str, Any]], *, level: float = 0.95) -> SurvivalCurve | None:
    """The survival curve of rows of `hesse md`.

    Args:
        rows: with the columns structure, survived, time (ps); rows without time do not count.
        level: confidence of the band.

    Returns:
        The curve over time in ps; None if no row counts.
    """
    counted = [row for row in rows if row.get("time") is not None]
    if not counted:
        return None
    names = [str(row["structure"]) for row in counted]
    return survival_curve(
        [row["time"] for row in counted], [not row["survived"] for row in counted], names, level=level
    )


def compare_survival(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]
) -> dict[str, float] | None:
    """Whether two sets of rows of `hesse md` of the same molecules differ in their survival.

    The replicas of a molecule are reduced to their mean time until failure (or end), which is compared by the exact or
    asymptotic signed-rank test of Wilcoxon over molecules.

    Args:
        first: rows of one engine.
        second: rows of another one.

    Returns:
        `molecules` compared, `difference` of the mean times (second less first, ps) and `p_value`; None with fewer than
        two common molecules.
    """
    from scipy.stats import wilcoxon

    means = [_mean_times(rows) for rows in (first, second)]
    common = sorted(means[0].keys() & means[1].keys())
    if len(common) < 2:
        return None
    differences = np.array([means[1][name] - means[0][name] for name in common])
    p_value = float(wilcoxon(differences).pvalue) if np.any(differences) else 1.0
    return {"molecules": float(len(common)), "difference": float(differences.mean()), "p_value": p_value}


def _mean_times(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    times: dict[str, list[float]] = {}
    for row in rows:
        if row.get("time") is not None:
            times.setdefault(str(row["structure"]), []).append(float(row["time"]))
    return {name: float(np.mean(values)) for name, values in times.items()}
