"""Whether geometries that a model has led to resemble its training data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from hesse.engines import Engine, PotentialEngine
from hesse.errors import ExtrapolationWarning
from hesse.potential import known_environments
from hesse.structures import Extrapolation, Structure

__all__ = ["describe_outside", "extrapolation", "extrapolation_columns", "farthest", "warn_if_outside"]


def extrapolation(engine: Engine, *structures: Structure) -> Extrapolation | None:
    """Compare structures with the training data of a model.

    Args:
        engine: any engine.
        *structures: the structures.

    Returns:
        The one with the largest grade; None for engines that are no models, and models without a summary of their
        training data.
    """
    summary = known_environments(engine.potential) if isinstance(engine, PotentialEngine) else None
    if summary is None or not structures:
        return None
    return max((summary.compare(structure) for structure in structures), key=lambda found: found.grade)


def farthest(comparisons: Iterable[Extrapolation | None]) -> Extrapolation | None:
    """Choose the comparison with the largest grade.

    Args:
        comparisons: results of `extrapolation`.

    Returns:
        The one that is farthest from the training data; None without any.
    """
    return max(
        (comparison for comparison in comparisons if comparison is not None),
        key=lambda comparison: comparison.grade,
        default=None,
    )


def extrapolation_columns(found: Extrapolation | None) -> dict[str, Any]:
    """Columns about the comparison with the training data of a model, for the rows of `--json`.

    Args:
        found: the result of `extrapolation`.

    Returns:
        JSON values by name; empty without a comparison. A grade that is not finite becomes null.
    """
    if found is None:
        return {}
    grade = found.grade if math.isfinite(found.grade) else None
    return {"outside_training": found.outside, "extrapolation_grade": grade, "extrapolation": found.reason}


def warn_if_outside(found: Extrapolation | None, what: str) -> None:
    """Warn of a structure outside the training data.

    Args:
        found: the result of `extrapolation`.
        what: what was compared, for the message.
    """
    if found is not None and found.outside:
        warnings.warn(
            f"{what} is outside the training data of the model, which may be wrong there: {found.reason}",
            ExtrapolationWarning,
            stacklevel=3,
        )


def describe_outside(structures: Sequence[Structure], engine: Engine) -> str:
    """Tell how many structures are outside the training data of a model.

    Args:
        structures: the structures.
        engine: any engine.

    Returns:
        A line; empty if there are none, or nothing is known about the training data.
    """
    grades = [
        (comparison, s.id)
        for s in structures
        if (comparison := extrapolation(engine, s)) is not None and comparison.outside
    ]
    if not grades:
        return ""
    worst, name = max(grades, key=lambda pair: pair[0].grade)
    return (
        f"{len(grades)} of {len(structures)} structures are outside the training data of the model, which may be wrong "
        f"there; the farthest is {name}: {worst.reason}"
    )
