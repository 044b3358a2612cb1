"""Errors of harmonic frequencies and zero-point energies: curvature errors in the numbers that chemists use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from hesse.evaluation.model_errors import Evaluation
from hesse.evaluation.parity import symmetrized_hessian
from hesse.harmonic.normal_modes import normal_modes

__all__ = ["VibrationalErrors", "vibrational_errors"]


@dataclass(frozen=True)
class VibrationalErrors:
    """Mean absolute errors of harmonic frequencies and zero-point energies.

    Attributes:
        frequency_mae: mean absolute error of the frequencies of all modes, cm⁻¹.
        zero_point_mae: mean absolute error of the zero-point energies of the molecules, eV.
        n_structures: number of molecules.
        n_modes: number of modes.
        n_imaginary: number of imaginary frequencies by the potential that are real by the reference.
    """

    frequency_mae: float
    zero_point_mae: float
    n_structures: int
    n_modes: int
    n_imaginary: int


def vibrational_errors(evaluation: Evaluation, *, tag: str = "relaxed") -> VibrationalErrors | None:
    """Errors of harmonic frequencies and zero-point energies at the minima of the reference.

    Both Hessians, the reference label and the prediction, are those at the stored geometry, which is a minimum of the
    reference only: the structures are not relaxed with the potential. Translations and rotations are projected out.
    Frequencies are compared in ascending order, imaginary ones as negative numbers; they do not contribute to the
    zero-point energy.

    Args:
        evaluation: evaluation of a potential, with Hessians.
        tag: tag of the structures that are minima of the reference.

    Returns:
        The errors; None if no structure with this tag has a reference Hessian and a predicted one.
    """
    labels, predictions = evaluation.dataset.labels, evaluation.predictions
    both = (labels.mask("hessian") & predictions.mask("hessian")).tolist()
    references = labels.replace(hessian=symmetrized_hessian(labels))
    frequency_errors: list[Float[ndarray, "modes"]] = []
    zero_point_errors: list[float] = []
    n_imaginary = 0
    for index, structure in enumerate(evaluation.dataset.structures):
        if structure.tag != tag or not both[index]:
            continue
        expected, predicted = (
            normal_modes(structure, side.hessian_of(index).numpy()) for side in (references, predictions)
        )
        frequency_errors.append(np.abs(predicted.frequencies - expected.frequencies))
        zero_point_errors.append(abs(predicted.zero_point_energy - expected.zero_point_energy))
        n_imaginary += int(((predicted.frequencies < 0) & (expected.frequencies >= 0)).sum())
    if not frequency_errors:
        return None
    errors = np.concatenate(frequency_errors)
    return VibrationalErrors(
        frequency_mae=float(errors.mean()) if len(errors) else 0.0,
        zero_point_mae=float(np.mean(zero_point_errors)),
        n_structures=len(zero_point_errors),
        n_modes=len(errors),
        n_imaginary=n_imaginary,
    )
