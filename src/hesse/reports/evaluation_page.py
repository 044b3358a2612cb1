"""The page of an evaluation: one HTML file that refers to no other file.

This module computes what the page shows; words, tables and styles are in `templates/evaluation.html`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from jinja2 import Environment

from hesse._version import __version__
from hesse.evaluation import METRICS, Evaluation, MetricRow, find_reactions, property_names, property_unit
from hesse.evaluation.breakdown import StructureErrors
from hesse.evaluation.independence import groups_are_known
from hesse.evaluation.level_spread import LEVEL_SPREAD
from hesse.reports.drawing import Drawing
from hesse.reports.formatting import format_number, property_title
from hesse.reports.mode_drawings import worst_modes
from hesse.reports.molecule_drawings import draw_arrows
from hesse.reports.page_environment import page_environment
from hesse.reports.point_plot import PlotPoint, PointPlot, point_plot
from hesse.reports.suite_tables import SUITE_SECTIONS, suite_number, suite_unit
from hesse.reports.verdict import judge_uses, summarize
from hesse.runtime.filesystem import atomic_write_text

__all__ = ["render_evaluation", "write_evaluation_page"]

_MAX_POINTS: Final = 1000
"""Points of a plot: each is an element of the document."""
_MAX_LINES: Final = 200
"""Rows of the tables of structures and searches."""
_DRAWN: Final = 6
"""Structures that are drawn."""
_MAX_ATOMS: Final = 200
"""Larger structures are not drawn: nothing could be recognized."""


def write_evaluation_page(
    path: str | Path,
    evaluations: Sequence[Evaluation],
    *,
    model: str,
    facts: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write the page of an evaluation: verdict, tables, plots, the worst structures, methods, provenance.

    An interrupted call leaves no partial file.

    Args:
        path: the file.
        evaluations: results of `hesse.evaluate` for one potential, one for each data set.
        model: name of the potential.
        facts: where potential and data come from: names and values for the end of the page.
        notes: what a reader has to know before the numbers.

    Raises:
        WriteError: the file cannot be written.
    """
    atomic_write_text(path, render_evaluation(evaluations, model=model, facts=facts, notes=notes))


def render_evaluation(
    evaluations: Sequence[Evaluation],
    *,
    model: str,
    facts: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The page of an evaluation as HTML. Equal evaluations give equal text.

    Args:
        evaluations: results of `hesse.evaluate` for one potential, one for each data set.
        model: name of the potential.
        facts: where potential and data come from: names and values for the end of the page.
        notes: what a reader has to know before the numbers.

    Returns:
        The HTML document.
    """
    sets = [_content(evaluation) for evaluation in evaluations]
    return (
        _environment()
        .get_template("evaluation.html")
        .render(
            model=model,
            sets=sets,
            notes=[*notes, *(f"{e.name}: {note}" for e in evaluations for note in e.notes)],
            parts={part for content in sets for part in content["parts"]},
            facts={**(facts or {}), "Hesse": __version__},
            levels=LEVEL_SPREAD,
        )
    )


@cache
def _environment() -> Environment:
    return page_environment(suite_number=suite_number, suite_unit=suite_unit)


def _content(evaluation: Evaluation) -> dict[str, Any]:
    """The part of the page about one data set."""
    findings = judge_uses(evaluation.rows)
    ranking = evaluation.ranking_property()
    worst = evaluation.worst(_MAX_LINES)
    sections = list(_suite_sections(evaluation.rows))
    return {
        "name": evaluation.name,
        "structures": len(evaluation.dataset),
        "groups": _group_count(evaluation),
        "verdict": list(summarize(findings)),
        "findings": findings,
        "errors": list(_label_errors(evaluation, "")),
        "tags": [
            (tag, list(_label_errors(evaluation, tag)))
            for tag in dict.fromkeys(row.tag for row in evaluation.rows if row.tag)
        ],
        "sections": sections,
        "spread": any(row.metric == "level_spread" for row in evaluation.rows),
        "plots": list(_plots(evaluation)),
        "shown_points": min(len(evaluation.dataset), _MAX_POINTS),
        "ranking": ranking,
        "worst": worst,
        "properties": {p: property_unit(p) for p in property_names() if any(p in w.rmse for w in worst)},
        "drawings": list(_drawings(evaluation, worst)),
        "modes": worst_modes(evaluation),
        "searches": [r for r in evaluation.records if r["kind"] == "saddle"][:_MAX_LINES],
        "replicas": [r for r in evaluation.records if r["kind"] == "replica"][:_MAX_LINES],
        "parts": [name for name, _ in sections],
    }


def _group_count(evaluation: Evaluation) -> int | None:
    """Number of molecules or reactions; None if the data do not tell."""
    structures = evaluation.dataset.structures
    return len({s.group or f"id:{s.id}" for s in structures}) if groups_are_known(structures) else None


def _label_errors(evaluation: Evaluation, tag: str) -> Iterator[dict[str, Any]]:
    """For each property its RMSE, MAE and noise floor."""
    for name in property_names():
        by_metric = {row.metric: row for row in evaluation.rows if (row.property, row.tag) == (name, tag)}
        if "rmse" in by_metric:
            yield {"property": name, **{metric: by_metric.get(metric) for metric in METRICS}}


def _suite_sections(rows: Sequence[MetricRow]) -> Iterator[tuple[str, list[tuple[str, MetricRow, MetricRow | None]]]]:
    """For each part of a suite its titles and numbers, with the noise of the labels."""
    known = {(row.property, row.metric): row for row in rows if not row.tag}
    for section, lines in SUITE_SECTIONS.items():
        shown = []
        parent = ""
        for prop, metric, title in lines:
            parent = parent if title.startswith(" ") else title
            if (row := known.get((prop, metric))) is not None:
                full = title if title == parent else f"{parent}: {title.strip()}"  # the table may be sorted
                shown.append((full, row, known.get((prop, "noise_floor")) if metric == "mae" else None))
        if shown:
            yield section, shown


def _plots(evaluation: Evaluation) -> Iterator[PointPlot]:
    """Errors of structures, of reactions, and of transition states that were found."""
    names = [s.id for s in evaluation.dataset.structures]
    errors = {name: evaluation.per_structure(name) for name in ("energy_per_atom", "forces", "hessian", "hvp")}
    other = "hessian" if np.isfinite(errors["hessian"]).any() else "hvp"
    for x_name, y_name in (("forces", other), ("energy_per_atom", "forces")):
        x, y = errors[x_name], errors[y_name]
        indices = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        indices = indices[:: max(1, -(-len(indices) // _MAX_POINTS))]
        units = [property_unit(name) for name in (x_name, y_name)]
        titles = [property_title(name) for name in (x_name, y_name)]
        points = [
            PlotPoint(float(x[i]), float(y[i]), _text(names[i], titles, (float(x[i]), float(y[i])), units))
            for i in indices
        ]
        if len(points) > 1:
            labels = [f"{title} RMSE ({unit})" for title, unit in zip(titles, units, strict=True)]
            yield point_plot(f"Errors of structures: {titles[1]} and {titles[0]}", points, *labels, log=True)
    if any(row.property == "barrier" for row in evaluation.rows):
        yield from _reaction_plots(evaluation)
    saddles = [r for r in evaluation.records if r["kind"] == "saddle" and r["found"]]
    for key, title, unit in (
        ("imaginary_frequency", "Imaginary frequencies of the transition states found", "cm⁻¹"),
        ("barrier", "Barriers of the transition states found", "eV"),
    ):
        pairs = [(r["group"], r[f"reference_{key}"], r[key]) for r in saddles]
        yield from _parity(title, [pair for pair in pairs if None not in pair], unit)


def _reaction_plots(evaluation: Evaluation) -> Iterator[PointPlot]:
    """Barriers and reaction energies at the geometries of the reference."""
    labels, predictions = evaluation.dataset.labels, evaluation.predictions
    if labels.energy is None or predictions.energy is None:
        return
    reference, predicted = (energy.double().cpu().numpy() for energy in (labels.energy, predictions.energy))
    known = (labels.mask("energy") & predictions.mask("energy")).numpy()
    reactions, _ = find_reactions(evaluation.dataset)
    for title, upper, lower in (("Barriers", "saddle", "reactant"), ("Reaction energies", "product", "reactant")):
        pairs = [(r.name, getattr(r, upper), getattr(r, lower)) for r in reactions]
        yield from _parity(
            f"{title} at the geometries of the reference",
            [
                (name, float(reference[i] - reference[j]), float(predicted[i] - predicted[j]))
                for name, i, j in pairs
                if i is not None and j is not None and known[i] and known[j]
            ],
            "eV",
        )


def _parity(title: str, pairs: Sequence[tuple[str, float, float]], unit: str) -> Iterator[PointPlot]:
    points = [
        PlotPoint(x, y, _text(name, ("reference", "potential"), (x, y), (unit, unit)))
        for name, x, y in pairs[:: max(1, -(-len(pairs) // _MAX_POINTS))]
    ]
    if len(points) > 1:
        yield point_plot(title, points, f"reference ({unit})", f"potential ({unit})", diagonal=True)


def _text(name: str, titles: Sequence[str], values: Sequence[float], units: Sequence[str]) -> str:
    parts = [f"{t} {format_number(v)} {u}" for t, v, u in zip(titles, values, units, strict=True)]
    return f"{name}: {', '.join(parts)}"


def _drawings(evaluation: Evaluation, worst: Sequence[StructureErrors]) -> Iterator[tuple[StructureErrors, Drawing]]:
    """The worst structures, with the errors of the forces on their atoms as arrows."""
    for errors in worst[:_DRAWN]:
        structure = evaluation.dataset.structures[errors.index]
        if len(structure) > _MAX_ATOMS:
            continue
        arrows = _force_errors(evaluation, errors.index) if "forces" in errors.rmse else None
        words = f"{structure.to_ase().get_chemical_formula()}, {errors.id}"
        if arrows is not None:
            words += ", with the errors of its forces as arrows"
        yield errors, draw_arrows(structure, np.zeros((len(structure), 3)) if arrows is None else arrows, words)


def _force_errors(evaluation: Evaluation, index: int) -> np.ndarray | None:
    """Predicted less reference forces of one structure, eV/Å; None where none are known."""
    labels, predictions = evaluation.dataset.labels, evaluation.predictions
    if labels.forces is None or predictions.forces is None:
        return None
    atoms = labels.atom_slice(index)
    errors = predictions.forces[atoms].double().cpu() - labels.forces[atoms].double().cpu()
    result: np.ndarray = errors.numpy()
    return result if np.isfinite(result).all() else None
