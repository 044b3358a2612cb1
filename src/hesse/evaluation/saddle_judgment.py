"""Does a potential have the transition state of the reference, and does its reaction path end where it should?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from hesse.datasets import Dataset
from hesse.engines import Engine
from hesse.errors import ExtrapolationWarning, HesseError, first_line
from hesse.evaluation.reaction_errors import ReactionMembers
from hesse.harmonic.normal_modes import normal_modes
from hesse.pes.end_identity import match_ends
from hesse.pes.minimization import MinimizationResult, minimize
from hesse.pes.reaction_path import irc
from hesse.pes.transition_state import SaddleResult, saddle
from hesse.structures import Structure

__all__ = ["JudgmentSettings", "SaddleTask", "empty_record", "judge_saddle", "saddle_tasks"]


@dataclass(frozen=True)
class JudgmentSettings:
    """How transition states are searched and followed.

    Attributes:
        distance: Å; a saddle point within this distance of that of the reference, after superposition, is the same.
        fmax: largest force at saddle points and minima, eV/Å.
        saddle_steps: largest number of steps of a search.
        follow: whether to follow the reaction path to both ends.
        irc_step: length of its steps, Å √u.
        irc_steps: largest number of steps of each half.
        relax_steps: largest number of steps of each relaxation.
    """

    distance: float = 0.3
    fmax: float = 0.01
    saddle_steps: int = 100
    follow: bool = True
    irc_step: float = 0.1
    irc_steps: int = 150
    relax_steps: int = 300


@dataclass(frozen=True, eq=False)
class SaddleTask:
    """A transition state of the reference.

    Attributes:
        name: name of the reaction.
        saddle: the geometry.
        reactant, product: the minima of the reaction, where they are in the data.
        frequency: imaginary frequency of the reference, cm⁻¹, negative; None where its Hessian is not known.
        barrier: energy of the transition state less that of the reactant by the reference, eV; None where unknown.
    """

    name: str
    saddle: Structure
    reactant: Structure | None = None
    product: Structure | None = None
    frequency: float | None = None
    barrier: float | None = None

    @property
    def structures(self) -> list[Structure]:
        """All structures of the task."""
        return [s for s in (self.saddle, self.reactant, self.product) if s is not None]


def saddle_tasks(dataset: Dataset, reactions: list[ReactionMembers]) -> list[SaddleTask]:
    """The transition states of a data set, with what the reference says of them.

    Args:
        dataset: structures and reference labels.
        reactions: the reactions, as `find_reactions` gives them; those without a transition state are left out.

    Returns:
        One task for each transition state.
    """
    labels = dataset.labels
    has_hessian, has_energy = labels.mask("hessian"), labels.mask("energy")
    tasks = []
    for members in reactions:
        if members.saddle is None:
            continue
        structure = dataset.structures[members.saddle]
        frequency = barrier = None
        if has_hessian[members.saddle]:
            modes = normal_modes(structure, labels.hessian_of(members.saddle).numpy())
            frequency = float(modes.frequencies[0]) if modes.n_imaginary else None
        reactant, product = (None if i is None else dataset.structures[i] for i in (members.reactant, members.product))
        if members.reactant is not None and labels.energy is not None:
            pair = [members.saddle, members.reactant]
            if bool(has_energy[pair].all()):
                barrier = float(labels.energy[members.saddle] - labels.energy[members.reactant])
        tasks.append(SaddleTask(members.name, structure, reactant, product, frequency, barrier))
    return tasks


def empty_record(task: SaddleTask) -> dict[str, Any]:
    """The record of a search of which nothing is known yet.

    Args:
        task: the transition state of the reference.

    Returns:
        See `judge_saddle`.
    """
    return {
        "id": task.saddle.id,
        "group": task.name,
        "found": False,
        "converged": False,
        "rmsd": None,
        "imaginary_frequency": None,
        "reference_imaginary_frequency": task.frequency,
        "barrier": None,
        "reference_barrier": task.barrier,
        "ends_right": None,
        "ends": None,
        "steps": None,
        "gradients": None,
        "hessians": None,
        "reason": "",
    }


def judge_saddle(task: SaddleTask, engine: Engine, settings: JudgmentSettings | None = None) -> dict[str, Any]:
    """Search the transition state of an engine from that of the reference, and follow its reaction path.

    Reactant and product are relaxed with the engine too, so that the ends of its path are compared with its own minima
    (see `hesse.pes.end_identity`).

    Args:
        task: the transition state of the reference.
        engine: the engine.
        settings: limits.

    Returns:
        JSON values by name: id, group, found, converged, rmsd (Å, from the transition state of the reference),
        imaginary_frequency and reference_frequency (cm⁻¹, as reference_imaginary_frequency), barrier (relaxed, eV) and
        reference_barrier, ends_right, ends (how both ends compare), steps, gradients, hessians, and `reason`: what went
        wrong. Failures of the engine are told there.
    """
    settings = settings or JudgmentSettings()
    row = empty_record(task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        try:
            result = saddle(task.saddle, engine, fmax=settings.fmax, steps=settings.saddle_steps)
        except HesseError as error:
            return row | {"reason": f"search: {first_line(error)}"}
        rmsd = result.displacement.rmsd
        row |= {
            "converged": result.converged,
            "found": result.converged and rmsd < settings.distance,
            "rmsd": rmsd,
            "imaginary_frequency": result.imaginary_frequency,
            "steps": result.steps,
            "gradients": result.n_gradients,
            "hessians": result.n_hessians,
            "reason": f"search: {result.reason}" if result.reason else "",
        }
        if result.converged and not row["found"]:
            row["reason"] = f"search: its saddle point is {rmsd:.2f} Å away"
        if not row["found"]:
            return row
        try:
            return row | _minima_and_ends(task, result, engine, settings)
        except HesseError as error:
            return row | {"ends_right": _unless_unknown(task, settings), "reason": f"path: {first_line(error)}"}


def _unless_unknown(task: SaddleTask, settings: JudgmentSettings) -> bool | None:
    """A path that failed does not end where it should; without both minima nothing is known of that."""
    return None if task.reactant is None or task.product is None or not settings.follow else False


def _minima_and_ends(task: SaddleTask, top: SaddleResult, engine: Engine, settings: JudgmentSettings) -> dict[str, Any]:
    """The relaxed barrier, and how the ends of the path compare with the minima."""

    def relax(structure: Structure) -> MinimizationResult:
        return minimize(structure, engine, fmax=settings.fmax, steps=settings.relax_steps)

    values: dict[str, Any] = {}
    if task.reactant is None:
        return values
    reactant = relax(task.reactant)
    if reactant.converged:
        values["barrier"] = top.energy - reactant.energy
    if task.product is None or not settings.follow:
        return values
    product = relax(task.product)
    path = irc(
        top.structure,
        engine,
        hessian=top.hessian,
        step=settings.irc_step,
        steps=settings.irc_steps,
        fmax=2.0 * settings.fmax,
    )
    if not path.converged:
        return values | {"ends_right": False, "reason": f"path: {path.backward_end}, {path.forward_end}"}
    ends = [relax(half[-1].structure) for half in (path.backward, path.forward)]
    minima = (reactant, product, *ends)
    if not all(run.converged for run in minima):
        return values | {"ends_right": False, "reason": "path: a minimum or an end of the path did not relax"}
    (first, second, *rest) = [(run.structure, run.energy) for run in minima]
    _, comparisons, right = match_ends(first, second, tuple(rest))
    names = [str(comparison.match) for comparison in comparisons]
    reason = "" if right else f"path: its ends are, compared with reactant and product: {', '.join(names)}"
    return values | {"ends_right": right, "ends": names, "reason": reason}
