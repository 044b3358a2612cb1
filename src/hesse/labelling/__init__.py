"""Label campaigns: structures in, labelled structures out."""

from hesse.labelling.campaign import label, ledger_path, plan_labels
from hesse.labelling.plan import LabelPlan
from hesse.labelling.report import Failure, LabelReport, Suspect
from hesse.labelling.request import LabelRequest

__all__ = [
    "Failure",
    "LabelPlan",
    "LabelReport",
    "LabelRequest",
    "Suspect",
    "label",
    "ledger_path",
    "plan_labels",
]
