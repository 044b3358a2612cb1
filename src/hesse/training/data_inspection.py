"""Checks of the data before the first step of a run: structures that training and validation share, labels that are
far from all others, labels of another level of theory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hesse.datasets import DatasetLike, Outlier, find_outliers
from hesse.datasets.quality.duplicates import same_geometry_in
from hesse.errors import LabelValueError, RequestError
from hesse.training.config import TrainConfig

__all__ = ["inspect_data", "level_messages", "outlier_messages", "shared_structure_messages"]

_MAX_NAMES = 5


def inspect_data(training: DatasetLike, validation: DatasetLike | None, config: TrainConfig) -> list[str]:
    """Look for structures and labels that make a run worthless.

    Args:
        training: training data.
        validation: validation data, if any.
        config: settings of the run.

    Returns:
        Warnings that name the structures.

    Raises:
        RequestError: all validation structures are training structures, and `config.allow_shared_structures` is off.
        LabelValueError: a label that no structure of atoms can have.
    """
    labels = config.make_loss().quantities()
    if "hvp" in labels and config.probe.source == "fresh":
        labels = (*labels, "hessian")
    parts = {"training": training} | ({} if validation is None else {"validation": validation})
    messages = [text for name, data in parts.items() for text in outlier_messages(data, labels, name)]
    messages += level_messages(training, validation)
    if validation is not None:
        messages += shared_structure_messages(training, validation, allow_all=config.allow_shared_structures)
    return messages


def outlier_messages(data: DatasetLike, labels: Sequence[str], name: str) -> list[str]:
    """Describe labels that are far from those of all other structures (`hesse.datasets.find_outliers`).

    Args:
        data: the data.
        labels: the labels that are used.
        name: what the data are, "training" or "validation".

    Returns:
        One warning for each kind of label with outliers.

    Raises:
        LabelValueError: a label that no structure of atoms can have.
    """
    outliers = find_outliers(data, labels)
    impossible = [outlier for outlier in outliers if outlier.impossible]
    if impossible:
        raise LabelValueError(
            f"{data.source}: labels that no structure of atoms can have: {_listed(impossible)} ({len(impossible)} of "
            f"{len(data)} {name} structures). Correct or remove them; `hesse convert FILE NEW.h5 --flag-suspect` keeps "
            "the labels and leaves these structures out. If it is most of them, the unit of the file is another one."
        )
    return [
        f"warning: {name} data: {_DESCRIPTIONS[label](of_label[0])}: {_listed(of_label)}: {len(of_label)} of "
        f"{len(data)} structures. One wrong label can spoil a model: check them, and remove them or give them the "
        "weight 0 if they are wrong."
        for label in ("energy", "forces", "hvp", "hessian")
        if (of_label := [outlier for outlier in outliers if outlier.label == label])
    ]


_DESCRIPTIONS = {
    "energy": lambda o: (
        "energies far from those of the other structures (after fitted energies per element, nine tenths are within "
        f"{o.typical:.2g} eV per atom)"
    ),
    "forces": lambda o: (
        "forces far above those of the other structures (of nine tenths of them, the largest force on an atom is "
        f"within {o.typical:.2g} eV/Å of the median)"
    ),
    "hvp": lambda o: (
        "Hessian-vector products far above those of the other structures (for nine tenths of them, a probe of length "
        f"one gives a product within {o.typical:.2g} eV/Å² of the median)"
    ),
    "hessian": lambda o: (
        "Hessians far above those of the other structures (of nine tenths of them, the largest element is within "
        f"{o.typical:.2g} eV/Å² of the median)"
    ),
}


def _listed(outliers: Sequence[Outlier]) -> str:
    """Names and values of the first outliers."""
    texts = []
    for o in outliers[:_MAX_NAMES]:
        off = f", {o.distance:.3g} eV per atom off" if o.label == "energy" and not o.impossible else ""
        texts.append(f'"{o.id}" ({o.label} {o.value:.4g} {o.unit}{off})')
    more = len(outliers) - _MAX_NAMES
    return ", ".join(texts) + (f" and {more} more" if more > 0 else "")


def level_messages(training: DatasetLike, validation: DatasetLike | None) -> list[str]:
    """Compare the stated levels of theory.

    Args:
        training: training data.
        validation: validation data, if any.

    Returns:
        A warning if training files are of several levels, or validation data of another one.
    """
    levels = [str(data.metadata.get("level") or "").strip() for data in (training, validation) if data is not None]
    messages = []
    if "; " in levels[0]:  # written by the joining of files
        messages.append(f"warning: the training files have labels of different levels of theory: {levels[0]}")
    if len(levels) == 2 and all(levels) and levels[0].lower() != levels[1].lower():
        messages.append(f"warning: the training labels are of {levels[0]}, the validation labels of {levels[1]}")
    return messages


def shared_structure_messages(training: DatasetLike, validation: DatasetLike, *, allow_all: bool = False) -> list[str]:
    """Look for validation structures whose geometry or id is in the training data.

    Args:
        training: training data.
        validation: validation data.
        allow_all: warn instead of refusing if all validation structures are training structures.

    Returns:
        Warnings that count and name the structures.

    Raises:
        RequestError: all validation structures are training structures, and `allow_all` is off.
    """
    same = same_geometry_in(validation.geometry_parts, len(validation), training.geometry_parts, len(training))
    ids, training_ids = validation.ids, training.ids
    shared = np.flatnonzero(same >= 0).tolist()
    names = [
        f'"{ids[i]}"'
        + ("" if ids[i] == training_ids[same[i]] else f' ("{training_ids[same[i]]}" in the training data)')
        for i in shared[:_MAX_NAMES]
    ]
    listed = ", ".join(names) + (f" and {len(shared) - _MAX_NAMES} more" if len(shared) > _MAX_NAMES else "")
    if len(shared) == len(validation) and not allow_all:
        raise RequestError(
            f"{validation.source}: all {len(shared)} validation structures are training structures too (their "
            f"geometries are the same): {listed}. Errors on structures that the model was fitted to say nothing about "
            "others. Give other structures, leave out the validation data to hold out a part (data."
            "validation_fraction), or write allow_shared_structures: true if that is meant."
        )
    messages = []
    if shared:
        messages.append(
            f"warning: {len(shared)} of {len(validation)} validation structures are in the training data too (the same "
            f"geometry): {listed}. The model is fitted to them, so that its validation errors are too small: remove "
            "them from one of the two."
        )
    repeated = list(_repeated_ids(ids, training_ids, same))
    if repeated:
        more = f" and {len(repeated) - _MAX_NAMES} more" if len(repeated) > _MAX_NAMES else ""
        messages.append(
            f"warning: {len(repeated)} ids of validation structures are ids of other geometries in the training data: "
            + ", ".join(f'"{name}"' for name in repeated[:_MAX_NAMES])
            + f"{more}. If they are the same molecules, validation errors are those of known molecules."
        )
    return messages


def _repeated_ids(ids: Sequence[str], training_ids: Sequence[str], same: np.ndarray) -> Iterator[str]:
    """Ids of validation structures that training structures of another geometry have."""
    known = set(training_ids)
    return (name for name, index in zip(ids, same.tolist(), strict=True) if index < 0 and name in known)
