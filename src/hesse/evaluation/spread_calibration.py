"""Calibration of the spread of several models: does it tell their error, in size and in order?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from hesse.datasets import Dataset
from hesse.evaluation.metrics import error_sums
from hesse.evaluation.parity import property_unit
from hesse.structures import Properties

__all__ = ["SpreadCalibration", "StructureSpreads", "spread_calibration", "structure_spreads"]


@dataclass(frozen=True)
class SpreadCalibration:
    """Spread and error of one property, over the structures of a data set.

    Attributes:
        property: energy, forces, hvp or hessian.
        error: root mean square error of the mean of the models.
        spread: root mean square of their standard deviation.
        error_over_spread: ratio of the two; 1 if the spread has the right size, above 1 if it is too small.
        rank_correlation: of the errors and spreads of the structures (Spearman); 1 if the spread orders them rightly.
        n: number of structures.
        unit: unit of error and spread.
    """

    property: str
    error: float
    spread: float
    error_over_spread: float
    rank_correlation: float
    n: int
    unit: str


@dataclass(frozen=True, eq=False)
class StructureSpreads:
    """Errors and spreads of one property of single structures.

    Attributes:
        name: energy, forces, hvp or hessian.
        errors: root mean square error of the mean of the models, of each structure with a label.
        spreads: standard deviation of the models.
        counts: number of label values of each.
        error: root mean square error over all values.
    """

    name: str
    errors: Float[ndarray, "structures"]
    spreads: Float[ndarray, "structures"]
    counts: Float[ndarray, "structures"]
    error: float

    @property
    def spread(self) -> float:
        """Root mean square of the standard deviations over all values."""
        return float(np.sqrt(np.average(self.spreads**2, weights=self.counts)))

    @property
    def error_over_spread(self) -> float:
        """Ratio of error and spread; 1 if the spread has the right size."""
        return self.error / max(self.spread, 1e-300)


def structure_spreads(data: Dataset, mean: Properties) -> tuple[StructureSpreads, ...]:
    """Errors and spreads of single structures.

    Args:
        data: reference labels, see `spread_calibration`.
        mean: means of the models for the same structures, with their standard deviations as errors.

    Returns:
        One result for each property that has both.
    """
    labels = data.labels
    if mean.probes is not None and labels.hessian is not None:
        mask = labels.mask("hessian").expand(len(mean.probes), -1)
        labels = labels.replace(
            probes=mean.probes, hvp=labels.hessian_matvec(mean.probes), hvp_mask=mask, hvp_error=None
        )
    elif mean.probes is None or labels.probes is None or not torch.equal(mean.probes, labels.probes):
        labels = labels.replace(probes=None, hvp=None, hvp_mask=None, hvp_error=None)
    compared = Dataset(data.structures, labels, source=data.source)
    results = []
    for name in ("energy", "forces", "hvp", "hessian"):
        spread = mean[f"{name}_error"]
        if spread is None or labels[name] is None:
            continue
        sums = error_sums(compared, mean, name)
        errors = sums.rms_per_structure()
        squared = spread.double().square()
        spreads = (squared.mean(0) if squared.dim() == 2 else squared).sqrt().numpy()
        known = np.isfinite(errors)
        results.append(StructureSpreads(name, errors[known], spreads[known], sums.counts[known], sums.rms()))
    return tuple(results)


def spread_calibration(data: Dataset, mean: Properties) -> tuple[SpreadCalibration, ...]:
    """Compare the spread of several models with the error of their mean.

    Args:
        data: reference labels. From Hessians, products along the probes of `mean` are made.
        mean: means of the models for the same structures, with their standard deviations as errors, as
            `hesse.labelling.teacher_labels` gives them.

    Returns:
        One result for each property that has both; none without a spread or with fewer than three structures.
    """
    from scipy.stats import rankdata  # here, because the import takes half a second

    results = []
    for one in structure_spreads(data, mean):
        if len(one.errors) < 3:
            continue
        varies = np.ptp(one.spreads) > 0
        ranks = np.corrcoef(rankdata(one.errors), rankdata(one.spreads))[0, 1] if varies else 0.0
        results.append(
            SpreadCalibration(
                one.name, one.error, one.spread, one.error_over_spread, float(ranks), len(one.errors),
                property_unit(one.name),
            )
        )  # fmt: skip
    return tuple(results)
