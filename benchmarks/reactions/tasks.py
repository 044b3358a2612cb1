"""Tasks of the workers: transition state, path and minima of one reaction, all at one level of theory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx
import numpy as np
from ase.data import covalent_radii
from geometries import Reaction

from hesse.engines import Engine, make_engine
from hesse.harmonic.normal_modes import normal_modes
from hesse.pes import IRCResult, irc, minimize, saddle
from hesse.structures import Request, Structure

__all__ = ["bonds", "same_bonds", "set_up_minima", "set_up_paths"]

FMAX = 0.005
"""Force threshold of stationary points, eV/Å."""
STEP = 0.1
"""Distance between points of a path, Å √u."""
LONGEST = 400
"""Maximum number of steps of one half of a path."""
KEPT = 40
"""Maximum number of points stored of one half of a path, evenly distributed."""
BOND = 1.25
"""Atoms closer than this multiple of the sum of their covalent radii are bonded."""
NUDGE = 0.1
"""Largest displacement along an imaginary mode to leave a saddle point, Å."""
NUDGES = 3
SOFT = 30.0
"""A stationary point with a reaction mode below this wavenumber (cm⁻¹) is rejected."""


def set_up_paths(engine: str) -> Callable[[Reaction], dict[str, Any]]:
    """Function that optimizes a published transition state, follows its path, and relaxes both ends."""
    calculator = make_engine(engine)
    return lambda reaction: _path(reaction, calculator)


def set_up_minima(engine: str) -> Callable[[Structure], dict[str, Any]]:
    """Function that relaxes a published geometry to a minimum."""
    calculator = make_engine(engine)
    return lambda structure: _minimum(structure, calculator)


def _path(reaction: Reaction, engine: Engine) -> dict[str, Any]:
    assert reaction.guess is not None
    result = saddle(reaction.guess, engine, fmax=FMAX)
    if not result.converged or result.modes is None:
        return {"failure": f"no transition state: {_kind(result.reason)}"}
    top = result.structure
    answer: dict[str, Any] = {
        "numbers": top.numbers.tolist(),
        "saddle": top.positions.tolist(),
        "imaginary": float(result.modes.frequencies[0]),
        "steps": result.steps,
    }
    if result.modes.frequencies[0] > -SOFT:
        return {"failure": f"no transition state: its imaginary mode is softer than {SOFT:g} cm⁻¹"}
    path = irc(top, engine, hessian=result.hessian, step=STEP, steps=LONGEST)
    if not path.converged or not path.forward or not path.backward:
        return {**answer, "path_failure": f"a half of the path has not ended after {LONGEST} steps"}
    answer["path"] = [
        {"positions": p.structure.positions.tolist(), "arc": p.path_length, "energy": p.energy} for p in _thinned(path)
    ]
    ends = [_minimum(half[-1].structure, engine) for half in (path.backward, path.forward)]
    answer["ends"] = ends
    failures = [end["failure"] for end in ends if "failure" in end]
    if failures:
        return {**answer, "path_failure": f"an end of the path: {failures[0]}"}
    graphs = [bonds(top.with_positions(end["positions"])) for end in ends]
    published = [bonds(reaction.reactant), bonds(reaction.product)]
    if same_bonds(*graphs):
        answer["kind"] = "conformers"
    else:
        matched = (same_bonds(graphs[0], published[0]) and same_bonds(graphs[1], published[1])) or (
            same_bonds(graphs[0], published[1]) and same_bonds(graphs[1], published[0])
        )
        answer["kind"] = "as published" if matched else "other ends"
    return answer


def _thinned(path: IRCResult) -> list[Any]:
    halves = [half[:: max(1, -(-len(half) // KEPT))] for half in (path.backward, path.forward)]
    return [*reversed(halves[0]), path.saddle, *halves[1]]


def _minimum(structure: Structure, engine: Engine) -> dict[str, Any]:
    """Relax to a minimum; from a saddle point, displace along the imaginary mode and relax again."""
    current = structure
    for attempt in range(NUDGES + 1):
        run = minimize(current, engine, fmax=FMAX if attempt == 0 else FMAX / 5, steps=1000)
        if not run.converged:
            return {"failure": "not relaxed after 1000 steps"}
        labels = engine.compute(run.structure, Request(energy=False, hessian=True))
        modes = normal_modes(run.structure, labels.hessian_of(0).numpy())
        if modes.n_imaginary == 0:
            return {
                "numbers": structure.numbers.tolist(),
                "positions": run.structure.positions.tolist(),
                "energy": run.energy,
            }
        away = modes.cartesian[0]
        current = run.structure.with_positions(run.structure.positions + NUDGE / np.abs(away).max() * away)
    return {"failure": f"relaxed to a stationary point with imaginary modes {NUDGES + 1} times"}


def _kind(reason: str) -> str:
    """The reason without numbers, so that failures can be counted."""
    for words in ("largest force", "fell apart", "negative modes"):
        if words in reason:
            return {"largest force": "the search did not settle"}.get(words, reason if "modes" in words else words)
    return reason


def bonds(structure: Structure) -> networkx.Graph:
    """Graph of the bonds, with elements at the nodes."""
    radii = covalent_radii[structure.numbers]
    pairs = structure.neighbors(float(2.0 * BOND * radii.max()))
    bonded = pairs.distances < BOND * (radii[pairs.centers] + radii[pairs.neighbors])
    graph = networkx.Graph()
    graph.add_nodes_from((k, {"z": int(z)}) for k, z in enumerate(structure.numbers))
    graph.add_edges_from(zip(pairs.centers[bonded].tolist(), pairs.neighbors[bonded].tolist(), strict=True))
    return graph


def same_bonds(one: networkx.Graph, other: networkx.Graph) -> bool:
    """Whether two structures have the same bonds, in any order of their atoms."""
    return networkx.is_isomorphic(one, other, node_match=lambda a, b: a["z"] == b["z"])
