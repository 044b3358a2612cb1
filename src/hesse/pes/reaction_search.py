"""From two geometries to a reaction: path, saddle point, reaction path down both sides, and whether it ends where it
should."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from hesse.datasets import StructuresLike, as_structure
from hesse.engines import Engine, EngineLike, as_engine
from hesse.errors import EngineError, ExtrapolationWarning, GeometryError
from hesse.harmonic.normal_modes import normal_modes
from hesse.harmonic.thermochemistry import ThermoSettings, thermochemistry
from hesse.pes.call_counter import CallCounter, counted
from hesse.pes.elastic_band import neb
from hesse.pes.end_identity import SAME_GEOMETRY, EndMatch, match_ends
from hesse.pes.geometry_changes import bond_name, check_same_atoms, displacement
from hesse.pes.minimization import MinimizationResult, minimize
from hesse.pes.reaction_path import irc
from hesse.pes.reaction_result import (
    Reaction,
    ReactionOutcome,
    ReactionThermo,
    StageCalls,
    peaks,
)
from hesse.pes.reaction_verification import verify_reaction
from hesse.pes.surface import CountedSurface
from hesse.pes.transition_state import saddle
from hesse.runtime.settings import Settings, settings_from
from hesse.structures import Structure

__all__ = ["ReactionSettings", "reaction"]

_MAX_PEAKS = 2
"""Number of local maxima of a path at which a saddle search starts."""
_ORDER = (
    ReactionOutcome.ENGINE_FAILED,
    ReactionOutcome.NO_BARRIER,
    ReactionOutcome.NO_SADDLE,
    ReactionOutcome.PATH_INCOMPLETE,
    ReactionOutcome.ENDS_DIFFER,
    ReactionOutcome.END_DIFFERS,
    ReactionOutcome.FOUND,
)
"""Outcomes of a band and the searches from it, the best last."""


class ReactionSettings(Settings):
    """Settings of a search for a reaction.

    Attributes:
        images: number of images of the elastic band between the ends.
        path_fmax: limit of the largest force on an image, eV/Å. The band is a guess only, it need not be sharp.
        path_steps: maximal number of iterations of the band.
        attempts: number of bands: each further one has half as many images more, and starts afresh.
        method: method of saddle search, see `hesse.saddle`.
        fmax: limit of the largest force at the ends and at the saddle point, eV/Å.
        saddle_steps: maximal number of steps of a saddle search.
        irc_step: length of a step along the reaction path, Å √u.
        irc_steps: maximal number of steps of each half.
        temperature: K, of free energies and rates: one, or several.
        thermo: method of the vibrational entropy, see `hesse.harmonic.thermochemistry.ThermoSettings`.
        distance: Å; a verifying engine must find its saddle point within this distance.

    Raises:
        ConfigError: a value out of range.
    """

    images: int = Field(8, ge=1)
    path_fmax: float = Field(0.2, gt=0)
    path_steps: int = Field(100, ge=1)
    attempts: int = Field(2, ge=1)
    method: Literal["prfo", "sella"] = "prfo"
    fmax: float = Field(0.005, gt=0)
    saddle_steps: int = Field(100, ge=1)
    irc_step: float = Field(0.1, gt=0)
    irc_steps: int = Field(200, ge=1)
    temperature: tuple[Annotated[float, Field(gt=0)], ...] = Field((298.15,), min_length=1)
    thermo: Literal["rrho", "grimme", "truhlar"] = "rrho"
    distance: float = Field(0.3, gt=0)

    @field_validator("temperature", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) else value


def reaction(
    reactant: StructuresLike,
    product: StructuresLike,
    engine: EngineLike,
    settings: ReactionSettings | None = None,
    *,
    verify: EngineLike | None = None,
    name: str = "",
    **options: Any,
) -> Reaction:
    """Search for the elementary reaction between two geometries.

    Both ends are relaxed and joined by an elastic band; saddle searches start at its highest images; from a first-order
    saddle point the reaction path is followed down both sides and its ends are relaxed. The reaction is found where
    these are the reactant and the product, by bonds and geometry.

    Args:
        reactant: one structure: ASE Atoms, a Structure, or the path of a file with one structure.
        product: the other end, with the same atoms in the same order.
        engine: a name (`gfn2`), the path of a model, an Engine, a Potential or an ASE calculator.
        settings: settings.
        verify: another engine, which evaluates the answer: energies at the geometries found, and whether it has a
            first-order saddle point there too.
        name: name of the reaction; by default the id of the reactant.
        **options: the fields of `ReactionSettings` in place of `settings`.

    Returns:
        The reaction, or how far the search came and why it ended; that is not an error, nor is a failure of the engine.

    Raises:
        RequestError: the ends do not have the same atoms in the same order (the message says which); not one structure,
            or not an engine; an element that a model does not have.
        ConfigError: a setting out of range.
    """
    chosen = settings_from(ReactionSettings, settings, options)
    ThermoSettings(temperature=chosen.temperature, method=chosen.thermo)  # checked before the work
    first, second, source = as_structure(reactant), as_structure(product), as_engine(engine)
    other = None if verify is None else as_engine(verify)
    check_same_atoms(first, second)
    search = _Search(first, second, source, chosen, name or first.id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)  # of every intermediate geometry
        result = search.run()
        if other is not None and result.saddle is not None and result.saddle.converged:
            result = replace(result, verification=verify_reaction(result, other, distance=chosen.distance))
    return result


class _EndedError(Exception):
    """The search has ended before its last stage."""

    def __init__(self, outcome: ReactionOutcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome, self.reason = outcome, reason


@dataclass
class _Stages:
    """Engine calls and time of every stage."""

    counter: CallCounter | None
    calls: dict[str, StageCalls] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[_Tally]:
        """Context of one stage; stages of one name are added up, also where they end in an error."""
        start, before, tally = time.monotonic(), 0 if self.counter is None else self.counter.n_calls, _Tally()
        try:
            yield tally
        finally:
            known = self.calls.get(name, StageCalls(0, 0, 0, 0.0))
            used = tally.gradients + tally.hessians if self.counter is None else self.counter.n_calls - before
            self.calls[name] = StageCalls(
                known.gradients + tally.gradients,
                known.hessians + tally.hessians,
                known.evaluations + used,
                known.seconds + time.monotonic() - start,
            )


@dataclass
class _Tally:
    gradients: int = 0
    hessians: int = 0


class _Search:
    """One search, and what it has found so far."""

    def __init__(
        self, reactant: Structure, product: Structure, engine: Engine, settings: ReactionSettings, name: str
    ) -> None:
        self.engine, counter = counted(engine)
        self.stages = _Stages(counter)
        self.given, self.settings = (reactant, product), settings
        self.found = Reaction(name, engine.level, ReactionOutcome.FOUND)

    def run(self) -> Reaction:
        try:
            self._relax_ends()
            relaxed, tried = self.found, list[Reaction]()
            for attempt in range(self.settings.attempts):
                tried += self._attempt(relaxed, attempt)
                self.found = max(tried, key=lambda found: _ORDER.index(found.outcome))
                if self.found.found:
                    self._add_thermochemistry()
                    break
        except _EndedError as end:
            self._end(end.outcome, end.reason)
        except (EngineError, GeometryError) as error:
            self._end(ReactionOutcome.ENGINE_FAILED, str(error))
        return replace(self.found, calls=self.stages.calls)

    def _end(self, outcome: ReactionOutcome, reason: str) -> None:
        self.found = replace(self.found, outcome=outcome, reason=reason)

    def _relax_ends(self) -> None:
        with self.stages.stage("relaxation") as tally:
            runs = []
            for which, start in zip(("reactant", "product"), self.given, strict=True):
                run = minimize(start, self.engine, fmax=self.settings.fmax)
                runs.append(run)
                tally.gradients += len(run.history)
                self.found = (
                    replace(self.found, reactant=run) if which == "reactant" else replace(self.found, product=run)
                )
                if not run.converged:
                    raise _EndedError(ReactionOutcome.END_NOT_RELAXED, f"the {which}: {run.reason}")
                change = displacement(start, run.structure)
                if change.formed or change.broken:
                    raise _EndedError(
                        ReactionOutcome.END_CHANGED,
                        f"the {which} as given is no minimum of {self.engine.level}: "
                        f"{_bonds(start, change.formed, change.broken)}",
                    )
        apart = displacement(runs[0].structure, runs[1].structure)
        if apart.is_below(SAME_GEOMETRY):
            raise _EndedError(ReactionOutcome.SAME_ENDS, f"they are {apart.rmsd:.3f} Å apart")

    def _attempt(self, relaxed: Reaction, attempt: int) -> list[Reaction]:
        """One band between the relaxed ends, and the searches from its highest images."""
        reactant, product = relaxed.reactant, relaxed.product
        assert reactant is not None
        assert product is not None
        settings = self.settings
        with self.stages.stage("path") as tally:
            try:
                path = neb(
                    reactant.structure,
                    product.structure,
                    self.engine,
                    images=settings.images + attempt * (settings.images // 2),
                    fmax=settings.path_fmax,
                    steps=settings.path_steps,
                    relax_ends=False,
                )
            except (EngineError, GeometryError) as error:  # other images may do
                return [replace(relaxed, outcome=ReactionOutcome.ENGINE_FAILED, reason=str(error))]
            tally.gradients += path.n_gradients
        joined = replace(relaxed, path=path)
        if not path.has_barrier:
            reason = "no image is higher than both ends"
            return [replace(joined, outcome=ReactionOutcome.NO_BARRIER, reason=reason)]
        results = []
        for index in peaks(path, _MAX_PEAKS):
            try:
                results.append(self._from_image(joined, index))
            except (EngineError, GeometryError) as error:
                results.append(replace(joined, outcome=ReactionOutcome.ENGINE_FAILED, reason=str(error)))
            if results[-1].found:
                break
        return results

    def _from_image(self, before: Reaction, index: int) -> Reaction:
        """Saddle search and reaction path from one image of a band."""
        settings, path = self.settings, before.path
        assert path is not None
        with self.stages.stage("saddle") as tally:
            top = saddle(
                path.images[index].structure,
                self.engine,
                method=settings.method,
                fmax=settings.fmax,
                steps=settings.saddle_steps,
            )
            tally.gradients, tally.hessians = top.n_gradients, top.n_hessians
        named = top.structure.with_positions(top.structure.positions, id=f"{before.id}/ts", tag="ts")
        result = replace(before, saddle=replace(top, structure=named), irc=None, ends=None, matches=None)
        if not top.converged:
            return replace(result, outcome=ReactionOutcome.NO_SADDLE, reason=top.reason)
        with self.stages.stage("reaction path") as tally:
            line = irc(named, self.engine, hessian=top.hessian, step=settings.irc_step, steps=settings.irc_steps)
            tally.gradients = line.n_gradients
        result = replace(result, irc=line)
        if not line.converged:
            reason = f"backward: {line.backward_end}, forward: {line.forward_end}, after {settings.irc_steps} steps"
            return replace(result, outcome=ReactionOutcome.PATH_INCOMPLETE, reason=reason)
        with self.stages.stage("ends of the path") as tally:
            ends = [
                minimize(
                    half[-1].structure.with_positions(half[-1].structure.positions, id=f"{before.id}/{side}"),
                    self.engine,
                    fmax=settings.fmax,
                )
                for side, half in (("backward", line.backward), ("forward", line.forward))
            ]
            tally.gradients = sum(len(end.history) for end in ends)
        return _judged(result, ends)

    def _add_thermochemistry(self) -> None:
        """Free energies of the reaction that was found; it stays found where the engine fails here."""
        try:
            self.found = self._with_thermochemistry(self.found)
        except (EngineError, GeometryError) as error:
            self.found = replace(self.found, reason=f"no free energies: {error}")

    def _with_thermochemistry(self, found: Reaction) -> Reaction:
        assert found.reactant is not None
        assert found.product is not None
        assert found.saddle is not None
        assert found.saddle.modes is not None
        requested = ThermoSettings(temperature=self.settings.temperature, method=self.settings.thermo)
        results, remarks = [], [found.reason] if found.reason else []
        with self.stages.stage("vibrations") as tally:
            for which, run in (("reactant", found.reactant), ("product", found.product)):
                surface = CountedSurface(self.engine, run.structure)
                modes = normal_modes(run.structure, surface.hessian(run.structure.positions))
                tally.hessians += 1
                if modes.n_imaginary:
                    remarks.append(
                        f"the {which} has an imaginary mode of {-modes.frequencies[0]:.0f}i cm⁻¹, which is left out of "
                        "its free energy"
                    )
                results.append(thermochemistry(run.structure, modes, requested, energy=run.energy))
        modes = found.saddle.modes
        top = thermochemistry(found.saddle.structure, modes, requested, energy=found.saddle.energy)
        thermo = ReactionThermo(
            np.atleast_1d(np.asarray(self.settings.temperature, dtype=float)),
            results[0],
            top,
            results[1],
            float(modes.frequencies[0]),
        )
        return replace(found, thermo=thermo, reason="; ".join(remarks))


def _judged(result: Reaction, ends: Sequence[MinimizationResult]) -> Reaction:
    """The result with the identity of both ends of its path."""
    assert result.reactant is not None
    assert result.product is not None
    expected = [(run.structure, run.energy) for run in (result.reactant, result.product)]
    order, matches, identity = match_ends(expected[0], expected[1], tuple((end.structure, end.energy) for end in ends))
    result = replace(
        result, ends=(ends[order[0]], ends[order[1]]), matches=matches, backward_to_reactant=order == (0, 1)
    )
    words = []
    for which, run, comparison in zip(("reactant", "product"), expected, matches, strict=True):
        if comparison.match is not EndMatch.SAME:
            bonds = _bonds(run[0], comparison.formed, comparison.broken)
            what = {
                EndMatch.CONFORMER: "another conformer of it",
                EndMatch.RELABELED: "the same molecule with exchanged atoms",
                EndMatch.DIFFERENT: "another molecule",
            }[comparison.match]
            words.append(
                f"the end at the {which} is {what}, {comparison.rmsd:.2f} Å away" + (f" ({bonds})" if bonds else "")
            )
    if identity:
        return replace(result, outcome=ReactionOutcome.FOUND, reason="; ".join(words))
    n_wrong = sum(comparison.match.rank >= EndMatch.RELABELED.rank for comparison in matches)
    outcome = ReactionOutcome.ENDS_DIFFER if n_wrong == 2 else ReactionOutcome.END_DIFFERS
    return replace(result, outcome=outcome, reason="; ".join(words))


def _bonds(structure: Structure, formed: Sequence[tuple[int, int]], broken: Sequence[tuple[int, int]]) -> str:
    changes = [*((bond, "formed") for bond in formed), *((bond, "broken") for bond in broken)]
    return ", ".join(f"{bond_name(structure, bond)} {what}" for bond, what in changes)
