"""Label campaigns: energies, forces and curvature of many structures from one engine."""

from hesse.labelling.campaign import label, plan_labels
from hesse.labelling.completion import CompletionResult, complete_hessians, summary_lines
from hesse.labelling.label_report import Failure, LabelReport, Suspect
from hesse.labelling.output_files import ledger_path
from hesse.labelling.plan import LabelPlan
from hesse.labelling.spec import LabelSpec
from hesse.labelling.teachers import as_teachers, check_teachers, spread_weights, teacher_labels

__all__ = [
    "CompletionResult",
    "Failure",
    "LabelPlan",
    "LabelReport",
    "LabelSpec",
    "Suspect",
    "as_teachers",
    "check_teachers",
    "complete_hessians",
    "label",
    "ledger_path",
    "plan_labels",
    "spread_weights",
    "summary_lines",
    "teacher_labels",
]
