"""Cost of labels against the size of the molecule: energy, gradient, Hessian-vector product and Hessian of straight
alkanes, by any engine, on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.engines import (
    AnalyticDerivatives,
    EnergyFunction,
    Engine,
    FiniteDifferences,
    ForceEngine,
    PyscfEngine,
    SinglePoint,
    make_engine,
)
from hesse.errors import ConfigError, ExecutionError
from hesse.probes import ProbeSeed, make_probe
from hesse.runtime.parallel import map_tasks
from hesse.runtime.progress import track
from hesse.structures import Request, Structure, collate

__all__ = ["LabelCost", "LabelCostPlan", "alkane", "fitted_exponents", "measure_label_costs"]

LABEL_NAMES = ("energy", "gradient", "hvp", "hessian")

MIN_ATOMS_FOR_FIT = 20
"""Exponents are fitted to molecules of at least this many atoms if there are three sizes of them: the cost of small
molecules is mostly overhead."""


@dataclass(frozen=True)
class LabelCostPlan:
    """Settings of the measurement.

    Attributes:
        engines: names as for `hesse.engines.make_engine`.
        carbons: sizes of the alkanes, C_n H_2n+2.
        seconds: time for everything, divided equally between the engines. Sizes (first of the cheap labels, then of
            Hessians) that would not fit, estimated from the smaller ones, are left out.
        repeats: repetitions of each label, interleaved with the other labels.

    Raises:
        ConfigError: no engine or size, an engine that occurs twice, or a number that is not positive.
    """

    engines: tuple[str, ...] = ("gfn2",)
    carbons: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 11, 16, 22, 32)
    seconds: float = 55.0
    repeats: int = 3

    def __post_init__(self) -> None:
        if not self.engines or not self.carbons or min(self.carbons) < 1 or self.repeats < 1:
            raise ConfigError("a measurement of costs needs an engine, carbon atoms and repeats, at least one of each")
        if len(set(self.engines)) < len(self.engines):
            raise ConfigError(f"each engine is measured once, got {', '.join(self.engines)}")
        if not (np.isfinite(self.seconds) and self.seconds > 0):
            raise ConfigError(f"the time for everything must be a positive number of seconds, got {self.seconds}")
        object.__setattr__(self, "carbons", tuple(sorted(set(self.carbons))))


@dataclass(frozen=True)
class LabelCost:
    """Cost of one label.

    Attributes:
        engine, level: name of the engine and level of theory.
        label: "energy", "gradient" (with the energy), "hvp" (one product) or "hessian"; the latter two on top of the
            gradient at the structure itself.
        atoms: number of atoms of the molecule.
        seconds: process time, median of the repetitions.
        wall_seconds: wall time, median of the repetitions.
        repeats: number of repetitions.
        gradients: number of gradient evaluations; None for labels that are not computed from gradients.
        ratio: ratio of `seconds` to those of the gradient, median of the repetitions.
    """

    engine: str
    level: str
    label: str
    atoms: int
    seconds: float
    wall_seconds: float
    repeats: int
    gradients: int | None
    ratio: float


def alkane(n_carbons: int) -> Structure:
    """The straight, all-anti alkane C_n H_2n+2 with standard bonds (C-C 1.53 Å, C-H 1.09 Å, C-C-C 112°, H-C-H 107°).

    Args:
        n_carbons: number of carbon atoms n.

    Returns:
        The molecule, with its formula as id.

    Raises:
        ConfigError: no carbon atom.
    """
    if n_carbons < 1:
        raise ConfigError(f"an alkane has at least one carbon atom, got {n_carbons}")
    half_ccc, half_hch = np.radians(112.0 / 2), np.radians(107.0 / 2)
    bond = 1.53 * np.array([np.sin(half_ccc), np.cos(half_ccc), 0.0])
    numbers, positions = [], []
    for k in range(n_carbons):
        side = 1.0 if k % 2 else -1.0  # alternates along the chain
        carbon = np.array([k * bond[0], side * bond[1] / 2, 0.0])
        numbers.append(6)
        positions.append(carbon)
        hydrogens = [np.array([0.0, side * np.cos(half_hch), z * np.sin(half_hch)]) for z in (1.0, -1.0)]
        if k == 0:  # end of the chain
            hydrogens.append(np.array([-np.sin(half_ccc), -side * np.cos(half_ccc), 0.0]))
        if k == n_carbons - 1:
            hydrogens.append(np.array([np.sin(half_ccc), -side * np.cos(half_ccc), 0.0]))
        numbers += [1] * len(hydrogens)
        positions += [carbon + 1.09 * direction for direction in hydrogens]
    return Structure(np.array(numbers), np.array(positions), id=f"C{n_carbons}H{2 * n_carbons + 2}")


def measure_label_costs(plan: LabelCostPlan | None = None, *, workers: int = 1, quiet: bool = False) -> list[LabelCost]:
    """Time the labels, one engine after another.

    Hessian-vector products by finite differences are central differences of two gradients.

    Args:
        plan: settings; None for the defaults.
        workers: 1 for a separate process with one thread, 0 for this process with its present number of threads.
        quiet: show no progress.

    Returns:
        The costs in the order of engines, atoms and labels.

    Raises:
        ExecutionError: an engine failed.
        ConfigError: another number of workers: several would disturb each other's timings.
        RequestError, MissingExtraError: an engine cannot be made.
    """
    plan = plan or LabelCostPlan()
    if workers not in (0, 1):
        raise ConfigError(f"timings are taken by one worker, or 0 for this process, got {workers}")
    for name in plan.engines:  # raises before anything is timed if a name is wrong
        make_engine(name)
    rows: list[LabelCost] = []
    with track("timing labels", len(plan.engines), quiet=quiet) as advance:
        for outcome in map_tasks(_make_worker, plan, plan.engines, workers=workers):
            if outcome.value is None:
                raise ExecutionError(f"{plan.engines[outcome.index]} could not be timed: {outcome.error}")
            rows += outcome.value
            advance(1)
    return sorted(rows, key=lambda r: (plan.engines.index(r.engine), r.atoms, LABEL_NAMES.index(r.label)))


def fitted_exponents(rows: Iterable[LabelCost]) -> dict[tuple[str, str], float]:
    """Fitted powers of the number of atoms with which the costs grow: slopes of lines through the logarithms.

    Args:
        rows: measured costs.

    Returns:
        The exponents by (engine, label), for labels with at least three sizes. Large molecules only
        (`MIN_ATOMS_FOR_FIT`) if there are at least three of them.
    """
    rows = list(rows)
    exponents = {}
    for engine, label in dict.fromkeys((r.engine, r.label) for r in rows):
        points = [(r.atoms, r.seconds) for r in rows if (r.engine, r.label) == (engine, label) and r.seconds > 0]
        large = [p for p in points if p[0] >= MIN_ATOMS_FOR_FIT]
        logarithms = np.log(large if len(large) >= 3 else points)
        if len(logarithms) >= 3:
            exponents[engine, label] = float(np.polyfit(logarithms[:, 0], logarithms[:, 1], 1)[0])
    return exponents


class _GradientCounter(ForceEngine):
    """An engine that counts its gradient evaluations."""

    def __init__(self, inner: ForceEngine) -> None:
        self.inner, self.calls = inner, 0
        self.name, self.level, self.settings = inner.name, inner.level, inner.settings
        self.differences, self.gradient_noise = inner.differences, inner.gradient_noise
        self._energy_function: EnergyFunction | None = None

    def energy_function(self, structure: Structure) -> EnergyFunction:
        energy_function = self._energy_function = self.inner.energy_function(structure)

        def point(positions: Float[Array, "n 3"]) -> SinglePoint:
            self.calls += 1
            return energy_function(positions)

        return point

    def analytic_derivatives(
        self, structure: Structure, energy_function: EnergyFunction, request: Request
    ) -> AnalyticDerivatives:
        assert self._energy_function is not None
        return self.inner.analytic_derivatives(structure, self._energy_function, request)


def _make_worker(plan: LabelCostPlan) -> Callable[[str], list[LabelCost]]:
    torch.set_num_threads(1)
    return lambda text: _measure(text, plan)


def _measure(engine_name: str, plan: LabelCostPlan) -> list[LabelCost]:
    """Time cheap labels of all sizes that fit into the time, then Hessians of all sizes that still fit."""
    engine = make_engine(engine_name, differences=FiniteDifferences(richardson=False))
    budget = _TimeBudget(plan.seconds / len(plan.engines))
    molecules = [alkane(n) for n in plan.carbons]
    _time_once(_make_work(engine, molecules[0], "hvp"))  # setup is not timed
    rows: list[LabelCost] = []
    gradients: dict[int, float] = {}
    for molecule in molecules:
        if rows and not budget.allows("cheap", len(molecule), fraction=0.6):
            break
        with budget.spending("cheap", len(molecule)):
            rows += _time_cheap_labels(engine_name, engine, molecule, plan.repeats)
        gradients[len(molecule)] = next(r.seconds for r in reversed(rows) if r.label == "gradient")
    for molecule in molecules:
        n = len(molecule)
        # The first Hessian is expected to take two gradients for each of 3n coordinates.
        if n not in gradients or not budget.allows("hessian", n, fraction=1.0, first=6 * n * gradients[n]):
            break
        with budget.spending("hessian", n):
            rows.append(_time_hessian(engine_name, engine, molecule, gradients[n]))
    return rows


def _time_cheap_labels(engine_name: str, engine: Engine, molecule: Structure, repeats: int) -> list[LabelCost]:
    timings: dict[str, list[tuple[float, float]]] = {"energy": [], "gradient": [], "hvp": []}
    gradient_counts: Mapping[str, int | None] = {}
    for _ in range(repeats):  # interleaved, so that other load on the machine affects all labels alike
        round_counts = {}
        for label, times in timings.items():
            *spent, round_counts[label] = _time_once(_make_work(engine, molecule, label))
            times.append((spent[0], spent[1]))
        gradient_counts = round_counts
    gradient = np.array(timings["gradient"])
    rows = []
    for label, times in timings.items():
        durations = np.array(times) - (gradient if label == "hvp" else 0.0)
        count = gradient_counts[label]
        if label == "hvp" and count is not None:
            count -= 1  # the gradient at the structure itself is not part of the product
        rows.append(_row(engine_name, engine, molecule, label, durations, gradient[:, 0], count or None))
    return rows


def _time_hessian(engine_name: str, engine: Engine, molecule: Structure, gradient: float) -> LabelCost:
    process, wall, count = _time_once(_make_work(engine, molecule, "hessian"))
    spent = np.array([[process - gradient, wall - gradient]])
    count = None if count is None or count <= 1 else count - 1
    return _row(engine_name, engine, molecule, "hessian", spent, np.array([gradient]), count)


def _row(
    engine_name: str,
    engine: Engine,
    molecule: Structure,
    label: str,
    spent: Float[Array, "repeats 2"],
    gradient: Float[Array, "repeats"],
    count: int | None,
) -> LabelCost:
    process, wall = np.median(spent, axis=0)
    ratio = float(np.median(spent[:, 0] / gradient))
    return LabelCost(
        engine_name, engine.level, label, len(molecule), float(process), float(wall), len(spent), count, ratio
    )


def _make_work(engine: Engine, molecule: Structure, label: str) -> Callable[[], int | None]:
    """The function that is timed. It returns the number of gradients if they can be counted, else None."""
    probes = None
    if label == "hvp":
        probes = make_probe("rademacher", 1).draw(collate([molecule], 0.1), ProbeSeed(0))
    request = Request(energy=True, forces=label != "energy", probes=probes, hessian=label == "hessian")
    counted = _GradientCounter(engine) if isinstance(engine, ForceEngine) else None

    def work() -> int | None:
        if label == "energy" and isinstance(engine, PyscfEngine):  # PySCF can compute the energy without the gradient
            engine.energy_function(molecule).scf_at(molecule.positions)
            return None
        (counted or engine).compute(molecule, request)
        return counted.calls if counted is not None else None

    return work


def _time_once(work: Callable[[], int | None]) -> tuple[float, float, int | None]:
    """Process and wall seconds, and the result of the function."""
    process, wall = time.process_time(), time.perf_counter()
    count = work()
    return time.process_time() - process, time.perf_counter() - wall, count


class _TimeBudget:
    """Remaining wall time, and the expected time of larger molecules, extrapolated from smaller ones."""

    def __init__(self, seconds: float) -> None:
        self.start, self.seconds = time.perf_counter(), seconds
        self.spent: dict[str, list[tuple[int, float]]] = {}

    def allows(self, kind: str, atoms: int, fraction: float, first: float = 0.0) -> bool:
        """Whether work of this kind and size is expected to end within this fraction of the whole time. `first` is the
        expected time in seconds as long as nothing of this kind was measured."""
        expected = self._expected(kind, atoms) if kind in self.spent else first
        return time.perf_counter() - self.start + expected < fraction * self.seconds

    @contextmanager
    def spending(self, kind: str, atoms: int) -> Iterator[None]:
        """Context that records the time of work of a kind and size."""
        start = time.perf_counter()
        yield
        self.spent.setdefault(kind, []).append((atoms, time.perf_counter() - start))

    def _expected(self, kind: str, atoms: int) -> float:
        history = self.spent[kind]
        exponent = 3.0
        if len(history) >= 3:
            logs = np.log(history[-3:])
            exponent = float(np.clip(np.polyfit(logs[:, 0], logs[:, 1], 1)[0], 1.0, 5.0))
        return history[-1][1] * (atoms / history[-1][0]) ** exponent
