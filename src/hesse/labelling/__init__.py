"""Label campaigns: structures in, labelled structures out."""

from hesse.labelling.campaign import Failure, LabelReport, LabelRequest, label, ledger_path, reason_to_reject

__all__ = ["Failure", "LabelReport", "LabelRequest", "label", "ledger_path", "reason_to_reject"]
