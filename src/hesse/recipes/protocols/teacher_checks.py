"""Checks of teachers before any work: do they fit together, and to the labels?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hesse.datasets import Dataset
from hesse.engines import PotentialEngine
from hesse.engines.levels import levels_agree
from hesse.engines.names import path_in_name
from hesse.errors import InconsistentLabelsError, MissingLabelError, RequestError
from hesse.labelling import as_teachers, check_teachers, teacher_labels
from hesse.models import fit_reference_energies, read_model_header
from hesse.structures import Properties, segment_ids

__all__ = ["DOUBTFUL_ABOVE", "Agreement", "compare_energies", "energies_per_atom", "read_teachers"]

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
    return torch.zeros(len(data), dtype=torch.float64).index_add(
        0, segment_ids(data.n_atoms), energies_per_atom(data, shifts)
    )


def energies_per_atom(data: Dataset, shifts: Mapping[int, float]) -> Tensor:
    """The energy of the element of each atom.

    Args:
        data: the structures.
        shifts: energies by atomic number, eV; zero for others.

    Returns:
        eV, `[atoms]`.
    """
    energies = torch.zeros(len(data.numbers), dtype=torch.float64)
    for z, energy in shifts.items():
        energies[data.numbers == z] = energy
    return energies


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
