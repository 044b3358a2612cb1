"""Geometries along reaction paths: from guesses of transition states to saddle points, and down both sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hesse.datasets import Dataset
from hesse.engines import Engine, FiniteDifferences, make_engine
from hesse.errors import ConfigError, EngineError
from hesse.pes import IRCResult, PathPoint, irc, saddle
from hesse.sampling.runner import (
    KnownLabels,
    SamplingFailure,
    SamplingResult,
    StructureSamples,
    energy_labels,
    run_sampling,
    stored_hessians,
    validated_starts,
    with_name,
)
from hesse.structures import Structure

__all__ = ["PathSampling", "sample_paths"]


@dataclass(frozen=True)
class PathSampling:
    """What to sample.

    Attributes:
        search: walk to the saddle point of the engine first; otherwise the given geometry must be one.
        saddle_fmax: eV/Å; the search ends below it.
        saddle_steps: the search gives up after so many.
        step: Å √u, along the path.
        steps: of each half of the path, at most.
        fmax: eV/Å; a half of the path ends below it.
        count: at most so many points of each half, evenly spread along it, its end among them; None: all.

    Raises:
        ConfigError: a value out of range.
    """

    search: bool = True
    saddle_fmax: float = 0.005
    saddle_steps: int = 200
    step: float = 0.1
    steps: int = 200
    fmax: float = 0.02
    count: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("saddle_fmax", self.saddle_fmax), ("step", self.step), ("fmax", self.fmax)):
            if not (np.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be a positive number, got {value}")
        if self.steps < 1 or self.saddle_steps < 1 or (self.count is not None and self.count < 1):
            raise ConfigError(
                f"expected at least one step and point, got {self.steps}, {self.saddle_steps} and {self.count}"
            )


def sample_paths(
    structures: Sequence[Structure] | Dataset,
    engine: str | Engine,
    sampling: PathSampling | None = None,
    *,
    differences: FiniteDifferences | None = None,
    reuse: bool = True,
    workers: int | None = None,
    scheduler: str | None = None,
    quiet: bool = False,
) -> SamplingResult:
    """Follow the path through the transition state near each of `structures`: ids `{guess}/ts` and `{guess}/irc/+0012`
    (the twelfth point of the forward half; `-` is the other), tags `ts` and `irc`, with energies and forces.

    A half that runs out of steps keeps its points and is a failure as well. Arguments and errors are those of
    `hesse.sampling.sample_normal_modes`; a Hessian that the data set holds starts the search.
    """
    settings = sampling or PathSampling()
    starts = validated_starts(structures, engine, workers)
    known = stored_hessians(structures, engine) if reuse else [KnownLabels()] * len(starts)
    return run_sampling(
        _make_sampler,
        (engine, differences, settings),
        list(zip(starts, known, strict=True)),
        level=(make_engine(engine) if isinstance(engine, str) else engine).level,
        title="paths",
        workers=workers,
        scheduler=scheduler,
        quiet=quiet,
    )


def _make_sampler(
    spec: tuple[str | Engine, FiniteDifferences | None, PathSampling],
) -> Callable[[tuple[Structure, KnownLabels]], StructureSamples]:
    engine_or_name, differences, sampling = spec
    engine = make_engine(engine_or_name, differences=differences) if isinstance(engine_or_name, str) else engine_or_name
    return lambda task: _sample_one(*task, engine, sampling)


def _sample_one(start: Structure, known: KnownLabels, engine: Engine, sampling: PathSampling) -> StructureSamples:
    center, hessian = start, known.hessian
    if sampling.search:
        result = saddle(start, engine, hessian=hessian, fmax=sampling.saddle_fmax, steps=sampling.saddle_steps)
        if not result.converged:
            raise EngineError(f'structure "{start.id}": no saddle point after {result.steps} steps: {result.reason}')
        center, hessian = result.structure, result.hessian
    path = irc(center, engine, hessian=hessian, step=sampling.step, steps=sampling.steps, fmax=sampling.fmax)
    points = [
        *reversed(_evenly_spaced(start, "-", path.backward, sampling.count)),
        (f"{start.id}/ts", "ts", path.saddle),
        *_evenly_spaced(start, "+", path.forward, sampling.count),
    ]
    structures = tuple(with_name(p.structure, start, tag, name) for name, tag, p in points)
    labels = tuple(energy_labels(p.structure, p.energy, p.forces) for _, _, p in points)
    return StructureSamples(structures, labels, tuple(_failures(start, path)), reused=known.hessian is not None)


def _evenly_spaced(
    start: Structure, side: str, points: Sequence[PathPoint], count: int | None
) -> list[tuple[str, str, PathPoint]]:
    """Names, tags and points of one half: all, or `count` of them, evenly spread from the saddle to the end."""
    indices = list(range(len(points)))
    if count is not None and count < len(points):
        indices = [round(k) - 1 for k in np.linspace(0, len(points), count + 1)[1:]]
    return [(f"{start.id}/irc/{side}{k + 1:04d}", "irc", points[k]) for k in indices]


def _failures(start: Structure, path: IRCResult) -> list[SamplingFailure]:
    halves = {"forward": (path.forward, path.forward_end), "backward": (path.backward, path.backward_end)}
    return [
        SamplingFailure(f"{start.id}/{name}", f"the {name} half is not down after {len(points)} steps")
        for name, (points, end) in halves.items()
        if end == "steps" or not points
    ]
