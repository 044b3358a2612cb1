"""Report on the comparison of two potentials: one HTML file that refers to no other file.

This module computes what the page shows; words, tables and styles are in `templates/report.html`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from jinja2 import Environment
from numpy import ndarray

from hesse.evaluation import Evaluation, MetricRow, property_unit
from hesse.reports.compared_models import ComparedMetric, Comparison
from hesse.reports.drawing import Drawing
from hesse.reports.figure_style import BASELINE_COLOR, OTHER_COLOR
from hesse.reports.figures import MAX_SCATTER_POINTS, hessian_histogram, learning_curve, parity_plot
from hesse.reports.formatting import format_percent, property_title
from hesse.reports.page_environment import page_environment
from hesse.runtime.filesystem import atomic_write_text
from hesse.structures import segment_ids

__all__ = ["render_report", "write_report"]

_LEARNING_CURVES = (
    ("energy_per_atom_rmse", "Energy per atom", "eV/atom"),
    ("forces_rmse", "Forces", "eV/Å"),
    ("hvp_rmse", "Hessian-vector products", "eV/Å²"),
)
_AXIS_NAMES = {"energy": "energy", "forces": "force component", "hessian": "Hessian element"}


def write_report(path: str | Path, comparison: Comparison) -> None:
    """Write the report of a comparison as one HTML file. An interrupted call leaves no partial file.

    Args:
        path: the file.
        comparison: the two potentials and their evaluations.

    Raises:
        WriteError: the file cannot be written.
    """
    atomic_write_text(path, render_report(comparison))


def render_report(comparison: Comparison) -> str:
    """The report of a comparison as HTML. Equal comparisons give equal text.

    Args:
        comparison: the two potentials and their evaluations.

    Returns:
        The HTML document.
    """
    return (
        _environment()
        .get_template("report.html")
        .render(
            comparison=comparison,
            opening=list(_opening(comparison)),
            histograms=list(_histograms(comparison)),
            parities=list(_parities(comparison)),
            learning_curves=list(_learning_curves(comparison)),
            tagged=list(_tagged_rows(comparison)),
            colors={"baseline": BASELINE_COLOR, "other": OTHER_COLOR},
        )
    )


@cache
def _environment() -> Environment:
    return page_environment(verdict=_verdict)


def _opening(comparison: Comparison) -> Iterator[tuple[str, list[str]]]:
    """The changes of each test set in words."""
    for evaluation in comparison.baseline.evaluations:
        changes = [
            f"{property_title(p)} {format_percent(row.percent)}"
            for p in ("hessian", "forces", "energy")
            if (row := comparison.row(evaluation.name, p)) is not None and row.percent is not None
        ]
        if changes:
            yield evaluation.name, changes


def _verdict(row: ComparedMetric) -> str:
    """CSS class of a change: "good" or "bad" if the interval excludes zero, else ""."""
    if row.percent is None:
        return ""
    low, high = (row.percent, row.percent) if row.low is None or row.high is None else (row.low, row.high)
    return "good" if high < 0 else "bad" if low > 0 else ""


def _tagged_rows(comparison: Comparison) -> Iterator[tuple[str, MetricRow, MetricRow, float | None]]:
    """Test set, the RMSE of both potentials for each tag and property, and the change in percent."""
    for old, new in comparison.evaluation_pairs:
        for row in old.rows:
            new_row = new.row(row.property, "rmse", row.tag)
            if row.tag and row.metric == "rmse" and new_row is not None:
                change = None if row.value == 0.0 else 100.0 * (new_row.value / row.value - 1.0)
                yield old.name, row, new_row, change


def _histograms(comparison: Comparison) -> Iterator[Drawing]:
    names = (comparison.baseline.name, comparison.other.name)
    for old, new in comparison.evaluation_pairs:
        svg = hessian_histogram(old.per_structure("hessian"), new.per_structure("hessian"), names=names, title=old.name)
        if svg is not None:
            yield Drawing(svg, f"Histogram of Hessian errors on {old.name}")


def _parities(comparison: Comparison) -> Iterator[tuple[str, list[Drawing]]]:
    """For each test set the parity plots of both potentials, property by property."""
    for old, new in comparison.evaluation_pairs:
        drawings = []
        for prop in ("energy", "forces", "hessian"):
            sides = [(old, comparison.baseline.name, BASELINE_COLOR), (new, comparison.other.name, OTHER_COLOR)]
            data = [_parity_data(evaluation, prop) for evaluation, _, _ in sides]
            if not len(data[0][0]) or not len(data[1][0]):
                continue
            limits = _limits(data[0][0])
            for (reference, predicted), (_, label, color) in zip(data, sides, strict=True):
                svg = parity_plot(
                    reference,
                    predicted,
                    title=label,
                    quantity=_AXIS_NAMES[prop],
                    unit=property_unit(prop),
                    limits=limits,
                    color=color,
                )
                drawings.append(Drawing(svg, f"Parity plot of {property_title(prop)}, {label}, {old.name}"))
        if drawings:
            yield old.name, drawings


def _parity_data(evaluation: Evaluation, prop: str) -> tuple[ndarray, ndarray]:
    reference, predicted = evaluation.parity(prop)
    if prop != "energy" or not len(reference):
        return reference, predicted
    shift = _composition_energies(evaluation)
    return reference - shift, predicted - shift


def _composition_energies(evaluation: Evaluation) -> Float[ndarray, "labeled"]:
    """Energies of a fit to the composition. Total energies of different molecules are hundreds of eV apart; on that
    scale the errors of a potential would be invisible."""
    dataset = evaluation.dataset
    mask = (dataset.labels.mask("energy") & evaluation.predictions.mask("energy")).numpy()
    numbers = torch.from_numpy(np.concatenate([s.numbers for s in dataset.structures]))
    counts = torch.zeros(len(dataset), len(dataset.elements), dtype=torch.float64)
    column = torch.searchsorted(torch.tensor(dataset.elements), numbers)
    counts.index_put_(
        (segment_ids(dataset.labels.n_atoms), column), torch.ones(1, dtype=torch.float64), accumulate=True
    )
    composition = counts.numpy()[mask]
    energies = evaluation.parity("energy")[0]
    return composition @ np.linalg.lstsq(composition, energies, rcond=None)[0]


def _limits(reference: Float[ndarray, "values"]) -> tuple[float, float]:
    """Range of the reference values; if there are many, without the outermost thousandth at either end."""
    outer = 0.0 if len(reference) <= MAX_SCATTER_POINTS else 1e-3
    low, high = (float(v) for v in np.quantile(reference, [outer, 1.0 - outer]))
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _learning_curves(comparison: Comparison) -> Iterator[Drawing]:
    for key, title, unit in _LEARNING_CURVES:
        svg = learning_curve((comparison.baseline, comparison.other), key, title=title, unit=unit)
        if svg is not None:
            yield Drawing(svg, f"Learning curve: {title}")
