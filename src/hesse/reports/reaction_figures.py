"""Figures of a reaction: the energy along its path."""

from __future__ import annotations

import numpy as np

from hesse.pes import Reaction
from hesse.reports.figure_style import (
    BASELINE_COLOR,
    MUTED_COLOR,
    OTHER_COLOR,
    TEXT_COLOR,
    figure_style,
    new_figure,
    to_svg,
)

__all__ = ["energy_profile"]


def energy_profile(reaction: Reaction) -> str | None:
    """The energy along the reaction path and along the elastic band, from the reactant to the product.

    Args:
        reaction: the reaction.

    Returns:
        SVG text; None where there is neither.
    """
    if reaction.path is None or reaction.reactant is None:
        return None
    zero = reaction.reactant.energy
    with figure_style():
        figure, axes = new_figure(width=6.4, height=3.4)
        axes.axhline(0.0, color=MUTED_COLOR, linewidth=0.7)
        points = reaction.path_points
        band = reaction.path.images
        shift = 0.0
        if points:
            lengths = np.array([p.path_length for p in points])
            lengths = lengths if reaction.backward_to_reactant else -lengths
            axes.plot(lengths, [p.energy - zero for p in points], color=OTHER_COLOR, label="reaction path")
            shift = band[reaction.path.highest].path_length
        axes.plot(
            [image.path_length - shift for image in band],
            [image.energy - zero for image in band],
            "o",
            color=BASELINE_COLOR,
            markersize=4,
            label="elastic band",
        )
        if reaction.barrier is not None and points:
            axes.plot([0.0], [reaction.barrier], "o", color=OTHER_COLOR, markersize=7)
            axes.annotate(
                f"{reaction.barrier:.2f} eV",
                (0.0, reaction.barrier),
                textcoords="offset points",
                xytext=(8, 4),
                color=TEXT_COLOR,
                fontsize=9,
            )
        axes.set_xlabel("path length (Å √u)")
        axes.set_ylabel("energy above the reactant (eV)")
        axes.margins(y=0.12)
        axes.legend()
        return to_svg(figure)
