"""Label campaigns: energies, forces and curvature of many structures from one engine."""

from hesse.labelling.campaign import label, ledger_path, plan_labels
from hesse.labelling.completion import CompletionResult, complete_hessians, summary_lines
from hesse.labelling.label_report import Failure, LabelReport, Suspect
from hesse.labelling.plan import LabelPlan
from hesse.labelling.spec import LabelSpec

__all__ = [
    "CompletionResult",
    "Failure",
    "LabelPlan",
    "LabelReport",
    "LabelSpec",
    "Suspect",
    "complete_hessians",
    "label",
    "ledger_path",
    "plan_labels",
    "summary_lines",
]
