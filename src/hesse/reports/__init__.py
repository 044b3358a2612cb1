"""Reports: tables for the terminal, a self-contained HTML page, and a picture for a README."""

from hesse.reports.comparison import Comparison, ComparedModel, ComparedMetric
from hesse.reports.costs import label_cost_tables, draw_label_costs
from hesse.reports.figures import draw_summary
from hesse.reports.published import PUBLISHED_CHANGES, PUBLISHED_SOURCE, PublishedChange
from hesse.reports.report import render_report, write_report
from hesse.reports.step_costs import cell_cost_tables, draw_cell_costs, inference_cost_tables, step_cost_tables
from hesse.reports.tables import comparison_table, error_tables, print_tables

__all__ = [
    "PUBLISHED_CHANGES",
    "PUBLISHED_SOURCE",
    "Comparison",
    "ComparedModel",
    "ComparedMetric",
    "PublishedChange",
    "cell_cost_tables",
    "comparison_table",
    "label_cost_tables",
    "draw_cell_costs",
    "draw_label_costs",
    "draw_summary",
    "error_tables",
    "inference_cost_tables",
    "print_tables",
    "render_report",
    "step_cost_tables",
    "write_report",
]
