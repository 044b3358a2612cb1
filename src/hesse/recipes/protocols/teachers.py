"""What recipes with teachers have in common: checks before any work, the data of the student, and its loss."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from hesse.datasets import Dataset, open_datasets, write_dataset
from hesse.engines import PotentialEngine
from hesse.engines.levels import levels_agree
from hesse.engines.names import path_in_name
from hesse.errors import ConfigError, InconsistentLabelsError, MissingLabelError, RequestError, UnknownElementError
from hesse.labelling import as_teachers, check_teachers, spread_weights, teacher_labels
from hesse.labelling.ledger import geometry_digest
from hesse.losses import LossWeights
from hesse.models import fit_reference_energies, read_model_header
from hesse.potential import structure_at
from hesse.recipes.protocols.recipe_settings import Files
from hesse.recipes.protocols.stages import Stage, StageWork
from hesse.structures import COLUMNS, Properties, segment_ids

__all__ = [
    "DOUBTFUL_ABOVE",
    "Agreement",
    "Targets",
    "check_held_out",
    "compare_energies",
    "loss_terms",
    "open_data",
    "open_unlabeled",
    "read_teachers",
    "student_data",
    "student_data_stage",
]

LABELS = "labels.h5"
"""File of the student's labels in the folder of its stage."""
WRONG_ABOVE = 0.7
"""A teacher whose energies deviate by more than this fraction of the variation of the labels is refused. ANI-1x (DFT)
against GFN2-xTB on reactants, transition states and products: 0.40; the same with energies in Hartree: 0.96."""
DOUBTFUL_ABOVE = 0.2
"""Above this fraction there is a remark."""
CHECKED = 64
"""Number of structures on which teachers are compared with labels before any work."""


@dataclass(frozen=True)
class Agreement:
    """Energies of teachers compared with labels, after energies per element were fitted to the difference.

    Attributes:
        deviation: root mean square of what remains, eV.
        variation: that of the labels themselves after a fit of energies per element, eV.
        shifts: fitted energies per element, labels minus teachers, eV by atomic number.
        n: number of structures.
    """

    deviation: float
    variation: float
    shifts: Mapping[int, float]
    n: int

    @property
    def ratio(self) -> float:
        """Deviation as a fraction of the variation."""
        return self.deviation / max(self.variation, 1e-12)


@dataclass(frozen=True)
class Targets:
    """What the labels of a student are.

    Attributes:
        true: labels that are taken from the data; all others are those of the teachers.
        probes: number of Hessian-vector products of each structure.
        probe: distribution of their directions.
        seed: seed of their directions.
        hessian: full Hessians, from which training makes products with fresh probes.
        atomic_energies: energies of atoms.
        spread_weights: structures are weighted by the spread of the teachers' forces.
    """

    true: tuple[str, ...] = ()
    probes: int = 1
    probe: str = "rademacher"
    seed: int = 0
    hessian: bool = False
    atomic_energies: bool = False
    spread_weights: bool = False


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
            f"{where} holds {chemical_symbols[int(further.numbers[unknown[0]])]}, which no labeled structure has: the "
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
            f"out {fraction:g} of them: give more, another validation_fraction, or by_group: false"
        ) from None


def read_teachers(
    names: Sequence[str], data: Dataset, *, atomic_energies: bool, true: Sequence[str], allow_mixed_levels: bool
) -> tuple[list[str], Agreement | None]:
    """Load the teachers and check that they fit together and to the data.

    Args:
        names: names of the teachers.
        data: the structures of the student, with their labels, if any.
        atomic_energies: whether energies of atoms are needed.
        true: labels of the data that the student is trained on.
        allow_mixed_levels: whether several levels of theory may be mixed.

    Returns:
        Remarks; and the comparison of energies, if the data have them.

    Raises:
        RequestError: a teacher that is no potential, or without energies of atoms; several levels of theory.
        UnknownElementError: an element that a teacher does not know.
        InconsistentLabelsError: a teacher that contradicts the energies of the data.
        MissingLabelError: the data lack a label in `true`.
    """
    teachers = as_teachers(list(names))
    check_teachers(teachers, data.structures, atomic_energies=atomic_energies)
    for label in true:
        if not data.has(label):
            raise MissingLabelError(f"{data.source}: no structure has {label}, which the student is to be trained on")
    _check_levels(names, teachers, data, true, allow_mixed=allow_mixed_levels)
    remarks: list[str] = []
    with_energy = data.mask("energy").nonzero()[:, 0]
    if len(with_energy) <= 2 * len(data.elements):
        return remarks, None
    sample = data.select(with_energy[:: max(1, len(with_energy) // CHECKED)][:CHECKED])
    agreement = None
    for teacher in teachers:
        agreement = compare_energies(sample, teacher_labels(sample, teacher, probes=0, quiet=True).labels)
        remarks += _judge(teacher, agreement, data, used="energy" in true)
    return remarks, agreement


def _judge(teacher: PotentialEngine, agreement: Agreement, data: Dataset, *, used: bool) -> list[str]:
    """A remark about a doubtful teacher. Raises InconsistentLabelsError for a wrong one."""
    compared = (
        f"the energies of the teacher {teacher.level} deviate by {agreement.deviation:.2g} eV from the labels of "
        f"{data.source} ({agreement.n} structures), after energies per element were fitted; the labels themselves vary "
        f"by {agreement.variation:.2g} eV"
    )
    if agreement.ratio > WRONG_ABOVE and used:
        raise InconsistentLabelsError(
            f"{compared}. Energies per element do not explain that: another unit, other molecules than the teacher was "
            "trained on, or labels in another order? Take another teacher, or none of the labels (true_labels: [])."
        )
    return [f"{compared}: another level of theory, or a poor teacher"] if agreement.ratio > DOUBTFUL_ABOVE else []


def _check_levels(
    names: Sequence[str], teachers: Sequence[PotentialEngine], data: Dataset, true: Sequence[str], *, allow_mixed: bool
) -> None:
    """Raise RequestError if labels of several levels of theory would be mixed."""
    if allow_mixed:
        return
    known = {t.level: level for name, t in zip(names, teachers, strict=True) if (level := _level_of_model(name))}
    levels = list(dict.fromkeys(known.values()))
    if len(levels) > 1:
        raise RequestError(
            f"the teachers were trained on several levels of theory: {'; '.join(levels)}. Their mean has no meaning: "
            "take teachers of one level, or write allow_mixed_levels: true."
        )
    own = str(data.metadata.get("level") or "")
    if true and "; " in own:
        raise RequestError(
            f"{data.source}: labels of several levels of theory: {own}. Train on one of them, or write "
            "allow_mixed_levels: true."
        )
    if true and own and levels and not levels_agree(own, levels[0]):
        raise RequestError(
            f"the labels of {data.source} ({', '.join(true)}) are of {own}, and {next(iter(known))} was trained on "
            f"{levels[0]}: forces of one and energies of another level contradict each other. Take all targets from "
            "the teacher (true_labels: []), another teacher, or write allow_mixed_levels: true."
        )


def _level_of_model(name: str) -> str:
    """The level of theory of the training data of a `.hesse` file; empty if it is not known."""
    path = path_in_name(name)
    if path is None or not path.endswith(".hesse"):
        return ""
    return str(read_model_header(path)["provenance"].get("level") or "")


def compare_energies(data: Dataset, predicted: Properties) -> Agreement:
    """Compare energies with labels, apart from energies per element.

    Args:
        data: labeled structures; those without an energy do not count.
        predicted: energies of the same structures.

    Returns:
        The comparison.

    Raises:
        MissingLabelError: no structure has an energy.
    """
    labels = data.energies()
    if labels.energy is None or predicted.energy is None:
        raise MissingLabelError(f"{data.source}: no energies to compare with")
    shifts, deviation = _residuals(data, labels.replace(energy=labels.energy - predicted.energy))
    _, variation = _residuals(data, labels)
    mask = labels.mask("energy")
    return Agreement(_rms(deviation[mask]), _rms(variation[mask]), shifts, int(mask.sum()))


def _residuals(data: Dataset, labels: Properties) -> tuple[dict[int, float], Tensor]:
    """Energies per element that fit best, and what remains of the energies."""
    fitted = fit_reference_energies(data.numbers, labels, data.elements)
    shifts = dict(zip(data.elements, fitted.tolist(), strict=True))
    assert labels.energy is not None
    return shifts, labels.energy - _composition_energies(data, shifts)


def _composition_energies(data: Dataset, shifts: Mapping[int, float]) -> Tensor:
    return torch.zeros(len(data), dtype=torch.float64).index_add(0, segment_ids(data.n_atoms), _per_atom(data, shifts))


def _per_atom(data: Dataset, shifts: Mapping[int, float]) -> Tensor:
    """The energy of the element of each atom."""
    table = torch.zeros(119, dtype=torch.float64)
    for z, energy in shifts.items():
        table[z] = energy
    return table[data.numbers.long()]


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


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
        labels = labels.replace(atomic_energies=labels.atomic_energies + _per_atom(data, agreement.shifts))
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
            **_numbers(agreement, predicted.labels),
        }

    options = {"teachers": [_without_folder(name) for name in teachers], **vars(targets)}
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
