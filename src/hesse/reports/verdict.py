"""Verdict on a potential: good enough for what, in words, from the numbers of an evaluation and their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hesse.evaluation import MetricRow
from hesse.evaluation.level_spread import LEVEL_SPREAD
from hesse.reports.formatting import ev_to_kcal, format_number, kcal_unit
from hesse.units import KCAL_PER_MOL

__all__ = ["USES", "Finding", "Grade", "Use", "judge_uses", "summarize"]


class Grade(StrEnum):
    """How well a potential serves a use."""

    GOOD = "good enough"
    ROUGH = "roughly"
    BAD = "not good enough"
    OPEN = "undecided"


@dataclass(frozen=True)
class Use:
    """Something a potential is needed for, and the number that decides.

    Attributes:
        name: the use.
        property, metric: the number, see `hesse.evaluation.MetricRow`.
        unit: its unit.
        good: limit of "good enough", in that unit.
        rough: limit of "roughly".
        target: the best possible value: 0 for errors, 1 for fractions and slopes. The limits are compared with the
            distance from it.
    """

    name: str
    property: str
    metric: str
    unit: str
    good: float
    rough: float
    target: float = 0.0


_KCAL: Final = KCAL_PER_MOL
_ROUNDING: Final = 1e-9

USES: Final = (
    Use("total energies", "energy", "mae", "eV", _KCAL, 3 * _KCAL),
    Use("forces, for geometries", "forces", "mae", "eV/Å", _KCAL, 3 * _KCAL),
    Use("curvature, element by element", "hessian", "mae", "eV/Å²",
        LEVEL_SPREAD["wB97M-V"], LEVEL_SPREAD["B3LYP-D3/DZVP"]),
    Use("stiffness of the stiff modes", "projected_curvature", "slope", "1", 0.05, 0.1, 1.0),
    Use("stiffness of the soft modes, below 300 cm⁻¹", "projected_curvature_0_300", "slope", "1", 0.05, 0.1, 1.0),
    Use("minima told from saddle points", "negative_modes", "fraction_right", "1", 0.1, 0.3, 1.0),
    Use("frequencies", "frequencies", "mae", "cm⁻¹", 20.0, 50.0),
    Use("low frequencies, below 300 cm⁻¹", "frequencies_0_300", "mae", "cm⁻¹", 20.0, 50.0),
    Use("zero-point energies", "zpe", "mae", "eV", _KCAL, 3 * _KCAL),
    Use("thermal parts of Gibbs energies", "gibbs_correction", "mae", "eV", _KCAL, 3 * _KCAL),
    Use("barriers at known geometries", "barrier", "mae", "eV", _KCAL, 3 * _KCAL),
    Use("reaction energies at known geometries", "reaction_energy", "mae", "eV", _KCAL, 3 * _KCAL),
    Use("finding transition states", "transition_states", "fraction_found", "1", 0.1, 0.3, 1.0),
    Use("barriers of its own transition states", "relaxed_barrier", "mae", "eV", _KCAL, 3 * _KCAL),
    Use("paths that end where they should", "irc_ends", "fraction_right", "1", 0.1, 0.3, 1.0),
)  # fmt: skip
"""Uses, in the order of the suites. 1 kcal/mol is what is called chemical accuracy; limits of Hessians are differences
between levels of theory (`hesse.evaluation.level_spread`); the others are conventions, which the page shows."""


@dataclass(frozen=True)
class Finding:
    """A use, and how the potential serves it.

    Attributes:
        use: the use.
        row: the number that decides.
        grade: how well.
    """

    use: Use
    row: MetricRow
    grade: Grade

    @property
    def value(self) -> str:
        """The number with its unit, energies in kcal/mol."""
        return f"{self._number(self.row.value)}{self._unit}"

    @property
    def interval(self) -> str:
        """Its 95 % interval with the unit; "" where there is none."""
        low, high = self.row.ci_low, self.row.ci_high
        return "" if low is None or high is None else f"{self._number(low)} to {self._number(high)}{self._unit}"

    @property
    def limits(self) -> str:
        """The limits of "good enough" and of "roughly"."""
        use = self.use
        if use.target == 0.0:
            return f"up to {self._number(use.good)}; {self._number(use.rough)}{self._unit}"
        if use.metric == "slope":
            return "; ".join(f"{use.target - x:.2f} to {use.target + x:.2f}" for x in (use.good, use.rough))
        good, rough = (self._number(use.target - x) for x in (use.good, use.rough))
        return f"at least {good}; {rough}{self._unit}"

    def _number(self, value: float) -> str:
        if self.use.unit.startswith("eV") and self.use.unit != "eV/Å²":
            return format_number(ev_to_kcal(value), 2)
        if self.use.metric.startswith("fraction"):
            return f"{100 * value:.0f}"
        return format_number(value, 3 if self.use.metric == "slope" else 2)

    @property
    def _unit(self) -> str:
        if self.use.metric.startswith("fraction"):
            return " %"
        unit = self.use.unit if self.use.unit == "eV/Å²" else kcal_unit(self.use.unit)
        return "" if unit == "1" else f" {unit}"


def judge_uses(rows: Sequence[MetricRow]) -> list[Finding]:
    """Judge a potential by the numbers of one data set.

    A grade holds for the whole 95 % interval; where it reaches over the limit of "roughly", the use is undecided.

    Args:
        rows: rows of an evaluation; those of tags are left out.

    Returns:
        One finding for each use of which the evaluation knows something.
    """
    known = {(row.property, row.metric): row for row in rows if not row.tag}
    return [Finding(use, row, _grade(use, row)) for use in USES if (row := known.get((use.property, use.metric)))]


def _grade(use: Use, row: MetricRow) -> Grade:
    if row.ci_low is None or row.ci_high is None:
        return Grade.OPEN
    ends = abs(row.ci_low - use.target), abs(row.ci_high - use.target)
    largest = max(ends)
    smallest = 0.0 if row.ci_low <= use.target <= row.ci_high else min(ends)
    if largest <= use.good + _ROUNDING:
        return Grade.GOOD
    if largest <= use.rough + _ROUNDING:
        return Grade.ROUGH
    return Grade.BAD if smallest > use.rough + _ROUNDING else Grade.OPEN


def summarize(findings: Sequence[Finding]) -> Iterator[tuple[Grade, str]]:
    """The verdict as sentences, one for each grade that occurs.

    Args:
        findings: those of one data set.

    Yields:
        The grade and the names of its uses, with the numbers that decide.
    """
    for grade in Grade:
        own = [f for f in findings if f.grade is grade]
        if own:
            yield grade, "; ".join(f"{f.use.name} ({f.interval or f.value})" for f in own)
