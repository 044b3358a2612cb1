"""Whether a model was trained on the structures on which it is judged."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Final

from hesse.datasets import Dataset
from hesse.datasets.quality.duplicates import same_geometry_in
from hesse.errors import FileFormatError, RequestError
from hesse.models import best_model, is_run_folder, read_model_header
from hesse.training.run_data import run_data

__all__ = ["training_overlap_note"]

_MAX_STRUCTURES: Final = 200_000
"""Training data of more structures are not read only to say this."""


def training_overlap_note(model: str | Path, dataset: Dataset) -> str | None:
    """Count the structures that a model was trained on, by their geometries, as training itself does.

    Args:
        model: file of the model, in the folder of its run, or that folder.
        dataset: the structures on which it is judged.

    Returns:
        A note if there are some, or if the training data cannot be read any more; None if there are none, or nothing
        is known about the training data.
    """
    file = best_model(model) if is_run_folder(model) else Path(model)
    if file.suffix != ".hesse" or not file.is_file():
        return None
    provenance = read_model_header(file)["provenance"]
    if provenance.get("data_hash") == dataset.content_hash():
        return _note(len(dataset), len(dataset))
    run = file.parent
    if file.name != "model.hesse" or not (run / "data.json").exists():
        return None
    n_training = int(provenance.get("structures") or 0)
    if n_training > _MAX_STRUCTURES:
        return f"it was not checked whether structures were trained on: there are {n_training:,} training structures"
    if _was_streamed(run):
        return f"it was not checked whether structures were trained on: {run} streamed its training data"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # training has told what is wrong with its data
            training = run_data(run, "train")
    except (FileFormatError, RequestError):
        return (
            f"it was not checked whether structures were trained on: the training data of {run} were moved or have "
            "changed"
        )
    same = same_geometry_in(dataset.geometry_parts, len(dataset), training.geometry_parts, len(training))
    n_shared = int((same >= 0).sum())
    return _note(n_shared, len(dataset)) if n_shared else None


def _was_streamed(run: Path) -> bool:
    """Whether a run limited the memory of its training data; of a damaged record nothing is known."""
    try:
        return "memory_mib" in json.loads((run / "data.json").read_text(encoding="utf-8"))["parts"]["train"]
    except (ValueError, KeyError, TypeError):
        return False


def _note(n_shared: int, n_structures: int) -> str:
    what = f"all {n_structures} structures" if n_shared == n_structures else f"{n_shared} of {n_structures} structures"
    return (
        f"{what} were trained on (the same geometry is in the training data): errors on them say nothing about others. "
        "Judge the model on other data"
    )
