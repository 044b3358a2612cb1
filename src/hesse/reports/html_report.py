"""Report on the comparison of two potentials: one HTML file that refers to no other file."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from hesse.evaluation import UNITS, Evaluation
from hesse.reports.comparison import ComparedMetric, Comparison
from hesse.reports.figure_style import BASELINE_COLOR, OTHER_COLOR
from hesse.reports.figures import MAX_SCATTER_POINTS, hessian_histogram, learning_curve, parity_plot
from hesse.reports.formatting import (
    PROPERTY_NAMES,
    ev_to_kcal,
    format_noise_floor,
    format_number,
    format_percent,
    kcal_unit,
)
from hesse.reports.html_page import figure, grid, page, section, table
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
    sections = [
        _opening(comparison),
        _errors(comparison),
        _vibrations(comparison),
        _histograms(comparison),
        _parities(comparison),
        _learning_curves(comparison),
        _by_tag(comparison),
        _facts(comparison),
    ]
    return page(comparison.title, "\n".join(part for part in sections if part))


# --- text ------------------------------------------------------------------------------------------------------------


def _opening(comparison: Comparison) -> str:
    old, new = escape(comparison.baseline.name), escape(comparison.other.name)
    items = []
    for evaluation in comparison.baseline.evaluations:
        changes = [
            f"{PROPERTY_NAMES[p]} {format_percent(row.percent)}"
            for p in ("hessian", "forces", "energy")
            if (row := comparison.row(evaluation.name, p)) is not None and row.percent is not None
        ]
        if changes:
            items.append(f"<li>{escape(evaluation.name)}: {escape(', '.join(changes))}</li>")
    return (
        f"<h1>{escape(comparison.title)}</h1>\n"
        f'<p class="lead">Root-mean-square error of <span class="swatch other"></span>{new} '
        f'against <span class="swatch baseline"></span>{old} on the test sets:</p>\n'
        f"<ul>{''.join(items)}</ul>"
    )


def _errors(comparison: Comparison) -> str:
    head = (
        '<tr><th class="text">property</th>'
        f'<th><span class="swatch baseline"></span>{escape(comparison.baseline.name)}</th>'
        f'<th><span class="swatch other"></span>{escape(comparison.other.name)}</th>'
        "<th>change</th><th>noise floor</th><th>published</th></tr>"
    )
    rows = []
    for evaluation in comparison.baseline.evaluations:
        about = f"{escape(evaluation.name)} <small>{len(evaluation.dataset):,} structures</small>"
        rows.append(f'<tr class="group"><th class="text" colspan="6">{about}</th></tr>')
        rows += [
            _error_row(comparison, row)
            for row in comparison.rows
            if row.metric == "rmse" and row.dataset == evaluation.name
        ]
    caption = (
        "Root-mean-square errors: energies over structures, forces and Hessian-vector products over components, "
        "Hessians over all elements of all structures. Small print: the same in kcal/mol, and below each change its "
        "95 % interval under resampling of the test molecules (not of training seeds)."
    )
    note = (
        "Noise floor: lower bound of the errors of the labels themselves; errors near it contain no information about "
        "the model."
    )
    if comparison.published:
        cited = ", ".join(dict.fromkeys(p.test_set for p in comparison.published))
        note += f" Published: changes on the authors' test sets {cited} ({comparison.published_source})."
    return section("Errors", table(head, rows, caption), f'<p class="note">{escape(note)}</p>')


def _error_row(comparison: Comparison, row: ComparedMetric) -> str:
    def value(in_ev: float | None, formatter: Callable[[float | None], str] = format_number) -> str:
        return f"<td>{formatter(in_ev)}{'' if in_ev is None else f'<small>{formatter(ev_to_kcal(in_ev))}</small>'}</td>"

    cited = "".join(
        f"<div>{format_percent(p.percent, 1)} <small>{escape(p.test_set)}</small></div>"
        for p in comparison.published
        if p.property == row.property
    )
    interval = "" if row.low is None else f"<small>{format_percent(row.low)} to {format_percent(row.high)}</small>"
    cells = (
        f'<td class="text">{PROPERTY_NAMES[row.property]} <span class="unit">{row.unit}</span>'
        f"<small>{kcal_unit(row.unit)}</small></td>",
        value(row.baseline),
        value(row.other),
        f'<td><span class="{_verdict(row)}">{format_percent(row.percent)}</span>{interval}</td>',
        value(row.noise_floor, lambda v: escape(format_noise_floor(v))),
        f'<td class="cited">{cited or "–"}</td>',
    )
    return f"<tr>{''.join(cells)}</tr>"


def _verdict(row: ComparedMetric) -> str:
    """CSS class of a change: "good" or "bad" if the interval excludes zero, else ""."""
    if row.percent is None:
        return ""
    low, high = (row.percent, row.percent) if row.low is None or row.high is None else (row.low, row.high)
    return "good" if high < 0 else "bad" if low > 0 else ""


def _vibrations(comparison: Comparison) -> str:
    head = (
        '<tr><th class="text">test set</th><th class="text">mean absolute error</th>'
        f'<th><span class="swatch baseline"></span>{escape(comparison.baseline.name)}</th>'
        f'<th><span class="swatch other"></span>{escape(comparison.other.name)}</th></tr>'
    )
    rows = []
    for name, sides in comparison.vibrations.items():
        about = f"{escape(name)} <small>{sides[0].n_structures} molecules, {sides[0].n_modes} modes</small>"
        frequencies = [format_number(side.frequency_mae) for side in sides]
        energies = [format_number(ev_to_kcal(side.zero_point_mae)) for side in sides]
        for first, quantity, values, unit in (
            (about, "frequencies", frequencies, "cm⁻¹"),
            ("", "zero-point energies", energies, "kcal/mol"),
        ):
            cells = "".join(f"<td>{value}</td>" for value in values)
            rows.append(
                f'<tr><td class="text">{first}</td><td class="text">{quantity} <span class="unit">{unit}</span></td>'
                f"{cells}</tr>"
            )
    if not rows:
        return ""
    caption = (
        "Harmonic frequencies and zero-point energies from the Hessians at the relaxed geometries of the reference, "
        "which are not relaxed again with the potentials. Imaginary frequencies count as negative numbers."
    )
    return section("Vibrations", table(head, rows, caption))


def _by_tag(comparison: Comparison) -> str:
    head = (
        '<tr><th class="text">test set</th><th class="text">tag</th><th class="text">property</th>'
        f"<th>{escape(comparison.baseline.name)}</th><th>{escape(comparison.other.name)}</th>"
        '<th class="text">unit</th><th>change</th></tr>'
    )
    rows = []
    for old, new in comparison.evaluation_pairs:
        for row in old.rows:
            new_row = new.row(row.property, "rmse", row.tag)
            if not row.tag or row.metric != "rmse" or new_row is None:
                continue
            percent_change = None if row.value == 0.0 else 100.0 * (new_row.value / row.value - 1.0)
            rows.append(
                f'<tr><td class="text">{escape(old.name)}</td><td class="text">{escape(row.tag)}</td>'
                f'<td class="text">{PROPERTY_NAMES[row.property]}</td><td>{format_number(row.value)}</td>'
                f"<td>{format_number(new_row.value)}</td>"
                f'<td class="text">{row.unit}</td><td>{format_percent(percent_change)}</td></tr>'
            )
    if not rows:
        return ""
    inner = table(head, rows, "Root-mean-square errors of the structures of each tag.")
    return section("By kind of geometry", f"<details><summary>{len(rows)} rows</summary>{inner}</details>")


def _facts(comparison: Comparison) -> str:
    items = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in comparison.facts.items())
    return section("This run", f"<dl>{items}</dl>") if items else ""


# --- figures ---------------------------------------------------------------------------------------------------------


def _histograms(comparison: Comparison) -> str:
    names = (comparison.baseline.name, comparison.other.name)
    figures = []
    for k, (old, new) in enumerate(comparison.evaluation_pairs):
        errors = (old.per_structure("hessian"), new.per_structure("hessian"))
        svg = hessian_histogram(*errors, names=names, title=old.name, name=f"histogram-{k}")
        if svg is not None:
            figures.append(figure(svg, f"Histogram of Hessian errors on {old.name}"))
    if not figures:
        return ""
    caption = (
        "Hessian RMSE of each structure, on a logarithmic axis; dashed lines are medians. A shift to the left means "
        "better curvature; structures at the right edge have the largest errors."
    )
    return section("Hessian errors, structure by structure", grid(figures, caption))


def _parities(comparison: Comparison) -> str:
    blocks = []
    for k, (old, new) in enumerate(comparison.evaluation_pairs):
        figures = []
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
                    unit=UNITS[prop],
                    limits=limits,
                    color=color,
                    name=f"parity-{k}-{prop}-{'ab'[color == OTHER_COLOR]}",
                )
                figures.append(figure(svg, f"Parity plot of {PROPERTY_NAMES[prop]}, {label}, {old.name}"))
        if figures:
            blocks.append(f'<h3>{escape(old.name)}</h3>\n<div class="grid pairs">{"".join(figures)}</div>')
    if not blocks:
        return ""
    caption = (
        "Predictions against labels; on the gray line they agree. For many points, color is their density on a "
        "logarithmic scale. Energies are shown relative to a sum of element energies fitted to the reference energies "
        "of the test set. Frames leave out the outermost thousandths of the reference values."
    )
    return section("Predictions against labels", *blocks, f'<p class="note">{escape(caption)}</p>')


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


def _learning_curves(comparison: Comparison) -> str:
    models = (comparison.baseline, comparison.other)
    figures = []
    for key, title, unit in _LEARNING_CURVES:
        svg = learning_curve(models, key, title=title, unit=unit, name=f"learning-{key.replace('_', '-')}")
        if svg is not None:
            figures.append(figure(svg, f"Learning curve: {title}"))
    if not figures:
        return ""
    caption = "Root-mean-square errors on the validation structures during training, on a logarithmic axis."
    return section("Learning curves", grid(figures, caption))
