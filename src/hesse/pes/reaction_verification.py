"""A reaction that one engine has found, evaluated by another one."""

from __future__ import annotations

from hesse.engines import EngineLike, as_engine
from hesse.errors import HesseError, RequestError
from hesse.pes.reaction_result import Reaction, Verification
from hesse.pes.surface import CountedSurface
from hesse.pes.transition_state import saddle

__all__ = ["verify_reaction"]


def verify_reaction(found: Reaction, engine: EngineLike, *, distance: float = 0.3) -> Verification:
    """Evaluate a reaction by another engine.

    Args:
        found: a reaction with a saddle point.
        engine: the other engine.
        distance: Å; its saddle point must be this near to that of the reaction.

    Returns:
        Energies at the geometries of the reaction, and whether there is a first-order saddle point; failures of the
        engine, such as an element that a model does not have, are told there.

    Raises:
        RequestError: a reaction without a saddle point, or not an engine.
    """
    if found.saddle is None or found.reactant is None or found.product is None:
        raise RequestError(f'reaction "{found.id}" has no saddle point: there is nothing to evaluate')
    other = as_engine(engine)
    barrier = reaction_energy = None
    reasons = []
    try:
        energies = [
            CountedSurface(other, s).gradient(s.positions)[0]
            for s in (found.reactant.structure, found.saddle.structure, found.product.structure)
        ]
        barrier, reaction_energy = energies[1] - energies[0], energies[2] - energies[0]
    except HesseError as error:
        reasons.append(str(error))
    try:
        top = saddle(found.saddle.structure, other)
    except HesseError as error:
        reasons.append(str(error))
        return Verification(other.level, barrier, reaction_energy, False, None, distance, None, "; ".join(reasons))
    far = top.displacement.rmsd > distance
    reasons += [top.reason] if top.reason else []
    reasons += [f"its saddle point is {top.displacement.rmsd:.2f} Å away"] if far and top.converged else []
    frequency = float(top.modes.frequencies[0]) if top.converged and top.modes is not None else None
    return Verification(
        other.level,
        barrier,
        reaction_energy,
        top.converged and not far,
        top.displacement.rmsd if top.converged else None,
        distance,
        frequency,
        "; ".join(reasons),
        top.displacement,
    )
