"""Reports: tables for the terminal, a self-contained HTML page, and figures."""

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
from hesse.reports.suite_tables import suite_tables
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
