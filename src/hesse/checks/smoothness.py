"""Continuity of energy, forces, curvature and third derivative, at the cutoff and elsewhere.

Signature of all checks: see `hesse.checks.catalog.Check`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from hesse.checks.builtin_structures import make_structure
from hesse.checks.check_result import Outcome, skipped
from hesse.checks.context import CheckContext, random_directions
from hesse.checks.discontinuities import Discontinuity, ScanPath, find_discontinuities
from hesse.structures import Structure, species_radii

SPACING = 0.04
"""Spacing of the grid points of a search, Å."""
DRAG_MARGIN = 0.5
CUTOFF_TOLERANCE = 1e-3
"""A discontinuity within this distance (Å) of the cutoff is attributed to the cutoff."""
SMOOTHNESS_CLASSES = ("C⁻¹", "C⁰", "C¹", "C²")
JUMPS = ("energy jumps", "forces jump", "curvature jumps", "third derivative jumps")
UNITS = ("eV", "eV/Å", "eV/Å²", "eV/Å³")
DEFAULT_DRAG_CUTOFF = 6.0
"""Å; how far an atom is moved away if the potential has no finite cutoff."""


def check_cutoff(context: CheckContext) -> Outcome:
    """Continuity where an atom moves beyond the cutoff of its neighbors. The value is k of the smoothness class Cᵏ: −1
    if the energy jumps, 0 if the forces do, 1 the curvature, 2 the third derivative, 3 if none does."""
    if context.dtype != torch.float64:
        return skipped("discontinuities can be found in float64 only")
    cutoff = context.potential.cutoff
    if not 0 < cutoff < math.inf:
        return skipped("the potential has no finite cutoff")
    path, crossings = _drag_path(context)
    brackets = [(s - 0.01, s + 0.01) for s in crossings]
    discontinuities = [j for j in find_discontinuities(context, path, brackets) if _is_near(j, crossings)]
    return _smoothness_outcome(discontinuities, f"at the cutoff of {cutoff:g} Å")


def check_smooth(context: CheckContext) -> Outcome:
    """Continuity along the rest of the path of `check_cutoff`, and along random directions from the molecules."""
    if context.dtype != torch.float64:
        return skipped("discontinuities can be found in float64 only")
    path, crossings = _drag_path(context)
    discontinuities = [
        (j, "an atom is moved away") for j in find_discontinuities(context, path) if not _is_near(j, crossings)
    ]
    cutoff = context.potential.cutoff
    for structure, along in zip(context.molecules, random_directions(context.molecules, seed=41), strict=True):
        line = _line_path(structure, 0.3 * along / np.abs(along).max())
        for jump in find_discontinuities(context, line):
            distances = _distances(line.structure_at(jump.coordinate))
            if not np.any(np.abs(distances - cutoff) < CUTOFF_TOLERANCE):
                discontinuities.append((jump, f"{structure.id} is distorted"))
    if not discontinuities:
        return _smoothness_outcome([], "")
    first, where = min(discontinuities, key=lambda f: f[0].order)
    if where == "an atom is moved away":
        nearest = np.sort(_distances(path.structure_at(first.coordinate))[:, -1])[1:]
        where = f"an atom is moved away, with neighbors at {', '.join(f'{d:.3f}' for d in nearest)} Å"
    return _smoothness_outcome([first], f"away from the cutoff ({where})")


def _smoothness_outcome(jumps: Sequence[Discontinuity], where: str) -> Outcome:
    """A failure if energy, forces or curvature jump."""
    if not jumps:
        return Outcome("pass", 3.0, 2.0, "energy, forces, curvature and third derivative are continuous", ">=")
    jump = min(jumps, key=lambda j: j.order)
    detail = (
        f"{SMOOTHNESS_CLASSES[jump.order]}: the {JUMPS[jump.order]} by "
        f"{jump.size:.2g} {UNITS[jump.order]} ({jump.relative:.1g} of its range) {where}"
    )
    return Outcome("info" if jump.order == 3 else "fail", float(jump.order - 1), 2.0, detail, ">=")


def _drag_path(context: CheckContext) -> tuple[ScanPath, list[float]]:
    """Path on which an atom moves away from three others; and the coordinates where it crosses the cutoff of each."""
    elements, cutoff = context.elements, context.potential.cutoff
    drag_cutoff = cutoff if 0 < cutoff < math.inf else DEFAULT_DRAG_CUTOFF
    numbers = [elements[k % len(elements)] for k in (0, 1, 2, 3)]
    radii = species_radii(numbers)
    center = np.zeros(3)
    left = (radii[0] + radii[1]) * np.array([-0.6, 0.8, 0.0])
    right = (radii[0] + radii[2]) * np.array([-0.5, -0.5, 0.7071])
    start = float(1.1 * (radii[0] + radii[3]))
    direction = np.array([0.96, 0.0, 0.28])

    def structure_at(coordinate: float) -> Structure:
        return make_structure(
            numbers, np.stack([center, left, right, coordinate * direction]), f"moved to {coordinate}"
        )

    crossings = []
    for fixed in (center, left, right):
        # |s e − p| = R, for the larger s.
        ahead = float(direction @ fixed)
        crossings.append(ahead + math.sqrt(ahead**2 - float(fixed @ fixed) + drag_cutoff**2))
    end = max(crossings) + DRAG_MARGIN
    along = 0.3 * np.random.default_rng(42).normal(size=(4, 3))
    along[3] = direction
    points = int((end - start) / SPACING) + 1
    return ScanPath(structure_at, start, end, along, points), crossings if drag_cutoff == cutoff else []


def _line_path(structure: Structure, along: np.ndarray) -> ScanPath:
    def structure_at(coordinate: float) -> Structure:
        return structure.with_positions(structure.positions + coordinate * along)

    return ScanPath(structure_at, -1.0, 1.0, along, points=41)


def _is_near(jump: Discontinuity, coordinates: Sequence[float]) -> bool:
    return any(abs(jump.coordinate - s) < CUTOFF_TOLERANCE for s in coordinates)


def _distances(structure: Structure) -> np.ndarray:
    return np.asarray(np.linalg.norm(structure.positions[:, None] - structure.positions[None], axis=-1))
