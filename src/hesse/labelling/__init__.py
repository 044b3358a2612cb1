"""Label campaigns: structures in, labelled structures out."""

from hesse.labelling.campaign import label, ledger_path, plan_labels
from hesse.labelling.plan import LabelPlan
from hesse.labelling.report import Failure, LabelReport, Suspect
from hesse.labelling.request import LabelSpec

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
