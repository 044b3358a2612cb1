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
from hesse.evaluation.pairs import paired
from hesse.evaluation.prediction import DEFAULT_MAX_ATOMS, predict
from hesse.evaluation.rows import Row, error_sums, errors
from hesse.potential import Potential
from hesse.structures import Labels

__all__ = ["Change", "Evaluation", "assess", "change"]


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
    predictions: Labels
    rows: tuple[Row, ...]

    def row(self, property: str, metric: str = "rmse", tag: str = "") -> Row | None:
        """The number asked for, or None where the data do not give it."""
        wanted = (property, metric, tag)
        return next((row for row in self.rows if (row.property, row.metric, row.tag) == wanted), None)

    def per_structure(self, property: str) -> Float[ndarray, "structures"]:
        """Root-mean-square error of each structure, in the unit of the property; NaN where it has no label."""
        return error_sums(self.dataset, self.predictions, property).rms_per_structure()

    def parity(self, property: str) -> tuple[Float[ndarray, "values"], Float[ndarray, "values"]]:
        """Reference and predicted values."""
        reference, predicted, _ = paired(self.dataset, self.predictions, property)
        return reference.numpy(), predicted.numpy()


def assess(
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
    """Predict and judge. Arguments as in `predict` and `errors`, and so are the errors raised.

    Args:
        include_suspect: judge by labels that are flagged suspect too; otherwise their structures are left out.

    Raises:
        MissingLabelError: the data set holds nothing to judge by.
    """
    if not include_suspect:
        dataset = dataset.without_suspects()
    held = [label for label in ("energy", "forces", "hvp", "hessian") if bool(dataset.labels.mask(label).any())]
    if not held or (held == ["hessian"] and not hessian):
        raise MissingLabelError(
            f"{dataset.source}: no structure holds an energy, forces, a Hessian-vector product or a Hessian"
            f"{'' if hessian else ' that was asked for'}: nothing to judge by. Make labels with `hesse label`."
        )
    predictions = predict(potential, dataset, max_atoms=max_atoms, hessian=hessian, dtype=dtype, quiet=quiet)
    title = Path(dataset.source).stem if name is None else name
    return Evaluation(title, dataset, predictions, tuple(errors(dataset, predictions, by_tag=by_tag, name=title)))


@dataclass(frozen=True)
class Change:
    """RMSE of one potential against another's on the same data.

    Attributes:
        percent: 100 (new/old − 1): negative is better.
        low, high: interval that holds the change with the confidence asked, under resampling of the molecules.
        groups: how many independent groups were resampled; the interval is NaN for fewer than two.
    """

    percent: float
    low: float
    high: float
    groups: int


def change(
    baseline: Evaluation,
    other: Evaluation,
    property: str,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Change | None:
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
    if not old.total() or not new.total() or old.rms() == 0.0:
        return None
    names = [s.group or f"id:{s.id}" for s, count in zip(baseline.dataset.structures, old.counts, strict=True) if count]
    _, member = np.unique(names, return_inverse=True)
    groups = int(member.max()) + 1
    keep = old.counts > 0
    totals = np.stack([np.bincount(member, side.squared[keep], groups) for side in (old, new)], axis=1)
    percent = 100.0 * (new.rms() / old.rms() - 1.0)
    if groups < 2:
        return Change(percent, float("nan"), float("nan"), groups)
    drawn = _resampled(totals, resamples, np.random.default_rng(seed))
    drawn = drawn[drawn[:, 0] > 0.0]
    ratios = 100.0 * (np.sqrt(drawn[:, 1] / drawn[:, 0]) - 1.0)
    low, high = np.quantile(ratios, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Change(percent, float(low), float(high), groups)


def _resampled(
    totals: Float[ndarray, "groups sides"], resamples: int, generator: np.random.Generator
) -> Float[ndarray, "resamples sides"]:
    """Sums over groups drawn with replacement, many times, with bounded memory."""
    groups = len(totals)
    at_once = max(1, 2_000_000 // groups)
    parts = [
        generator.multinomial(groups, np.full(groups, 1.0 / groups), size=min(at_once, resamples - start)) @ totals
        for start in range(0, resamples, at_once)
    ]
    return np.concatenate(parts)
