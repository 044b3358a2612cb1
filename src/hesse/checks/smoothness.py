"""Whether energy, forces, curvature and its slope are continuous: where an atom crosses the cutoff, and everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from ase.data import covalent_radii

from hesse.checks.result import Finding, skipped
from hesse.checks.samples import built
from hesse.checks.scan import Jump, Path, find_jumps
from hesse.checks.subject import Subject, directions
from hesse.structures import Structure

__all__ = ["check_cutoff", "check_smooth"]

SPACING = 0.04
"""Å between the points of a search."""
BEYOND = 0.5
NEARBY = 1e-3
"""A jump this close (Å) to a distance equal to the cutoff is the cutoff's."""
CLASSES = ("C⁻¹", "C⁰", "C¹", "C²")
JUMPS = ("energy jumps", "forces jump", "curvature jumps", "third derivative jumps")
UNITS = ("eV", "eV/Å", "eV/Å²", "eV/Å³")
HIDDEN = 6.0
"""Å; how far an atom is dragged where the potential states no cutoff."""


def check_cutoff(subject: Subject) -> Finding:
    """An atom is dragged out of the reach of its neighbours. The value is the smoothness class k of Cᵏ: −1 where the
    energy jumps, 0 the forces, 1 the curvature, 2 the third derivative, 3 where none does."""
    if subject.dtype != torch.float64:
        return skipped("jumps are told from slopes in float64 only")
    cutoff = subject.potential.cutoff
    if not 0 < cutoff < math.inf:
        return skipped("the potential states no cutoff")
    path, crossings = _drag(subject)
    brackets = [(place - 0.01, place + 0.01) for place in crossings]
    found = [j for j in find_jumps(subject, path, brackets) if _near(j, crossings)]
    return _told(found, f"at the cutoff of {cutoff:g} Å")


def check_smooth(subject: Subject) -> Finding:
    """The same along the rest of that path, and along random lines through the molecules."""
    if subject.dtype != torch.float64:
        return skipped("jumps are told from slopes in float64 only")
    path, crossings = _drag(subject)
    found = [(j, "an atom is dragged away") for j in find_jumps(subject, path) if not _near(j, crossings)]
    cutoff = subject.potential.cutoff
    for structure, along in zip(subject.molecules, directions(subject.molecules, seed=41), strict=True):
        line = _line(structure, 0.3 * along / np.abs(along).max())
        for jump in find_jumps(subject, line):
            distances = _distances(line.at(jump.place))
            if not np.any(np.abs(distances - cutoff) < NEARBY):
                found.append((jump, f"{structure.id} is distorted"))
    if not found:
        return _told([], "")
    first, where = min(found, key=lambda f: f[0].order)
    if where == "an atom is dragged away":
        last = np.sort(_distances(path.at(first.place))[:, -1])[1:]
        where = f"an atom is dragged away, with neighbours at {', '.join(f'{d:.3f}' for d in last)} Å"
    return _told([first], f"away from the cutoff ({where})")


def _told(jumps: Sequence[Jump], where: str) -> Finding:
    """Fails when energy, forces or curvature jump."""
    if not jumps:
        return Finding("pass", 3.0, 2.0, "energy, forces, curvature and third derivative are continuous", ">=")
    jump = min(jumps, key=lambda j: j.order)
    detail = (
        f"{CLASSES[jump.order]}: the {JUMPS[jump.order]} by "
        f"{jump.size:.2g} {UNITS[jump.order]} ({jump.relative:.1g} of its range) {where}"
    )
    return Finding("info" if jump.order == 3 else "fail", float(jump.order - 1), 2.0, detail, ">=")


def _drag(subject: Subject) -> tuple[Path, list[float]]:
    """An atom moves away from three others; and the places where it leaves the cutoff of one of them."""
    elements, cutoff = subject.elements, subject.potential.cutoff
    reach = cutoff if 0 < cutoff < math.inf else HIDDEN
    numbers = [elements[k % len(elements)] for k in (0, 1, 2, 3)]
    radii = covalent_radii[numbers]
    centre = np.zeros(3)
    left = (radii[0] + radii[1]) * np.array([-0.6, 0.8, 0.0])
    right = (radii[0] + radii[2]) * np.array([-0.5, -0.5, 0.7071])
    start = float(1.1 * (radii[0] + radii[3]))
    direction = np.array([0.96, 0.0, 0.28])

    def at(place: float) -> Structure:
        return built(numbers, np.stack([centre, left, right, place * direction]), f"dragged to {place}")

    crossings = []
    for fixed in (centre, left, right):
        # |s e − p| = R, for the larger s.
        ahead = float(direction @ fixed)
        crossings.append(ahead + math.sqrt(ahead**2 - float(fixed @ fixed) + reach**2))
    end = max(crossings) + BEYOND
    along = 0.3 * np.random.default_rng(42).normal(size=(4, 3))
    along[3] = direction
    points = int((end - start) / SPACING) + 1
    return Path(at, start, end, along, points), crossings if reach == cutoff else []


def _line(structure: Structure, along: np.ndarray) -> Path:
    def at(place: float) -> Structure:
        return structure.moved(structure.positions + place * along)

    return Path(at, -1.0, 1.0, along, points=41)


def _near(jump: Jump, places: Sequence[float]) -> bool:
    return any(abs(jump.place - place) < NEARBY for place in places)


def _distances(structure: Structure) -> np.ndarray:
    return np.asarray(np.linalg.norm(structure.positions[:, None] - structure.positions[None], axis=-1))
