"""Geometries along reaction paths: from guesses of transition states to saddle points and down both sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from hesse.datasets import StructuresLike
from hesse.engines import Engine, EngineLike, FiniteDifferences, as_engine, engine_for_workers
from hesse.errors import EngineError
from hesse.pes import IRCResult, PathPoint, irc, saddle
from hesse.runtime.settings import Settings, settings_from
from hesse.sampling.runner import StructureSamples, run_sampling
from hesse.sampling.samples import energy_labels, with_name
from hesse.sampling.sampling_result import SamplingFailure, SamplingResult
from hesse.sampling.starts import KnownLabels, sampling_tasks
from hesse.structures import Structure

__all__ = ["PathSampling", "sample_paths"]


class PathSampling(Settings):
    """Settings of sampling along reaction paths.

    Attributes:
        search: search for the saddle point of the engine first; otherwise the input geometry must be one.
        saddle_fmax: limit of the largest force at the saddle point, eV/Å.
        saddle_steps: maximal number of steps of the search.
        step: length of a step along the path, Å √u.
        steps: maximal number of steps of each half of the path.
        fmax: a half of the path ends when no force exceeds this, eV/Å.
        count: number of points kept of each half, evenly spaced and including its end; None keeps all.

    Raises:
        ConfigError: a value out of range.
    """

    search: bool = True
    saddle_fmax: float = Field(0.005, gt=0)
    saddle_steps: int = Field(200, ge=1)
    step: float = Field(0.1, gt=0)
    steps: int = Field(200, ge=1)
    fmax: float = Field(0.02, gt=0)
    count: int | None = Field(None, ge=1)


def sample_paths(
    structures: StructuresLike,
    engine: EngineLike,
    sampling: PathSampling | None = None,
    *,
    differences: FiniteDifferences | None = None,
    reuse: bool = True,
    workers: int | None = None,
    scheduler: str | None = None,
    quiet: bool = False,
    **options: Any,
) -> SamplingResult:
    """Sample reaction paths through the transition states near guesses, with energies and forces.

    The samples have the ids `{guess}/ts` and `{guess}/irc/+0012` (point 12 of the forward half; `-` is the backward
    half), and the tags `ts` and `irc`. A half that reaches its limit of steps keeps its points and is listed as a
    failure too.

    Args:
        structures: the guesses: ASE Atoms, a Structure, a list of them, a Dataset, or the path of a file.
        engine: a name (`gfn2`), the path of a model, an Engine, a Potential or an ASE calculator. Worker processes need
            a name or a path; objects work in this process.
        sampling: settings.
        differences: how Hessians are taken from forces.
        reuse: start with Hessians of the data set, if they have the level of theory of the engine; False computes all
            Hessians.
        workers: number of processes of one thread each, 1 by default; 0 works in this process. A molecule that kills
            its process becomes a failure.
        scheduler: instead, a dask cluster; see `hesse.runtime.parallel.map_tasks`.
        quiet: no progress.
        **options: the fields of `PathSampling` in place of `sampling`.

    Returns:
        The samples, and the molecules and samples that failed.

    Raises:
        RequestError: two structures have the same id; an engine object together with workers;
            Hessians of another level of theory.
        HesseError: the input cannot be read, or there is no such engine.
    """
    settings = settings_from(PathSampling, sampling, options)
    engine, workers = engine_for_workers(engine, workers, scheduler, differences)
    return run_sampling(
        _make_sampler,
        (engine, differences, settings),
        sampling_tasks(structures, engine, reuse=reuse),
        level=as_engine(engine).level,
        title="paths",
        engine=engine,
        workers=workers,
        scheduler=scheduler,
        quiet=quiet,
    )


def _make_sampler(
    spec: tuple[str | Engine, FiniteDifferences | None, PathSampling],
) -> Callable[[tuple[Structure, KnownLabels]], StructureSamples]:
    engine_or_name, differences, sampling = spec
    engine = as_engine(engine_or_name, differences=differences)
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
    """Ids, tags and points of one half: all, or `count` of them, evenly spaced from the saddle point to the end."""
    indices = list(range(len(points)))
    if count is not None and count < len(points):
        indices = [round(k) - 1 for k in np.linspace(0, len(points), count + 1)[1:]]
    return [(f"{start.id}/irc/{side}{k + 1:04d}", "irc", points[k]) for k in indices]


def _failures(start: Structure, path: IRCResult) -> list[SamplingFailure]:
    halves = {"forward": (path.forward, path.forward_end), "backward": (path.backward, path.backward_end)}
    return [
        SamplingFailure(f"{start.id}/{name}", f"the {name} half has not reached a minimum after {len(points)} steps")
        for name, (points, end) in halves.items()
        if end == "steps" or not points
    ]
