"""The result of a search for a reaction from both of its ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from jaxtyping import Float
from numpy import ndarray as Array

from hesse.harmonic.thermochemistry import Thermochemistry
from hesse.pes.band_result import NEBResult
from hesse.pes.end_identity import EndComparison
from hesse.pes.geometry_changes import Displacement
from hesse.pes.minimization import MinimizationResult
from hesse.pes.rates import eyring_rate, wigner_factor
from hesse.pes.reaction_path import IRCResult, PathPoint
from hesse.pes.saddle_result import SaddleResult
from hesse.pes.training_range import extrapolation_columns, farthest
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Extrapolation

__all__ = ["Reaction", "ReactionOutcome", "ReactionThermo", "StageCalls", "Verification"]


class ReactionOutcome(StrEnum):
    """How the search for a reaction ended."""

    FOUND = "found"
    DIFFERENT_ATOMS = "the ends have different atoms"
    END_NOT_RELAXED = "an end did not relax"
    END_CHANGED = "an end relaxes to another molecule"
    SAME_ENDS = "both ends relax to the same minimum"
    NO_BARRIER = "no barrier on the path"
    NO_SADDLE = "no saddle point"
    PATH_INCOMPLETE = "the path from the saddle point did not end"
    END_DIFFERS = "one end of the path is another molecule"
    ENDS_DIFFER = "both ends of the path are other molecules"
    ENGINE_FAILED = "the engine failed"


@dataclass(frozen=True)
class StageCalls:
    """Engine calls and time of one stage of a search.

    Attributes:
        gradients: number of gradients, those of finite-difference Hessians not counted.
        hessians: number of Hessians.
        evaluations: number of evaluations of the engine, those of finite differences included; for models, which have
            exact Hessians, gradients and Hessians.
        seconds: wall time.
    """

    gradients: int
    hessians: int
    evaluations: int
    seconds: float


@dataclass(frozen=True, eq=False, repr=False)
class ReactionThermo(ShortRepr):
    """Free energies of activation and rate constants.

    Attributes:
        temperature: K.
        reactant: thermochemistry of the relaxed reactant.
        saddle: of the transition state.
        product: of the relaxed product.
        imaginary_frequency: of the transition state, cm⁻¹, negative.
    """

    temperature: Float[Array, "temperatures"]
    reactant: Thermochemistry
    saddle: Thermochemistry
    product: Thermochemistry
    imaginary_frequency: float

    @property
    def gibbs_barrier(self) -> Float[Array, "temperatures"]:
        """ΔG‡ from the reactant, eV."""
        return _gibbs(self.saddle) - _gibbs(self.reactant)

    @property
    def reverse_gibbs_barrier(self) -> Float[Array, "temperatures"]:
        """ΔG‡ from the product, eV."""
        return _gibbs(self.saddle) - _gibbs(self.product)

    @property
    def gibbs_reaction_energy(self) -> Float[Array, "temperatures"]:
        """ΔG of the reaction, eV."""
        return _gibbs(self.product) - _gibbs(self.reactant)

    @property
    def tunneling(self) -> Float[Array, "temperatures"]:
        """Wigner's factor."""
        return wigner_factor(self.imaginary_frequency, self.temperature)

    @property
    def rate(self) -> Float[Array, "temperatures"]:
        """Rate constant of transition-state theory with Wigner's factor, 1/s."""
        return eyring_rate(self.gibbs_barrier, self.temperature) * self.tunneling

    def rows(self) -> list[dict[str, float]]:
        """Values at every temperature.

        Returns:
            One mapping per temperature: K, eV and 1/s by name.
        """
        names = ("temperature", "gibbs_barrier", "reverse_gibbs_barrier", "gibbs_reaction_energy", "tunneling", "rate")
        columns = [getattr(self, name).tolist() for name in names]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _gibbs(thermo: Thermochemistry) -> Float[Array, "temperatures"]:
    assert thermo.gibbs is not None
    return thermo.gibbs


@dataclass(frozen=True, eq=False)
class Verification:
    """The answer of one engine, evaluated by another one.

    Attributes:
        level: level of theory of the other engine.
        barrier: its energy of the transition state minus that of the reactant, at the geometries of the first engine,
            eV; None where it failed.
        reaction_energy: likewise of product and reactant, eV.
        saddle_found: whether it finds a first-order saddle point, starting at that of the first engine, within `limit`.
        distance: Å, of its saddle point from the start, after superposition; None without one.
        limit: Å.
        imaginary_frequency: of its saddle point, cm⁻¹.
        reason: why not, otherwise empty.
        change: bonds that changed from the start of that search to its end.
    """

    level: str
    barrier: float | None
    reaction_energy: float | None
    saddle_found: bool
    distance: float | None
    limit: float
    imaginary_frequency: float | None
    reason: str
    change: Displacement | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Reaction(ShortRepr):
    """A reaction between two geometries: what was found, and how far the search came otherwise.

    Attributes:
        id: name of the reaction.
        level: level of theory.
        outcome: how the search ended.
        reason: details in words; empty where the reaction was found and nothing is worth a remark.
        reactant: the relaxed reactant.
        product: the relaxed product.
        path: the elastic band.
        saddle: the transition state: that of the reaction, or the last one that was tried.
        irc: the reaction path through the saddle.
        ends: the relaxed ends of that path, on the side of the reactant and on that of the product.
        matches: how they compare with the reactant and the product.
        backward_to_reactant: whether the backward half of `irc` leads to the reactant.
        thermo: free energies and rates; None where the reaction was not found.
        verification: the answer by another engine, where asked.
        calls: what every stage took, by its name.
    """

    id: str
    level: str
    outcome: ReactionOutcome
    reason: str = ""
    reactant: MinimizationResult | None = None
    product: MinimizationResult | None = None
    path: NEBResult | None = None
    saddle: SaddleResult | None = None
    irc: IRCResult | None = None
    ends: tuple[MinimizationResult, MinimizationResult] | None = None
    matches: tuple[EndComparison, EndComparison] | None = None
    backward_to_reactant: bool = True
    thermo: ReactionThermo | None = None
    verification: Verification | None = None
    calls: Mapping[str, StageCalls] = field(default_factory=dict)

    @property
    def found(self) -> bool:
        """Whether a first-order saddle point was found whose path ends at both molecules."""
        return self.outcome is ReactionOutcome.FOUND

    @property
    def barrier(self) -> float | None:
        """Energy of the saddle point minus that of the reactant, eV; None without a saddle point."""
        return self._difference(self.saddle, self.reactant)

    @property
    def reverse_barrier(self) -> float | None:
        """Energy of the saddle point minus that of the product, eV."""
        return self._difference(self.saddle, self.product)

    @property
    def reaction_energy(self) -> float | None:
        """Energy of the product minus that of the reactant, eV."""
        return self._difference(self.product, self.reactant)

    @property
    def imaginary_frequency(self) -> float | None:
        """Of the saddle point, cm⁻¹, negative; None without a saddle point."""
        modes = None if self.saddle is None or not self.saddle.converged else self.saddle.modes
        return None if modes is None else float(modes.frequencies[0])

    @property
    def extrapolation(self) -> Extrapolation | None:
        """How far the answer is from the training data of a model, at the geometry that is farthest: ends, saddle point
        and the path through it. None for other engines, and for models without a summary of their data."""
        stages = (self.reactant, self.product, self.saddle, self.irc, *(self.ends or ()))
        return farthest(stage.extrapolation for stage in stages if stage is not None)

    @property
    def engine_calls(self) -> int:
        """Number of evaluations of the engine in all stages."""
        return sum(stage.evaluations for stage in self.calls.values())

    @property
    def seconds(self) -> float:
        """Wall time of all stages."""
        return sum(stage.seconds for stage in self.calls.values())

    @property
    def path_points(self) -> tuple[PathPoint, ...]:
        """The reaction path from the side of the reactant over the saddle point to that of the product; empty without
        one."""
        if self.irc is None:
            return ()
        return self.irc.points if self.backward_to_reactant else self.irc.points[::-1]

    def _difference(self, first: Any, second: Any) -> float | None:
        if first is None or second is None or (first is self.saddle and not self.saddle.converged):
            return None
        return float(first.energy - second.energy)

    def row(self) -> dict[str, Any]:
        """The result as JSON values by name: what `hesse reaction --json` writes.

        Returns:
            Energies in eV, frequencies in cm⁻¹, rates in 1/s; None where a stage was not reached. `temperature`,
            `gibbs_barrier` and `rate` are those of the first temperature, `rates` has all of them.
        """
        row: dict[str, Any] = {"id": self.id, "level": self.level, "found": self.found}
        row |= {
            "outcome": self.outcome.name.lower(),
            "reason": self.reason or ("" if self.found else str(self.outcome)),
        }
        for name in ("barrier", "reverse_barrier", "reaction_energy"):
            row[name] = getattr(self, name)
        rates = [] if self.thermo is None else self.thermo.rows()
        for name in ("temperature", "gibbs_barrier", "rate"):
            row[name] = rates[0][name] if rates else None
        row["rates"] = rates
        row["imaginary_frequency"] = self.imaginary_frequency
        row["ends_match"] = None if self.matches is None else self.found
        row["ends"] = None if self.matches is None else [{"match": str(c.match), "rmsd": c.rmsd} for c in self.matches]
        row["engine_calls"] = self.engine_calls
        row["calls"] = {
            name: {"gradients": s.gradients, "hessians": s.hessians, "evaluations": s.evaluations}
            for name, s in self.calls.items()
        }
        row["seconds"] = self.seconds
        row |= extrapolation_columns(self.extrapolation)
        if self.verification is not None:
            row["verification"] = {
                name: getattr(self.verification, name)
                for name in (
                    "level",
                    "barrier",
                    "reaction_energy",
                    "saddle_found",
                    "distance",
                    "limit",
                    "imaginary_frequency",
                    "reason",
                )
            }
        return row


def peaks(path: NEBResult, count: int) -> list[int]:
    """Indices of the highest local maxima between the ends of a path, the highest one first."""
    e = path.energies
    inner = [k for k in range(1, len(e) - 1) if e[k] >= e[k - 1] and e[k] >= e[k + 1]]
    return sorted(inner, key=lambda k: -float(e[k]))[:count]
