"""The files of a campaign: its ledger, and an output that exists before: may it be replaced, and what was in it?"""

from __future__ import annotations

from pathlib import Path

from hesse.datasets import Dataset, read_dataset
from hesse.errors import HesseError, RequestError, first_line

__all__ = ["check_replaceable", "describe_replaced", "ledger_path"]


def ledger_path(output: str | Path) -> Path:
    """Path of the ledger of a campaign, in the folder of its output.

    Args:
        output: output file of the campaign.

    Returns:
        `output` with the ending `.ledger.sqlite` added.
    """
    return Path(f"{output}.ledger.sqlite")


def check_replaceable(output: str | Path, *, overwrite: bool) -> None:
    """Check that nothing is lost if a file is replaced.

    Args:
        output: the output file of a campaign.
        overwrite: replace it in any case.

    Raises:
        RequestError: the file exists, and has no ledger with its labels beside it.
    """
    if Path(output).exists() and not ledger_path(output).exists() and not overwrite:
        raise RequestError(
            f"{output} exists already and is not the output of a campaign (there is no {ledger_path(output).name} with "
            "its labels): it would be lost. Choose another name, or give --overwrite (overwrite=True) to replace it"
        )


def describe_replaced(output: str | Path, dataset: Dataset, *, in_ledger: bool) -> list[str]:
    """Say what an output file held that the new one does not.

    Args:
        output: the file, before it is replaced.
        dataset: its new content.
        in_ledger: what it held is in the ledger of the campaign too.

    Returns:
        A note for each difference: structures that are not among the new ones, another level of theory.
    """
    if not Path(output).exists():
        return []
    try:
        earlier = read_dataset(output, check=False)
    except HesseError as error:
        return [f"{output} could not be read and was replaced ({first_line(error)})"]
    notes = []
    before, now = (str(data.metadata.get("level") or "") for data in (earlier, dataset))
    if before and before != now:
        notes.append(f"{output} held labels of {before}, and now holds those of {now}")
    left = len(set(earlier.ids) - set(dataset.ids))
    if left:
        notes.append(f"{left} structures of {output} are not among the input and are no longer in it")
    if notes and in_ledger:
        notes[-1] += f"; the labels of before stay in {ledger_path(output).name}"
    return notes
