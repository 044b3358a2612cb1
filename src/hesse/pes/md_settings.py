"""Settings of replicas: constant energy, constant temperature, or a ramp of temperatures until they fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pydantic import Field, model_validator

from hesse.pes.md_failures import FailureCriterion
from hesse.runtime.settings import Settings
from hesse.structures import Contacts, bead_number

__all__ = ["RAMPS", "RampProtocol", "ReplicaSettings"]


@dataclass(frozen=True)
class RampProtocol:
    """A ramp of temperatures in steps, and the criterion of its failures.

    Attributes:
        start: first temperature, K.
        increment: K.
        interval: ps at each temperature.
        ceiling: last temperature, K.
        time_step: fs.
        friction: fs⁻¹.
        failure: criterion, see `hesse.pes.md_failures`.
    """

    start: float
    increment: float
    interval: float
    ceiling: float
    time_step: float
    friction: float
    failure: FailureCriterion


RAMPS: Mapping[str, RampProtocol] = MappingProxyType(
    {
        "jctc2025": RampProtocol(5.0, 5.0, 5.0, 600.0, 1.0, 0.001, "jctc2025"),
        "fast": RampProtocol(300.0, 30.0, 0.1, 3000.0, 0.5, 0.01, "fast"),
    }
)
"""The published protocol (arXiv 2503.07839), from 5 K at the minimum of the model by 5 K every 5 ps; thermostat, time
step, friction and ceiling are not in the paper and chosen here. And a quick one."""


class ReplicaSettings(Settings):
    """Settings of replicas of molecular dynamics.

    Attributes:
        ramp: "jctc2025" or "fast", see `RAMPS`; None: constant energy or temperature.
        temperature: K, of the velocities at the start and of the thermostat. Not with a ramp.
        ensemble: "langevin" (constant temperature) or "nve" (constant energy). Ramps are "langevin".
        time: ps. Not with a ramp, whose length follows from its temperatures.
        ceiling: K; last temperature of a ramp, None for that of the protocol.
        interval: ps at each temperature of a ramp, None for that of the protocol.
        time_step: fs; None: 0.5, or that of the ramp.
        friction: fs⁻¹; None: 0.01, or that of the ramp.
        failure: criterion "jctc2025", "fast" or "none" (only numbers that are not finite); None: "fast", or that of
            the ramp.
        stride: steps between snapshots of the trajectory; 0 keeps none.
        relax: start from the nearest minimum of the engine; for a ramp, one without imaginary modes (a Hessian).
        fmax: largest force after relaxation, eV/Å.
        steps: largest number of steps of the relaxation.
        compile: translate the forces of a model to machine code first (`torch.compile`), for long runs.
        contacts: names of two bead types and their closest distance in data, Å, each: beads collide at half of it.

    Raises:
        ConfigError: a value out of range, or options that contradict each other.
        UnknownOptionError: an unknown ramp, ensemble or criterion.
    """

    ramp: Literal["jctc2025", "fast"] | None = None
    temperature: float | None = Field(None, ge=0)
    ensemble: Literal["langevin", "nve"] = "langevin"
    time: float | None = Field(None, gt=0)
    ceiling: float | None = Field(None, gt=0)
    interval: float | None = Field(None, gt=0)
    time_step: float | None = Field(None, gt=0)
    friction: float | None = Field(None, gt=0)
    failure: FailureCriterion | None = None
    stride: int = Field(100, ge=0)
    relax: bool = True
    fmax: float = Field(0.005, gt=0)
    steps: int = Field(500, ge=1)
    compile: bool = False
    contacts: tuple[tuple[str, str, float], ...] = ()

    @model_validator(mode="after")
    def _check_ramp(self) -> ReplicaSettings:
        if self.ramp is None:
            for name in ("ceiling", "interval"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} belongs to a ramp: choose one (jctc2025 or fast), or leave it out")
        else:
            if self.ensemble == "nve":
                raise ValueError('a ramp needs a thermostat: ensemble "langevin"')
            for name in ("temperature", "time"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} contradicts the ramp {self.ramp}, which has its own: leave one out")
            if self.ceiling is not None and self.ceiling < RAMPS[self.ramp].start:
                raise ValueError(f"the ceiling is below the first temperature of the ramp, {RAMPS[self.ramp].start} K")
        if self.ensemble == "nve" and self.friction is not None:
            raise ValueError('friction needs a thermostat: ensemble "langevin"')
        if self.n_steps < 1:
            raise ValueError("the time is shorter than half a step")
        return self

    @property
    def step_length(self) -> float:
        """Time step, fs."""
        return self.time_step or (RAMPS[self.ramp].time_step if self.ramp else 0.5)

    @property
    def damping(self) -> float:
        """Friction of the thermostat, fs⁻¹."""
        return self.friction or (RAMPS[self.ramp].friction if self.ramp else 0.01)

    @property
    def criterion(self) -> FailureCriterion:
        """Criterion of failures."""
        return self.failure or (RAMPS[self.ramp].failure if self.ramp else "fast")

    @property
    def contact_distances(self) -> Contacts:
        """`contacts` by the numbers of the bead types, the smaller first."""
        return {
            (min(a, b), max(a, b)): closest
            for first, second, closest in self.contacts
            for a, b in [(bead_number(first), bead_number(second))]
        }

    @property
    def steps_per_level(self) -> int:
        """Steps at each temperature of a ramp; all steps without one."""
        if self.ramp is None:
            return round(1000.0 * (10.0 if self.time is None else self.time) / self.step_length)
        return round(1000.0 * (self.interval or RAMPS[self.ramp].interval) / self.step_length)

    @property
    def n_steps(self) -> int:
        """Number of steps of a replica that survives."""
        if self.ramp is None:
            return self.steps_per_level
        protocol = RAMPS[self.ramp]
        ceiling = protocol.ceiling if self.ceiling is None else self.ceiling
        return self.steps_per_level * (1 + int((ceiling - protocol.start) / protocol.increment + 1e-9))

    def target(self, step: int) -> float:
        """The temperature of the thermostat.

        Args:
            step: number of the step, the first one is 1.

        Returns:
            K; that of the initial velocities for constant energy.
        """
        if self.ramp is None:
            return 300.0 if self.temperature is None else self.temperature
        protocol = RAMPS[self.ramp]
        return protocol.start + protocol.increment * (max(step - 1, 0) // self.steps_per_level)
