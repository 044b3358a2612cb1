"""A judged potential: predictions beside labels, their errors, and how sure the comparison of two of them is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from hesse.datasets import Dataset
from hesse.errors import MissingLabelError, RequestError
from hesse.evaluation.metrics import MetricRow, error_metrics, error_sums
from hesse.evaluation.parity import matched_values
from hesse.evaluation.prediction import DEFAULT_MAX_ATOMS, predict
from hesse.potential import Potential
from hesse.structures import Properties

__all__ = ["Evaluation", "RelativeChange", "evaluate_model", "relative_rmse_change"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One potential on one data set.

    Attributes:
        name: of the data set.
        dataset: structures and reference labels, without those left out as suspect.
        predictions: in the order of the data set.
        rows: errors of the whole set and of each tag.
    """

    name: str
    dataset: Dataset
    predictions: Properties
    rows: tuple[MetricRow, ...]

    def row(self, property: str, metric: str = "rmse", tag: str = "") -> MetricRow | None:
        """The number asked for, or None where the data do not give it."""
        key = (property, metric, tag)
        return next((row for row in self.rows if (row.property, row.metric, row.tag) == key), None)

    def per_structure(self, property: str) -> Float[ndarray, "structures"]:
        """Root-mean-square error of each structure, in the unit of the property; NaN where it has no label."""
        return error_sums(self.dataset, self.predictions, property).rms_per_structure()

    def parity(self, property: str) -> tuple[Float[ndarray, "values"], Float[ndarray, "values"]]:
        """Reference and predicted values."""
        reference, predicted, _ = matched_values(self.dataset, self.predictions, property)
        return reference.numpy(), predicted.numpy()


def evaluate_model(
    potential: Potential,
    dataset: Dataset,
    *,
    name: str | None = None,
    hessian: bool = True,
    by_tag: bool = True,
    max_atoms: int = DEFAULT_MAX_ATOMS,
    dtype: torch.dtype | None = None,
    include_suspect: bool = False,
    quiet: bool = True,
) -> Evaluation:
    """Predict and judge. Arguments as in `predict` and `error_metrics`, and so are the errors raised.

    Args:
        include_suspect: judge by labels that are flagged suspect too; otherwise their structures are left out.

    Raises:
        MissingLabelError: the data set holds nothing to judge by.
    """
    if not include_suspect:
        dataset = dataset.without_suspects()
    available = [label for label in ("energy", "forces", "hvp", "hessian") if bool(dataset.labels.mask(label).any())]
    if not available or (available == ["hessian"] and not hessian):
        raise MissingLabelError(
            f"{dataset.source}: no structure holds an energy, forces, a Hessian-vector product or a Hessian"
            f"{'' if hessian else ' that was asked for'}: nothing to judge by. Make labels with `hesse label`."
        )
    predictions = predict(potential, dataset, max_atoms=max_atoms, hessian=hessian, dtype=dtype, quiet=quiet)
    title = Path(dataset.source).stem if name is None else name
    return Evaluation(
        title, dataset, predictions, tuple(error_metrics(dataset, predictions, by_tag=by_tag, name=title))
    )


@dataclass(frozen=True)
class RelativeChange:
    """RMSE of one potential against another's on the same data.

    Attributes:
        percent: 100 (new/old − 1): negative is better.
        ci_low, ci_high: interval that holds the change with the confidence asked, under resampling of the molecules.
        n_groups: how many independent groups were resampled; the interval is NaN for fewer than two.
    """

    percent: float
    ci_low: float
    ci_high: float
    n_groups: int


def relative_rmse_change(
    baseline: Evaluation,
    other: Evaluation,
    property: str,
    *,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> RelativeChange | None:
    """Change of the RMSE of `property` from `baseline` to `other`, with a paired bootstrap interval (percentiles).

    Whole groups (molecules, reactions; single structures where there is no `group`) are drawn with replacement, the
    same for both potentials. The interval tells how much the choice of test molecules matters; it knows nothing of the
    scatter between training seeds, which needs several runs. None where either lacks the property.

    Raises:
        RequestError: the two were judged on different structures.
    """
    if [s.id for s in baseline.dataset.structures] != [s.id for s in other.dataset.structures]:
        raise RequestError(f'"{baseline.name}" and "{other.name}" are not the same structures: nothing to compare')
    old, new = (error_sums(e.dataset, e.predictions, property) for e in (baseline, other))
    if not old.n_values() or not new.n_values() or old.rms() == 0.0:
        return None
    names = [s.group or f"id:{s.id}" for s, count in zip(baseline.dataset.structures, old.counts, strict=True) if count]
    _, group_index = np.unique(names, return_inverse=True)
    n_groups = int(group_index.max()) + 1
    mask = old.counts > 0
    totals = np.stack([np.bincount(group_index, side.squared[mask], n_groups) for side in (old, new)], axis=1)
    percent = 100.0 * (new.rms() / old.rms() - 1.0)
    if n_groups < 2:
        return RelativeChange(percent, float("nan"), float("nan"), n_groups)
    resampled = _bootstrap_sums(totals, n_resamples, np.random.default_rng(seed))
    resampled = resampled[resampled[:, 0] > 0.0]
    ratios = 100.0 * (np.sqrt(resampled[:, 1] / resampled[:, 0]) - 1.0)
    low, high = np.quantile(ratios, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return RelativeChange(percent, float(low), float(high), n_groups)


def _bootstrap_sums(
    totals: Float[ndarray, "groups sides"], n_resamples: int, generator: np.random.Generator
) -> Float[ndarray, "resamples sides"]:
    """Sums over groups drawn with replacement, many times, with bounded memory."""
    n_groups = len(totals)
    chunk = max(1, 2_000_000 // n_groups)
    chunks = [
        generator.multinomial(n_groups, np.full(n_groups, 1.0 / n_groups), size=min(chunk, n_resamples - start))
        @ totals
        for start in range(0, n_resamples, chunk)
    ]
    return np.concatenate(chunks)
