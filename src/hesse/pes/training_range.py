"""Whether geometries that a model has led to resemble its training data."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from hesse.engines import Engine, PotentialEngine
from hesse.errors import ExtrapolationWarning
from hesse.potential import known_environments
from hesse.structures import Extrapolation, Structure

__all__ = ["describe_outside", "extrapolation", "warn_if_outside"]


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
    grades = [(found, s.id) for s in structures if (found := extrapolation(engine, s)) is not None and found.outside]
    if not grades:
        return ""
    worst, name = max(grades, key=lambda pair: pair[0].grade)
    return (
        f"{len(grades)} of {len(structures)} structures are outside the training data of the model, which may be wrong "
        f"there; the farthest is {name}: {worst.reason}"
    )
