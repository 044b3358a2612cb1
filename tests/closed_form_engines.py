"""Engines and calculators whose answers are known, and some that misbehave. Worker processes import this module."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from numpy.typing import NDArray

import oracles
from hesse.engines import EnergyFunction, Engine, FiniteDifferences, ForceEngine, SinglePoint
from hesse.errors import EngineError
from hesse.models.adapters import CallablePotential
from hesse.structures import Properties, Request, Structure, from_ase


class ClosedForm(ForceEngine):
    """Energy and forces of an oracle, with white noise in the forces where asked; curvature by differences."""

    name = "closed-form"
    level = "closed form"

    def __init__(
        self, oracle: oracles.Oracle, differences: FiniteDifferences | None = None, noise: float = 0.0
    ) -> None:
        self.oracle, self.noise = oracle, noise
        self.differences = differences or FiniteDifferences()
        self.gradient_noise = noise if noise > 0 else 1e-13
        self.settings = MappingProxyType(self.differences.settings(self.gradient_noise))
        self.calls = 0

    def energy_function(self, structure: Structure) -> EnergyFunction:
        def point(positions: NDArray[np.float64]) -> SinglePoint:
            self.calls += 1
            exact = self.oracle.exact(structure.with_positions(positions, id=structure.id))
            noise = self.noise * np.random.default_rng(self.calls).normal(size=positions.shape)
            return SinglePoint(exact.energy, -exact.gradient + noise)

        return point


class MorseCalculator(Calculator):
    """The Morse oracle for ASE; `before` runs first."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE declares it so)

    def __init__(self, before: Callable[[Any], None] = lambda atoms: None) -> None:
        super().__init__()
        self.before, self.oracle = before, oracles.Morse()

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.before(self.atoms)
        exact = self.oracle.exact(from_ase(self.atoms))
        self.results = {"energy": exact.energy, "forces": -exact.gradient}


def morse() -> MorseCalculator:
    return MorseCalculator()


def killer() -> MorseCalculator:
    """Structures with potassium get noisy forces, with fluorine kill the process by a signal, with neon it ends, with
    sodium they raise, with magnesium they give NaN."""

    def before(atoms: Any) -> None:
        numbers = set(atoms.numbers)
        if 9 in numbers:
            os.kill(os.getpid(), signal.SIGSEGV)
        if 10 in numbers:
            os._exit(3)
        if 11 in numbers:
            raise EngineError("no convergence")
        if 12 in numbers:
            atoms.positions[:] = np.nan

    return NoisyForPotassium(before)


class NoisyForPotassium(MorseCalculator):
    """Forces that are not a gradient where there is potassium."""

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        if 19 in set(self.atoms.numbers):
            digits = int(abs(self.atoms.positions.sum()) * 1e9) % 2**32
            self.results["forces"] += 0.5 * np.random.default_rng(digits).normal(size=self.results["forces"].shape)


class HessianFails(Engine):
    """Gives everything but Hessians."""

    name, level, settings = "no-hessian", "no Hessians", MappingProxyType({})

    def __init__(self) -> None:
        self.asked, self.engine = 0, own_engine()

    def compute(self, structure: Structure, request: Request) -> Properties:
        self.asked += 1
        if request.hessian:
            raise EngineError("no Hessian today")
        return self.engine.compute(structure, request)


def slow() -> MorseCalculator:
    """A tenth of a second per label: five points. While it calculates a point, the folder in the environment variable
    CALCULATING, if any, holds a file with the number of its process."""
    folder = os.environ.get("CALCULATING")

    def before(atoms: Any) -> None:
        if folder is None:
            time.sleep(0.02)
            return
        mark = Path(folder, str(os.getpid()))
        mark.touch()
        time.sleep(0.02)
        mark.unlink()

    return MorseCalculator(before)


def model() -> oracles.Morse:
    return oracles.Morse()


def own_engine() -> ClosedForm:
    return ClosedForm(oracles.Morse())


def fails() -> None:
    raise RuntimeError("no license")


def number() -> int:
    return 3


def whole_molecules() -> CallablePotential:
    """A potential without energies of atoms."""
    return CallablePotential(lambda positions, *_: positions.square().sum())
