"""The data of a student from its teachers, and its loss."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hesse.datasets import Dataset, open_datasets, write_dataset
from hesse.engines.names import path_in_name
from hesse.errors import ConfigError, RequestError, UnknownElementError
from hesse.labelling import spread_weights, teacher_labels
from hesse.labelling.ledger_records import geometry_digest
from hesse.losses import LossWeights
from hesse.potential import structure_at
from hesse.recipes.protocols.recipe_settings import Files
from hesse.recipes.protocols.stages import Stage, StageWork
from hesse.recipes.protocols.teacher_checks import Agreement, compare_energies, energies_per_atom
from hesse.structures import COLUMNS, Properties, species_name

__all__ = [
    "Targets",
    "check_held_out",
    "loss_terms",
    "open_data",
    "open_unlabeled",
    "student_data",
    "student_data_stage",
]

LABELS = "labels.h5"
"""File of the student's labels in the folder of its stage."""


@dataclass(frozen=True)
class Targets:
    """Labels of a student.

    Attributes:
        true: labels that are taken from the data; all others are those of the teachers.
        probes: number of Hessian-vector products of each structure.
        probe: distribution of their directions.
        seed: seed of their directions.
        hessian: full Hessians, from which training makes products with fresh probes.
        atomic_energies: energies of atoms.
        spread_weights: structures are weighted by the spread of the teachers' forces.
        energies: energies are among the labels; not those of teachers that were trained on forces alone, which differ
            by constants.
    """

    true: tuple[str, ...] = ()
    probes: int = 1
    probe: str = "rademacher"
    seed: int = 0
    hessian: bool = False
    atomic_energies: bool = False
    spread_weights: bool = False
    energies: bool = True


def open_data(files: Files) -> Dataset:
    """Read the structures of one file or several.

    Args:
        files: the files.

    Returns:
        All structures with their labels, without those that are flagged as suspect.

    Raises:
        HesseError: a file that cannot be read.
    """
    data = open_datasets(_as_tuple(files))
    assert isinstance(data, Dataset)
    return data.without_suspects()


def open_unlabeled(files: Files, data: Dataset) -> Dataset:
    """Read further structures for a student.

    Args:
        files: their files.
        data: the labeled structures.

    Returns:
        The structures that are not among the labeled ones (the same id and geometry), without labels.

    Raises:
        UnknownElementError: an element that no labeled structure has.
        RequestError: another geometry under the id of a labeled structure, or nothing new at all.
        HesseError: a file that cannot be read.
    """
    further = open_data(files)
    known = {s.id: geometry_digest(s) for s in data.structures}
    others = [s.id for s in further.structures if known.get(s.id, geometry_digest(s)) != geometry_digest(s)]
    if others:
        raise RequestError(
            f"{further.source}: {len(others)} structures have ids of labeled ones with other geometries "
            f'("{others[0]}"): give them other ids'
        )
    new = [k for k, s in enumerate(further.structures) if s.id not in known]
    if not new:
        raise RequestError(f"{further.source}: all structures are in {data.source} too: leave out unlabeled")
    further = further.select(new)
    unknown = [atom for atom, z in enumerate(further.numbers.tolist()) if z not in data.elements]
    if unknown:
        where = structure_at(further.ids, further.n_atoms, further.source)(unknown[0])
        raise UnknownElementError(
            f"{where} holds {species_name(int(further.numbers[unknown[0]]))}, which no labeled structure has: the "
            "teachers would not know it. Leave it out, or label a structure with it."
        )
    return Dataset(further.structures, Properties(n_atoms=further.n_atoms), source=further.source)


def check_held_out(data: Dataset, fraction: float, *, by_group: bool) -> None:
    """Check that a part of the data can be held out.

    Args:
        data: the data.
        fraction: the fraction to hold out.
        by_group: whether groups stay together.

    Raises:
        RequestError: too few structures or groups.
    """
    try:
        data.split(1 - fraction, fraction, by_group=by_group)
    except RequestError:
        names = {g if by_group and g else f"id:{name}" for g, name in zip(data.groups, data.ids, strict=True)}
        raise RequestError(
            f"{data.source}: {len(data)} structures in {len(names)} groups (molecules, reactions) are too few to hold "
            f"out {fraction:g} of them: give more, or another validation_fraction"
            f"{', or by_group: false' if by_group and len(names) < len(data) else ''}"
        ) from None


def student_data(data: Dataset, predicted: Dataset, targets: Targets, *, agreement: Agreement | None = None) -> Dataset:
    """Labels of a student: those of its teachers, and true ones.

    If true energies are trained together with energies of atoms, these are shifted by the energies per element in which
    teachers and labels differ, so that both have the same sum.

    Args:
        data: the structures, with their true labels.
        predicted: labels of the teachers for the same structures.
        targets: which labels are true, and the weights.
        agreement: the comparison of teachers and labels, for the shift.

    Returns:
        The data set. Labels of teachers keep their spread as their error.
    """
    labels = predicted.labels
    metadata = {**predicted.metadata, "true_labels": ", ".join(targets.true) or "none"}
    if targets.true:
        metadata["true_level"] = str(data.metadata.get("level") or "unknown")
    if "energy" in targets.true and labels.atomic_energies is not None and agreement is not None:
        labels = labels.replace(atomic_energies=labels.atomic_energies + energies_per_atom(data, agreement.shifts))
    if not targets.energies:
        labels = labels.replace(energy=None, energy_error=None)
    for name in targets.true:
        columns = [column for column in (name, f"{name}_mask", f"{name}_error") if column in COLUMNS]
        labels = labels.replace(**{column: data.labels[column] for column in columns})
    if targets.spread_weights:
        labels = labels.replace(weight=spread_weights(predicted.labels))
    return Dataset(data.structures, labels, metadata=metadata, source=predicted.source)


def student_data_stage(
    name: str, files: Files, unlabeled: Files, teachers: Sequence[str], targets: Targets, *, device: str = "cpu"
) -> Stage:
    """A stage that labels structures with teachers, and writes the training data of a student.

    Args:
        name: name of the stage.
        files: structures with their true labels.
        unlabeled: further structures, of which no label is used; may be empty.
        teachers: names of the teachers; their files need not exist yet.
        targets: the labels.
        device: device of the calculation.

    Returns:
        The stage; its product is `labels.h5`. Its results are the agreement of energies and the typical spreads.
    """
    paths = [Path(path) for teacher in teachers if (path := path_in_name(teacher)) is not None]
    inputs = (*_as_tuple(files), *_as_tuple(unlabeled), *paths)

    def work(stage: StageWork) -> dict[str, Any]:
        data = open_data(files)
        if unlabeled:
            data = data + open_unlabeled(unlabeled, data)
        predicted = teacher_labels(
            data, list(teachers), stage.folder / "cache", probes=targets.probes, probe=targets.probe, seed=targets.seed,
            hessian=targets.hessian, atomic_energies=targets.atomic_energies, device=device, quiet=stage.quiet,
        )  # fmt: skip
        agreement = compare_energies(data, predicted.labels) if data.has("energy") else None
        labels = student_data(data, predicted, targets, agreement=agreement)
        write_dataset(stage.folder / LABELS, labels)
        return {
            "structures": len(labels),
            "level": predicted.metadata["level"],
            **_numbers(agreement, labels.labels),
        }

    options = {"teachers": [_without_folder(name) for name in teachers], **vars(targets)}
    if targets.energies:
        del options["energies"]  # so that recipes go on which were begun before there was a choice
    return Stage(name, "labels of the teachers for the student", work, options, inputs, (LABELS,))


def _as_tuple(files: Files) -> tuple[Path, ...]:
    return (files,) if isinstance(files, Path) else tuple(files)


def _without_folder(name: str) -> str:
    """The name of a teacher without the folder of its file, which is known by its hash."""
    path = path_in_name(name)
    return name if path is None else re.sub(re.escape(path), Path(path).name, name)


def _numbers(agreement: Agreement | None, labels: Properties) -> dict[str, Any]:
    """Agreement with the labels and median spreads, as results of a stage."""
    numbers: dict[str, Any] = {}
    if agreement is not None:
        numbers |= {"energy_deviation": agreement.deviation, "energy_variation": agreement.variation}
    for name in ("energy", "forces", "hvp"):
        if (error := labels[f"{name}_error"]) is not None:
            numbers[f"{name}_spread"] = float(error.double().square().reshape(-1, len(labels)).mean(0).sqrt().median())
    return numbers


def loss_terms(weights: LossWeights, *, equal: Sequence[str]) -> list[dict[str, Any]]:
    """Terms of the loss of a student.

    Args:
        weights: weights by name of the term.
        equal: quantities in which all structures count alike, also if they have weights.

    Returns:
        Terms as in the option `loss` of `hesse train`.

    Raises:
        ConfigError: all weights are zero.
    """
    terms = [
        {"quantity": name, "weight": weight, **({"structure_weights": False} if name in equal else {})}
        for name, weight in weights.by_name().items()
        if weight > 0
    ]
    if not terms:
        raise ConfigError("weights: all are zero: there is nothing to train the student on")
    return terms
