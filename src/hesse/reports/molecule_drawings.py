"""Drawings of molecules with displacements as arrows or as motion, which pages can turn."""

from __future__ import annotations

import json

import numpy as np
from ase.data.colors import jmol_colors
from jaxtyping import Float
from matplotlib.colors import to_hex
from matplotlib.patches import Circle
from numpy import ndarray as Array

from hesse.reports.drawing import Drawing
from hesse.reports.figure_style import BASELINE_COLOR, MUTED_COLOR, TEXT_COLOR, figure_style, new_figure, to_svg
from hesse.structures import Structure, bonded_pairs, is_bead, species_radii

__all__ = ["draw_arrows", "draw_motion", "mode_animation", "mode_arrows"]

_ARROW = 1.2
"""Å; length of the longest arrow."""
_SWING = 0.35
"""Å; largest displacement in the animation."""
_FRAMES = 12
"""Frames of one period of the animation."""
_BOND_FACTOR = 1.3


def draw_arrows(structure: Structure, displacements: Float[Array, "n 3"], description: str) -> Drawing:
    """Draw displacements as arrows on a molecule.

    Args:
        structure: the molecule.
        displacements: on each atom, in any unit.
        description: words for screen readers.

    Returns:
        The drawing, which a page can turn.
    """
    svg = mode_arrows(structure, displacements)
    return Drawing(svg, description, _scene(structure, displacements, displacements, "arrows", _ARROW))


def draw_motion(
    structure: Structure, mode: Float[Array, "n 3"], description: str, *, view: Float[Array, "n 3"] | None = None
) -> Drawing:
    """Draw a mode as the motion of a molecule.

    Args:
        structure: the molecule.
        mode: Cartesian displacements in any unit.
        description: words for screen readers.
        view: displacements for which the view is chosen, so that several modes have the same one; by default `mode`.

    Returns:
        The drawing, which a page can turn.
    """
    svg = mode_animation(structure, mode, view=view)
    return Drawing(svg, description, _scene(structure, mode, mode if view is None else view, "motion", _SWING))


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


def _scene(
    structure: Structure, moves: Float[Array, "n 3"], view: Float[Array, "n 3"], kind: str, longest: float
) -> str:
    """The molecule as JSON for `templates/turning.js`: atoms with radius and color, bonds, displacements in Å."""
    positions, moves = _projected(structure, moves, view)
    moves = moves * (longest / max(float(np.linalg.norm(moves, axis=1).max()), 1e-12))
    radii = [_radius(structure, i) for i in range(len(structure))]
    extents = [np.linalg.norm(positions, axis=1) + radii, np.linalg.norm(positions + moves, axis=1)]
    extent = 0.1 + float(np.max(extents))
    atoms = [
        [*np.round(position, 3).tolist(), round(radii[i], 3), _color(structure, i)]
        for i, position in enumerate(positions)
    ]
    return json.dumps(
        {
            "kind": kind,
            "extent": round(extent, 3),
            "color": BASELINE_COLOR,
            "atoms": atoms,
            "bonds": bonded_pairs(structure, _BOND_FACTOR).tolist(),
            "moves": np.round(moves, 3).tolist(),
        },
        separators=(",", ":"),
    )


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
    return 0.45 * float(species_radii(structure.numbers[atom])) + 0.08


def _color(structure: Structure, atom: int) -> str:
    return str(to_hex(jmol_colors[0 if is_bead(structure.numbers[atom]) else structure.numbers[atom]]))
