"""State points: temperature and density of a simulation, as the tags of its frames name them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hesse.errors import RequestError, check_numbers
from hesse.structures import Structure

__all__ = ["GRAM_PER_CM3", "StatePoint", "check_state_points", "density_of", "state_point_of"]

GRAM_PER_CM3: Final = 1.66053906660
"""g/cm³ of one u per Å³ (CODATA 2018)."""
_TAG: Final = re.compile(r"(\d+(?:\.\d+)?)K(?: (\d+(?:\.\d+)?)g/cm3)?")
_SAME_DENSITY: Final = 0.02
"""Relative; frames whose densities differ by more belong to different state points."""


@dataclass(frozen=True)
class StatePoint:
    """Temperature and density. Its text, such as "300K 0.785g/cm3", is the tag of the frames.

    Attributes:
        temperature: K.
        density: g/cm³; None for structures that do not fill space.
    """

    temperature: float
    density: float | None = None

    def __post_init__(self) -> None:
        check_numbers(temperature=self.temperature)
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise RequestError(f"expected a temperature above 0 K, got {self.temperature}")

    def __str__(self) -> str:
        density = "" if self.density is None else f" {self.density:.3f}g/cm3"
        return f"{self.temperature:.10g}K{density}"

    @classmethod
    def parse(cls, tag: str) -> StatePoint | None:
        """Read the text of a state point.

        Args:
            tag: such as "300K 0.785g/cm3".

        Returns:
            The state point; None if the tag is another text.
        """
        match = _TAG.fullmatch(tag.strip())
        if match is None or float(match[1]) == 0:
            return None
        return cls(float(match[1]), None if match[2] is None else float(match[2]))


def density_of(structure: Structure) -> float | None:
    """Density of a structure.

    Args:
        structure: any structure.

    Returns:
        g/cm³; None if it is not periodic in three directions.
    """
    if not all(structure.pbc):
        return None
    volume = abs(float(np.linalg.det(structure.cell)))
    return float(structure.atomic_masses.sum()) / volume * GRAM_PER_CM3


def state_point_of(structure: Structure) -> StatePoint | None:
    """The state point that the tag of a structure names.

    Args:
        structure: any structure.

    Returns:
        The state point; None if the tag names none.
    """
    return StatePoint.parse(structure.tag)


def check_state_points(structures: Sequence[Structure], where: str = "the frames") -> None:
    """Check that frames of several densities say which state point each belongs to.

    Args:
        structures: frames of one or more simulations.
        where: the data, for the message.

    Raises:
        RequestError: densities that differ by more than 2 % under one tag that names no state point.
    """
    extremes: dict[str, tuple[float, float]] = {}
    for structure in structures:
        if state_point_of(structure) is None and (density := density_of(structure)) is not None:
            low, high = extremes.get(structure.tag, (density, density))
            extremes[structure.tag] = min(low, density), max(high, density)
    for tag, (low, high) in extremes.items():
        if high > (1 + _SAME_DENSITY) * low:
            raise RequestError(
                f"{where}: densities from {low:.3f} to {high:.3f} g/cm³ "
                f"{f'under the tag {tag!r}' if tag else 'without tags'}: several state points are mixed. Tag each "
                "frame "
                f'with its own, such as "{StatePoint(300.0, low)}" (hesse coarse map --temperature does)'
            )
