"""Errors of predictions against labels: root mean square, mean absolute and noise floor, per data set and per tag."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hesse.datasets import Dataset
from hesse.evaluation.noise_floor import noise_estimates
from hesse.evaluation.parity import ErrorSums, matched_values, property_names, property_unit
from hesse.structures import Properties

__all__ = ["METRICS", "MetricRow", "error_metrics", "error_sums"]

METRICS = ("rmse", "mae", "noise_floor")


@dataclass(frozen=True)
class MetricRow:
    """One number of an evaluation; the fields are the stable contract of `hesse evaluate --json`.

    Attributes:
        dataset: name of the data set.
        tag: the tag of the structures counted, or "" for the whole data set.
        property: energy, energy_per_atom, forces, hvp, hessian, atomic_energies, stress, ...
        metric: rmse, mae or noise_floor.
        value: in `unit`.
        unit: eV, eV/atom, eV/Å, eV/Å², ...
        n: number of label values averaged: structures for energies, components for forces and Hessian-vector products,
            elements for Hessians. For a noise floor, the number of values that have an estimate.
    """

    dataset: str
    tag: str
    property: str
    metric: str
    value: float
    unit: str
    n: int


def error_metrics(
    dataset: Dataset, predictions: Properties, *, by_tag: bool = True, name: str | None = None
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

    Returns:
        One row per tag (the whole data set first), property and metric, in eV, eV/atom, eV/Å and eV/Å².

    Raises:
        LabelShapeError: the predictions are of other structures.
        LabelValueError: a value that is not a finite number; the message names the structure.
    """
    title = Path(dataset.source).stem if name is None else name
    sums_by_property = {prop: error_sums(dataset, predictions, prop) for prop in property_names()}
    noise = noise_estimates(dataset)
    tags = np.array([s.tag for s in dataset.structures], dtype=object)
    groups = {"": np.ones(len(tags), dtype=bool)}
    if by_tag:
        groups |= {tag: tags == tag for tag in sorted(set(tags) - {""})}
    rows = []
    for tag, mask in groups.items():
        for prop, sums in sums_by_property.items():
            subset = sums.select(mask)
            if not subset.n_values():
                continue
            values = {"rmse": (subset.rms(), subset.n_values()), "mae": (subset.mean_absolute(), subset.n_values())}
            has_values = mask & (sums.counts > 0)
            estimates = [part for part in (each.select(has_values) for each in noise.get(prop, ())) if part.n_values()]
            if estimates:
                floor = max(estimates, key=ErrorSums.rms)
                values["noise_floor"] = (floor.rms(), floor.n_values())
            rows += [
                MetricRow(title, tag, prop, metric, value, property_unit(prop), n)
                for metric, (value, n) in values.items()
            ]
    return rows


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
