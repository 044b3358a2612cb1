"""Errors of predictions against labels: root mean square, mean absolute and noise floor, per data set and per tag."""

from __future__ import annotations

from pathlib import Path

from hesse.datasets import Dataset
from hesse.evaluation.averages import Average, MetricRow, average_row, independent_groups, tag_masks
from hesse.evaluation.noise_floor import noise_estimates
from hesse.evaluation.parity import ErrorSums, matched_values, property_names, property_unit
from hesse.structures import Properties

__all__ = ["METRICS", "error_metrics", "error_sums"]

METRICS = ("rmse", "mae", "noise_floor")


def error_metrics(
    dataset: Dataset,
    predictions: Properties,
    *,
    by_tag: bool = True,
    name: str | None = None,
    intervals: bool = False,
) -> list[MetricRow]:
    """RMSE, MAE and noise floor of every property that both the data set and the predictions contain.

    Energy errors are averaged over structures, as total energies and divided by the number of atoms; force errors over
    the 3n components of all structures; errors of Hessian-vector products over the 3n components of all stored probes
    of all structures; Hessian errors over the 9n² elements of all structures pooled, against the symmetrized reference
    (H + Hᵀ)/2, so that large molecules have more weight. Noise floors are described in `hesse.evaluation.noise_floor`;
    a property without an estimate of its label noise has no such row.

    Args:
        dataset: structures and reference labels.
        predictions: predictions for the same structures in the same order, as `predict` returns them.
        by_tag: also give the rows of each tag; structures without a tag count in the whole data set only.
        name: name of the data set in the rows; by default the stem of the file it came from.
        intervals: with 95 % intervals under another choice of molecules, see `hesse.evaluation.averages`.

    Returns:
        One row per tag (the whole data set first), property and metric, in eV, eV/atom, eV/Å and eV/Å².

    Raises:
        LabelShapeError: the predictions are of other structures.
        LabelValueError: a value that is not a finite number; the message names the structure.
    """
    title = Path(dataset.source).stem if name is None else name
    sums_by_property = {prop: error_sums(dataset, predictions, prop) for prop in property_names()}
    noise = noise_estimates(dataset)
    groups = independent_groups(dataset.structures) if intervals else None
    rows: list[MetricRow | None] = []
    for tag, mask in tag_masks(dataset.structures, by_tag=by_tag).items():
        for prop, sums in sums_by_property.items():
            has_values = mask & (sums.counts > 0)
            if not has_values.any():
                continue
            unit = property_unit(prop)
            averages = [
                Average(prop, "rmse", unit, sums.squared, sums.counts, sums.counts, root=True),
                Average(prop, "mae", unit, sums.absolute, sums.counts, sums.counts),
            ]
            estimates = [part for part in noise.get(prop, ()) if part.select(has_values).n_values()]
            if estimates:
                floor = max(estimates, key=lambda part: part.select(has_values).rms())
                averages.append(
                    Average(prop, "noise_floor", unit, floor.squared, floor.counts, floor.counts, root=True)
                )
            rows += [average_row(average, title, tag, has_values, groups) for average in averages]
    return [row for row in rows if row is not None]


def error_sums(dataset: Dataset, predictions: Properties, property: str) -> ErrorSums:
    """Squared and absolute errors of one property, summed per structure.

    Args:
        dataset: structures and reference labels.
        predictions: predictions for the same structures in the same order.
        property: one of `property_names`.

    Returns:
        The sums, in the unit of the property (`property_unit`) and its square.

    Raises:
        RequestError: unknown property.
        LabelShapeError: the predictions are of other structures.
        LabelValueError: a value that is not a finite number; the message names the structure.
    """
    reference, predicted, structure_index = matched_values(dataset, predictions, property)
    return ErrorSums.from_values(predicted - reference, structure_index, len(dataset))
