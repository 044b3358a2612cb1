"""Reports: tables for the terminal, a self-contained HTML page, and figures.

Modules are imported at the first use of a name: matplotlib takes two seconds, and most processes draw nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hesse.reports.suite_tables import suite_tables  # its module has the same name, and would hide it

if TYPE_CHECKING:
    from hesse.reports.coarse_figures import draw_bead_comparison
    from hesse.reports.compared_models import ComparedMetric, ComparedModel, Comparison
    from hesse.reports.cost_tables import (
        cell_cost_tables,
        draw_cell_costs,
        draw_label_costs,
        inference_cost_tables,
        label_cost_tables,
        step_cost_tables,
    )
    from hesse.reports.evaluation_page import render_evaluation, write_evaluation_page
    from hesse.reports.figures import draw_summary
    from hesse.reports.html_report import render_report, write_report
    from hesse.reports.literature import PUBLISHED_CHANGES, PUBLISHED_SOURCE, PublishedChange
    from hesse.reports.phonon_figure import draw_phonons
    from hesse.reports.reaction_page import render_campaign, render_reaction, write_reaction_page
    from hesse.reports.survival_figure import draw_survival
    from hesse.reports.tables import comparison_table, error_tables, print_tables, vibration_table, worst_tables

__all__ = [
    "PUBLISHED_CHANGES",
    "PUBLISHED_SOURCE",
    "ComparedMetric",
    "ComparedModel",
    "Comparison",
    "PublishedChange",
    "cell_cost_tables",
    "comparison_table",
    "draw_bead_comparison",
    "draw_cell_costs",
    "draw_label_costs",
    "draw_phonons",
    "draw_summary",
    "draw_survival",
    "error_tables",
    "inference_cost_tables",
    "label_cost_tables",
    "print_tables",
    "render_campaign",
    "render_evaluation",
    "render_reaction",
    "render_report",
    "step_cost_tables",
    "suite_tables",
    "vibration_table",
    "worst_tables",
    "write_evaluation_page",
    "write_reaction_page",
    "write_report",
]

_SOURCES = {
    "ComparedMetric": "compared_models",
    "ComparedModel": "compared_models",
    "Comparison": "compared_models",
    "PUBLISHED_CHANGES": "literature",
    "PUBLISHED_SOURCE": "literature",
    "PublishedChange": "literature",
    "cell_cost_tables": "cost_tables",
    "comparison_table": "tables",
    "draw_bead_comparison": "coarse_figures",
    "draw_cell_costs": "cost_tables",
    "draw_label_costs": "cost_tables",
    "draw_phonons": "phonon_figure",
    "draw_summary": "figures",
    "draw_survival": "survival_figure",
    "error_tables": "tables",
    "inference_cost_tables": "cost_tables",
    "label_cost_tables": "cost_tables",
    "print_tables": "tables",
    "render_campaign": "reaction_page",
    "render_evaluation": "evaluation_page",
    "render_reaction": "reaction_page",
    "render_report": "html_report",
    "step_cost_tables": "cost_tables",
    "vibration_table": "tables",
    "worst_tables": "tables",
    "write_evaluation_page": "evaluation_page",
    "write_reaction_page": "reaction_page",
    "write_report": "html_report",
}


def __getattr__(name: str) -> Any:
    if name not in _SOURCES:
        raise AttributeError(f"module 'hesse.reports' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"hesse.reports.{_SOURCES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
