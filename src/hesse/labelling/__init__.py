"""Label campaigns: energies, forces and curvature of many structures from one engine."""

from hesse.labelling.campaign import label, ledger_path, plan_labels
from hesse.labelling.label_report import Failure, LabelReport, Suspect
from hesse.labelling.plan import LabelPlan
from hesse.labelling.spec import LabelSpec

__all__ = [
    "Failure",
    "LabelPlan",
    "LabelReport",
    "LabelSpec",
    "Suspect",
    "label",
    "ledger_path",
    "plan_labels",
]
