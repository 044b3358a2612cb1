"""Drawings of transition states whose imaginary mode a potential gets wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from hesse.evaluation import Evaluation
from hesse.evaluation.curvature_errors import mode_overlap
from hesse.evaluation.reaction_errors import REACTION_TAGS
from hesse.harmonic.normal_modes import normal_modes
from hesse.reports.drawing import Drawing
from hesse.reports.molecule_drawings import draw_motion

__all__ = ["DrawnModes", "worst_modes"]

_COMPARED: Final = 200
"""Transition states that are compared; of more, so many are taken that are spread evenly."""
_MAX_ATOMS: Final = 60
"""Larger molecules make large pages, and their modes cannot be recognized."""


@dataclass(frozen=True)
class DrawnModes:
    """The imaginary mode of a transition state, by the reference, and the lowest mode of the potential there.

    Attributes:
        id: id of the structure.
        overlap: |cos| between both in mass-weighted coordinates.
        frequencies: those of reference and potential, cm⁻¹, negative where imaginary.
        drawings: animations of both, seen from the same side.
    """

    id: str
    overlap: float
    frequencies: tuple[float, float]
    drawings: tuple[Drawing, Drawing]


def worst_modes(evaluation: Evaluation, n: int = 3) -> list[DrawnModes]:
    """Draw the transition states whose imaginary mode differs most from that of the reference.

    Args:
        evaluation: with reference and predicted Hessians; otherwise nothing is drawn.
        n: how many.

    Returns:
        The worst first, by the overlap of both modes.
    """
    labels, predictions = evaluation.dataset.labels, evaluation.predictions
    both = (labels.mask("hessian") & predictions.mask("hessian")).cpu().numpy()
    structures = evaluation.dataset.structures
    saddles = [
        i
        for i in np.flatnonzero(both).tolist()
        if REACTION_TAGS.get(structures[i].tag) == "saddle" and 2 < len(structures[i]) <= _MAX_ATOMS
    ]
    compared = []
    for i in saddles[:: max(1, -(-len(saddles) // _COMPARED))]:
        reference, predicted = (
            normal_modes(structures[i], side.hessian_of(i).double().cpu().numpy()) for side in (labels, predictions)
        )
        overlap = mode_overlap(reference, predicted, 0) if reference.n_imaginary else None
        if overlap is not None:
            compared.append((overlap, i, reference, predicted))
    result = []
    for overlap, i, reference, predicted in sorted(compared, key=lambda item: item[:2])[:n]:
        structure, view = structures[i], reference.cartesian[0]
        sign = np.copysign(1.0, np.vdot(reference.vectors[0], predicted.vectors[0]))
        frequencies = float(reference.frequencies[0]), float(predicted.frequencies[0])
        drawings = (
            draw_motion(structure, view, f"The imaginary mode of {structure.id} by the reference"),
            draw_motion(
                structure,
                sign * predicted.cartesian[0],
                f"The lowest mode of {structure.id} by the potential",
                view=view,
            ),
        )
        result.append(DrawnModes(structure.id, overlap, frequencies, drawings))
    return result
