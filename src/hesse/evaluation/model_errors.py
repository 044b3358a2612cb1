"""Errors of a potential on a data set, and the comparison of two potentials with confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from hesse.datasets import Dataset, DatasetSource, as_dataset
from hesse.engines import PotentialLike
from hesse.errors import ConfigError, MissingLabelError, RequestError, check_whole_numbers
from hesse.evaluation.averages import MetricRow
from hesse.evaluation.breakdown import (
    GroupErrors,
    StructureErrors,
    errors_by_group,
    errors_by_structure,
    ranking_property,
)
from hesse.evaluation.metrics import METRICS, error_metrics, error_sums
from hesse.evaluation.parity import ErrorSums, matched_values, property_names
from hesse.evaluation.prediction import predict
from hesse.evaluation.statistics import bootstrap_rms_change
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Properties, label_names

__all__ = ["Evaluation", "RelativeChange", "evaluate_model", "relative_rmse_change"]


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(ShortRepr):
    """Errors of one potential on one data set.

    Attributes:
        name: name of the data set.
        dataset: structures and reference labels, without the structures left out as suspect.
        predictions: predictions in the order of the data set.
        rows: errors of the whole data set and of each tag.
        records: results of the long parts of a suite, see `hesse.evaluate`: one mapping of JSON values for each search
            of a transition state (`kind` "saddle") and each replica of dynamics ("replica").
        notes: what a suite left out, and why.
    """

    name: str
    dataset: Dataset
    predictions: Properties
    rows: tuple[MetricRow, ...]
    records: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}: {len(self.dataset)} structures\n{self.table()}"

    def row(self, property: str, metric: str = "rmse", tag: str = "") -> MetricRow | None:
        """One number of the evaluation.

        Args:
            property: energy, energy_per_atom, forces, hvp or hessian, or one of a suite.
            metric: rmse, mae or noise_floor, or one of a suite.
            tag: tag of the structures, or "" for the whole data set.

        Returns:
            The row, or None if the data set does not give it.

        Raises:
            RequestError: unknown property or metric.
        """
        properties = dict.fromkeys([*property_names(), *(row.property for row in self.rows)])
        metrics = dict.fromkeys([*METRICS, *(row.metric for row in self.rows)])
        if property not in properties or metric not in metrics:
            raise RequestError(
                f'no row for property "{property}" and metric "{metric}": properties are {", ".join(properties)}, '
                f"metrics are {', '.join(metrics)}"
            )
        key = (property, metric, tag)
        return next((row for row in self.rows if (row.property, row.metric, row.tag) == key), None)

    def table(self, *, by_tag: bool = False) -> str:
        """The errors as a table of text, to print.

        Args:
            by_tag: also list the errors of each tag.

        Returns:
            One line per property (and tag): RMSE, MAE, noise floor, unit and number of values.
        """
        lines: list[tuple[str, ...]] = [("property", "RMSE", "MAE", "noise floor", "unit", "values")]
        for first in self.rows:
            if first.metric != "rmse" or first.property not in property_names() or (first.tag and not by_tag):
                continue
            values = [self.row(first.property, metric, first.tag) for metric in METRICS]
            numbers = ["-" if row is None else f"{row.value:.3g}" for row in values]
            name = f"{first.tag}: {first.property}" if first.tag else first.property
            lines.append((name, *numbers, first.unit, str(first.n)))
        widths = [max(len(line[k]) for line in lines) for k in range(6)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if k in (0, 4) else cell.rjust(width)
                for k, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )

    def per_structure(self, property: str) -> Float[ndarray, "structures"]:
        """Root-mean-square error of each structure.

        Args:
            property: one of `property_names`.

        Returns:
            The errors in the unit of the property; NaN for structures without a label.
        """
        return error_sums(self.dataset, self.predictions, property).rms_per_structure()

    @cached_property
    def _sums(self) -> dict[str, ErrorSums]:
        return {name: error_sums(self.dataset, self.predictions, name) for name in property_names()}

    def ranking_property(self, rank_by: str | None = None) -> str:
        """The property by which groups and structures are sorted.

        Args:
            rank_by: the property, if it was chosen.

        Returns:
            That property, otherwise forces, energies per atom, or the first one that there is.

        Raises:
            RequestError: there is no error of `rank_by`.
        """
        return ranking_property(self._sums, rank_by)

    def by_group(self, rank_by: str | None = None) -> tuple[GroupErrors, ...]:
        """Errors of each group (a molecule, a reaction), the worst first.

        Args:
            rank_by: property whose root-mean-square error sorts the groups; by default forces (energies per atom if
                there are no forces).

        Returns:
            For each group its name, number of structures, and errors by property. A structure without a group counts
            alone, under its id.

        Raises:
            RequestError: there is no error of `rank_by`.
        """
        return errors_by_group(self.dataset, self._sums, rank_by)

    def worst(self, n: int = 5, rank_by: str | None = None) -> tuple[StructureErrors, ...]:
        """The structures with the largest errors.

        Args:
            n: how many.
            rank_by: property whose root-mean-square error sorts the structures; by default forces (energies per atom if
                there are no forces).

        Returns:
            For each of them its id, group, and errors by property, the worst first.

        Raises:
            RequestError: there is no error of `rank_by`.
            ConfigError: `n` is not a whole number above zero.
        """
        check_whole_numbers(n=n)
        if n < 1:
            raise ConfigError(f"n: expected 1 or more, got {n}")
        return errors_by_structure(self.dataset, self._sums, rank_by)[:n]

    def parity(self, property: str) -> tuple[Float[ndarray, "values"], Float[ndarray, "values"]]:
        """Reference and predicted values, for a parity plot.

        Args:
            property: one of `property_names`.

        Returns:
            Reference values and predicted values, in the unit of the property.
        """
        reference, predicted, _ = matched_values(self.dataset, self.predictions, property)
        return reference.numpy(), predicted.numpy()


def evaluate_model(
    model: PotentialLike,
    data: DatasetSource,
    *,
    name: str | None = None,
    hessian: bool = True,
    by_tag: bool = True,
    memory_mib: float | None = None,
    dtype: torch.dtype | None = None,
    include_suspect: bool = False,
    intervals: bool = False,
    quiet: bool = True,
) -> Evaluation:
    """Compare the predictions of a potential with the labels of a data set.

    Args:
        model: a potential, the path or name of one (`mace:FILE`), or the result of training.
        data: a data set or the path of its file; every label in it is compared.
        name: name of the data set in tables; by default the stem of the file it came from.
        hessian: whether to predict Hessians.
        by_tag: also compute the errors of each tag.
        memory_mib: memory limit of one batch; None for a default by device. A structure that exceeds it runs alone.
        dtype: floating-point type of the calculation; by default that of the potential.
        include_suspect: use labels that are flagged suspect too; otherwise their structures are left out.
        intervals: with 95 % intervals under another choice of molecules, see `hesse.evaluation.averages`.
        quiet: show no progress.

    Returns:
        The evaluation: `rows` with the numbers (eV, eV/atom, eV/Å, eV/Å²), the predictions, and `table()` to print.

    Raises:
        RequestError: `model` is not a potential, or `data` is not a data set.
        MissingLabelError: the data set has no labels to compare with.
        UnknownElementError: the potential does not know an element; the message names the first structure.
        EngineError: a prediction that is not a finite number; the message names the structure.
        LabelValueError: a label that is not a finite number; the message names the structure.
    """
    dataset = as_dataset(data)
    if not include_suspect:
        dataset = dataset.without_suspects()
    available = [label for label in label_names() if bool(dataset.labels.mask(label).any())]
    if not available or (available == ["hessian"] and not hessian):
        raise MissingLabelError(missing_labels(dataset.source, hessian=hessian))
    predictions = predict(model, dataset, memory_mib=memory_mib, hessian=hessian, dtype=dtype, quiet=quiet)
    title = Path(dataset.source).stem if name is None else name
    rows = error_metrics(dataset, predictions, by_tag=by_tag, name=title, intervals=intervals)
    return Evaluation(title, dataset, predictions, tuple(rows))


def missing_labels(source: str, *, hessian: bool) -> str:
    """The reply to data without labels.

    Args:
        source: what to call the data.
        hessian: whether Hessians are compared.

    Returns:
        The text.
    """
    return (
        f"{source}: no structure has an energy, forces, a Hessian-vector product or a Hessian"
        f"{'' if hessian else ' (Hessians were left out by hessian=False)'}: there is nothing to compare with. Make "
        "labels with `hesse label`."
    )


@dataclass(frozen=True)
class RelativeChange:
    """Change of the RMSE from one potential to another on the same data.

    Attributes:
        percent: 100 (new/old − 1); negative is better.
        ci_low, ci_high: confidence interval of `percent` under resampling of the molecules.
        n_groups: number of independent groups that were resampled; the interval is NaN for fewer than two.
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
    same for both potentials. The interval describes the choice of test molecules. It does not contain the scatter
    between training seeds, which takes several runs to measure.

    Args:
        baseline: evaluation of the first potential.
        other: evaluation of the second potential, on the same structures.
        property: one of `property_names`.
        confidence: probability of the interval.
        n_resamples: number of bootstrap samples.
        seed: seed of the resampling.

    Returns:
        The change in percent with its interval; None if either evaluation lacks the property.

    Raises:
        RequestError: the two evaluations are of different structures.
    """
    if [s.id for s in baseline.dataset.structures] != [s.id for s in other.dataset.structures]:
        raise RequestError(
            f'"{baseline.name}" and "{other.name}" are evaluations of different structures: they cannot be compared'
        )
    old, new = (error_sums(e.dataset, e.predictions, property) for e in (baseline, other))
    if not old.n_values() or not new.n_values() or old.rms() == 0.0:
        return None
    names = [s.group or f"id:{s.id}" for s, count in zip(baseline.dataset.structures, old.counts, strict=True) if count]
    _, group_index = np.unique(names, return_inverse=True)
    n_groups = int(group_index.max()) + 1
    mask = old.counts > 0
    totals = [np.bincount(group_index, sums.squared[mask], n_groups) for sums in (old, new)]
    percent = 100.0 * (new.rms() / old.rms() - 1.0)
    if n_groups < 2:
        return RelativeChange(percent, float("nan"), float("nan"), n_groups)
    low, high = bootstrap_rms_change(*totals, confidence=confidence, n_resamples=n_resamples, seed=seed)
    return RelativeChange(percent, low, high, n_groups)
