"""Counts of what an engine computes."""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from numpy import ndarray as Array

from hesse.engine import EnergyFunction, SinglePoint
from hesse.engines import AnalyticDerivatives, Engine, ForceEngine
from hesse.structures import Request, Structure

__all__ = ["CallCounter", "counted"]


@final
class CallCounter(ForceEngine):
    """An engine that counts the evaluations of another one, those of finite differences included.

    Args:
        engine: the engine that computes.

    Attributes:
        n_calls: number of evaluations of energy and forces so far.
    """

    def __init__(self, engine: ForceEngine) -> None:
        self.engine = engine
        self.name, self.level, self.settings = engine.name, engine.level, engine.settings
        self.differences, self.gradient_noise = engine.differences, engine.gradient_noise
        self.n_calls = 0

    def energy_function(self, structure: Structure) -> EnergyFunction:
        """See `ForceEngine.energy_function`."""
        compute = self.engine.energy_function(structure)

        def point(positions: Float[Array, "n 3"]) -> SinglePoint:
            self.n_calls += 1
            return compute(positions)

        return point

    def analytic_derivatives(
        self, structure: Structure, energy_function: EnergyFunction, request: Request
    ) -> AnalyticDerivatives:
        """See `ForceEngine.analytic_derivatives`."""
        return self.engine.analytic_derivatives(structure, energy_function, request)


def counted(engine: Engine) -> tuple[Engine, CallCounter | None]:
    """An engine whose evaluations are counted.

    Args:
        engine: any engine.

    Returns:
        The engine to use, and the counter; for models, which count by structures and Hessians, the same engine and
        None.
    """
    if not isinstance(engine, ForceEngine):
        return engine, None
    counter = CallCounter(engine)
    return counter, counter
