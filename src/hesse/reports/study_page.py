"""The page of a comparison of several runs: one HTML file that refers to no other file.

This module computes what the page shows; words, tables and styles are in `templates/study.html`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from jinja2 import Environment

from hesse._version import __version__
from hesse.evaluation import property_names
from hesse.reports.drawing import Drawing
from hesse.reports.formatting import format_number, property_title
from hesse.reports.page_environment import page_environment
from hesse.reports.point_plot import PointPlot
from hesse.reports.study_figures import accuracy_figure, agreement_plot, fraction_figure

__all__ = ["render_study_page"]

_DRAWN: Final = ("energy", "forces", "hessian", "hvp")
_MAX_POINTS: Final = 2000
"""Groups up to which their plot is part of the page: every point is an element of the document."""


def render_study_page(content: Mapping[str, Any]) -> str:
    """The page of a comparison as HTML. Equal comparisons give equal text.

    Args:
        content: plain values of a comparison, as in its `comparison.json`.

    Returns:
        The HTML document.
    """
    return (
        _environment()
        .get_template("study.html")
        .render(
            content=content,
            datasets=list(_error_tables(content)),
            curves=list(_curves(content)),
            accuracy=list(_accuracy(content)),
            agreement=list(_agreement(content)),
            version=__version__,
        )
    )


@cache
def _environment() -> Environment:
    return page_environment(probability=lambda p: "–" if p is None else "< 0.0001" if p < 1e-4 else format_number(p, 2))


def _error_tables(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """For each test set the properties with their units, and the row of each variant and property."""
    rows = [row for row in content["errors"] if row["metric"] == "rmse" and row["property"] in property_names()]
    further = [row for row in content["errors"] if row["property"] not in property_names()]
    for name in dict.fromkeys(row["dataset"] for row in rows):
        own = [row for row in rows if row["dataset"] == name]
        yield {
            "name": name,
            "structures": own[0]["structures"],
            "properties": {row["property"]: row["unit"] for row in own},
            "floors": {row["property"]: row["noise_floor"] for row in own},
            "variants": list(dict.fromkeys(row["variant"] for row in own)),
            "further": _by_number([row for row in further if row["dataset"] == name]),
            "rows": {(row["variant"], row["property"]): row for row in own},
        }


def _by_number(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], dict[str, Mapping[str, Any]]]:
    """Rows by variant, by property, metric and unit."""
    result: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        result.setdefault((row["property"], row["metric"], row["unit"]), {})[row["variant"]] = row
    return result


def _curves(content: Mapping[str, Any]) -> Iterator[Drawing]:
    rows = content["learning_curves"]
    for dataset, prop in dict.fromkeys((row["dataset"], row["property"]) for row in rows):
        own = [row for row in rows if (row["dataset"], row["property"]) == (dataset, prop) and row["mean"] > 0]
        if prop in _DRAWN and len({row["fraction"] for row in own}) > 1:
            title = f"{property_title(prop)}, {dataset}"
            yield Drawing(fraction_figure(own, title), f"Error of {title} against the fraction of the training data")


def _accuracy(content: Mapping[str, Any]) -> Iterator[Drawing]:
    seconds = {row["variant"]: row["processor_seconds"] for row in content["costs"]}
    rows = [row for row in content["errors"] if row["metric"] == "rmse" and seconds.get(row["variant"])]
    for dataset, prop in dict.fromkeys((row["dataset"], row["property"]) for row in rows):
        own = [row for row in rows if (row["dataset"], row["property"]) == (dataset, prop)]
        if prop in _DRAWN and len(own) > 1:
            title = f"{property_title(prop)}, {dataset}"
            points = [(row["variant"], seconds[row["variant"]], row["mean"], row["sd"]) for row in own]
            svg = accuracy_figure(points, title, own[0]["unit"])
            yield Drawing(svg, f"Error of {title} against the processor time of training")


def _agreement(content: Mapping[str, Any]) -> Iterator[PointPlot]:
    for row in content["agreement"]:
        if row["property"] in _DRAWN and row["n"] <= _MAX_POINTS:
            name = f"{row['variant']} against {row['baseline']}, {property_title(row['property'])}, {row['dataset']}"
            yield agreement_plot(row, name)
