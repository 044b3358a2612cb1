"""The geometry from which replicas of molecular dynamics start, or the reason why there is none."""

from __future__ import annotations

from hesse.engines import Engine
from hesse.errors import HesseError, first_line
from hesse.pes.geometry_changes import bond_name, collision_text, displacement
from hesse.pes.imaginary_modes import remove_imaginary_modes
from hesse.pes.md_failures import Failure, FailureReason
from hesse.pes.md_settings import ReplicaSettings
from hesse.pes.minimization import minimize
from hesse.structures import Structure, closest_collision

__all__ = ["starting_geometry"]

IMAGINARY_LIMIT = -50.0
"""cm⁻¹; smaller imaginary modes are left by rounding and by soft modes that are not fully relaxed."""


def starting_geometry(structure: Structure, engine: Engine, settings: ReplicaSettings) -> Structure | Failure:
    """The geometry from which the replicas of a structure start: by default the nearest minimum of the engine.

    Before a ramp, imaginary modes are removed too: from a saddle point, where a symmetric start can end, the molecule
    would slide down without any heat.

    Args:
        structure: the input.
        engine: the engine.
        settings: whether and how to relax.

    Returns:
        The geometry, with the id of the input, or why there is none.
    """
    contact = closest_collision(structure, contacts=settings.contact_distances)
    if contact is not None:
        text = f"{collision_text(structure, contact)} in the input"
        return Failure(FailureReason.NOT_STARTED, text)
    if len(structure) == 1:
        return Failure(FailureReason.NOT_STARTED, "a lone atom has no internal motion")
    if not settings.relax:
        return structure
    try:
        if settings.ramp is None:
            run, left = minimize(structure, engine, fmax=settings.fmax, steps=settings.steps), ""
        else:
            minimum = remove_imaginary_modes(structure, engine, fmax=settings.fmax, steps=settings.steps)
            lowest = 0.0 if minimum.modes is None or not len(minimum.modes) else minimum.modes.frequencies[0]
            run, left = minimum.minimization, minimum.reason if lowest < IMAGINARY_LIMIT else ""
    except HesseError as error:
        return Failure(FailureReason.NOT_STARTED, first_line(error))
    changes = displacement(structure, run.structure)
    if changes.formed or changes.broken:
        words = [f"{bond_name(structure, b)} {what}" for what in ("formed", "broken") for b in getattr(changes, what)]
        return Failure(FailureReason.BONDS_CHANGED, ", ".join(words))
    if not run.converged:
        text = f"after {run.steps} steps the largest force is {run.fmax:.3g} eV/Å, not below {settings.fmax:g}"
        return Failure(FailureReason.NOT_RELAXED, text)
    if left:
        return Failure(FailureReason.NOT_RELAXED, f"no minimum was found: {left}")
    return run.structure
