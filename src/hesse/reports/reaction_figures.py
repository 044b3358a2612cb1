"""Figures of a reaction: the energy along its path, and the motion at its transition state."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from jaxtyping import Float
from matplotlib.colors import to_hex
from matplotlib.patches import Circle
from numpy import ndarray as Array

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
from hesse.structures import Structure, bonded_pairs

__all__ = ["energy_profile", "mode_animation", "mode_arrows"]

_ARROW = 1.2
"""Å; length of the longest arrow."""
_SWING = 0.35
"""Å; largest displacement in the animation."""
_FRAMES = 12
"""Frames of one period of the animation."""
_BOND_FACTOR = 1.3


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


def mode_arrows(structure: Structure, mode: Float[Array, "n 3"], *, title: str = "") -> str:
    """The motion of a mode as arrows on the molecule, seen along its shortest extent.

    Args:
        structure: the molecule.
        mode: Cartesian displacements in any unit.
        title: title of the panel.

    Returns:
        SVG text.
    """
    positions, moves = _projected(structure, mode)
    with figure_style():
        figure, axes = new_figure(width=4.4, height=3.6)
        for i, j in bonded_pairs(structure, _BOND_FACTOR):
            axes.plot(*positions[[i, j], :2].T, color=MUTED_COLOR, linewidth=2.5, zorder=1)
        order = np.argsort(positions[:, 2])
        for rank, i in enumerate(order):
            axes.add_patch(
                Circle(
                    tuple(positions[i, :2]),
                    _radius(structure, i),
                    facecolor=_color(structure, i),
                    edgecolor=TEXT_COLOR,
                    linewidth=0.6,
                    zorder=2 + rank / len(order),
                )
            )
        scale = _ARROW / max(float(np.linalg.norm(moves[:, :2], axis=1).max()), 1e-12)
        for start, move in zip(positions[:, :2], scale * moves[:, :2], strict=True):
            if np.linalg.norm(move) > 0.15:  # Å; shorter ones would be heads only
                axes.annotate(
                    "",
                    start + move,
                    start,
                    arrowprops={"arrowstyle": "-|>", "color": BASELINE_COLOR, "linewidth": 1.6},
                    zorder=4,
                )
        axes.set_aspect("equal")
        axes.axis("off")
        axes.margins(0.25)
        if title:
            axes.set_title(title)
        return to_svg(figure)


def mode_animation(
    structure: Structure,
    mode: Float[Array, "n 3"],
    *,
    view: Float[Array, "n 3"] | None = None,
    width: int = 440,
    height: int = 360,
) -> str:
    """The motion of a mode as an animated drawing, without a script.

    Args:
        structure: the molecule.
        mode: Cartesian displacements in any unit.
        view: displacements for which the view is chosen, so that several modes have the same one; by default `mode`.
        width: pixels.
        height: pixels.

    Returns:
        SVG text.
    """
    positions, moves = _projected(structure, mode, view)
    moves = moves * (_SWING / max(float(np.linalg.norm(moves, axis=1).max()), 1e-12))
    low, high = positions[:, :2].min(axis=0) - 1.2, positions[:, :2].max(axis=0) + 1.2
    scale = min(width / (high[0] - low[0]), height / (high[1] - low[1]))
    middle = 0.5 * (low + high)
    phases = np.sin(2.0 * np.pi * np.arange(_FRAMES + 1) / _FRAMES)

    def pixels(atom: int, axis: int) -> list[str]:
        sign, center = (1.0, 0.5 * width) if axis == 0 else (-1.0, 0.5 * height)
        places = positions[atom, axis] + phases * moves[atom, axis] - middle[axis]
        return [f"{center + sign * scale * x:.1f}" for x in places]

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    ]
    for i, j in bonded_pairs(structure, _BOND_FACTOR).tolist():
        names = (("x1", i, 0), ("y1", i, 1), ("x2", j, 0), ("y2", j, 1))
        parts.append(
            _animated(
                "line", {name: pixels(k, axis) for name, k, axis in names}, f'stroke="{MUTED_COLOR}" stroke-width="4"'
            )
        )
    for i in np.argsort(positions[:, 2]).tolist():
        radius = scale * _radius(structure, i)
        parts.append(
            _animated(
                "circle",
                {"cx": pixels(i, 0), "cy": pixels(i, 1)},
                f'r="{radius:.1f}" fill="{_color(structure, i)}" stroke="{TEXT_COLOR}" stroke-width="0.8"',
            )
        )
    return "\n".join([*parts, "</svg>"])


def _animated(kind: str, places: dict[str, list[str]], style: str) -> str:
    """An element of SVG whose attributes change with time."""
    attributes = " ".join(f'{name}="{values[0]}"' for name, values in places.items())
    steps = "".join(
        f'<animate attributeName="{name}" dur="1.2s" repeatCount="indefinite" values="{";".join(values)}"/>'
        for name, values in places.items()
    )
    return f"<{kind} {attributes} {style}>{steps}</{kind}>"


def _projected(
    structure: Structure, mode: Float[Array, "n 3"], view: Float[Array, "n 3"] | None = None
) -> tuple[Float[Array, "n 3"], Float[Array, "n 3"]]:
    """Positions and displacements in the axes of the drawing: the longest extent of both first, the view along the
    shortest."""
    centered = structure.positions - structure.positions.mean(axis=0)
    seen = mode if view is None else view
    longest = max(float(np.linalg.norm(seen, axis=1).max()), 1e-12)
    axes = np.linalg.svd(np.vstack([centered, seen * (_ARROW / longest)]))[2]
    return centered @ axes.T, np.asarray(mode) @ axes.T


def _radius(structure: Structure, atom: int) -> float:
    return 0.45 * float(covalent_radii[structure.numbers[atom]]) + 0.08


def _color(structure: Structure, atom: int) -> str:
    return str(to_hex(jmol_colors[structure.numbers[atom]]))
