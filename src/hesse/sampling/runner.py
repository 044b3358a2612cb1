"""Sampling of many starts: the work is distributed over processes, and what they return becomes one result."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hesse.engines import Engine, as_engine
from hesse.errors import ExtrapolationWarning
from hesse.pes import describe_outside
from hesse.runtime.parallel import map_tasks
from hesse.runtime.progress import track
from hesse.sampling.sampling_result import DynamicsRun, SamplingFailure, SamplingResult
from hesse.sampling.starts import SamplingTask
from hesse.structures import Properties, Structure

__all__ = ["StructureSamples", "run_sampling"]


@dataclass(frozen=True, eq=False)
class StructureSamples:
    """Samples of one start.

    Attributes:
        structures: the samples.
        labels: their labels.
        failures: samples that could not be created.
        lowest_frequency: lowest frequency of the start, cm⁻¹.
        reused: whether its Hessian was taken from the input.
        runs: its runs of molecular dynamics.
    """

    structures: tuple[Structure, ...]
    labels: tuple[Properties, ...]
    failures: tuple[SamplingFailure, ...] = ()
    lowest_frequency: float = 0.0
    reused: bool = False
    runs: tuple[DynamicsRun, ...] = ()


def run_sampling(
    make_worker: Callable[[Any], Callable[[SamplingTask], StructureSamples]],
    spec: Any,
    tasks: Sequence[SamplingTask],
    *,
    level: str,
    title: str,
    engine: str | Engine | None = None,
    saddle_below: float | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    quiet: bool = False,
) -> SamplingResult:
    """Sample every start, in processes or in this one. A start that fails or kills its process becomes a failure.

    Args:
        make_worker: returns, for `spec`, the function that samples one start; see `hesse.runtime.parallel.map_tasks`.
        spec: argument of `make_worker`.
        tasks: the starts and their known labels.
        level: level of theory of the engine.
        title: title of the progress line.
        engine: the engine; with a model, samples outside its training data give one `ExtrapolationWarning`.
        saddle_below: starts whose lowest frequency is below this are listed in `saddles`, cm⁻¹; None lists none.
        workers: number of processes, 1 by default; 0 works in this process.
        scheduler: instead, a dask cluster.
        quiet: no progress.

    Returns:
        The samples of all starts.
    """
    samples: dict[int, StructureSamples] = {}
    failures: dict[int, tuple[SamplingFailure, ...]] = {}
    with track(title, len(tasks), quiet=quiet) as advance:
        make_silent = functools.partial(_make_silent_worker, make_worker)
        for outcome in map_tasks(make_silent, spec, tasks, workers=workers, scheduler=scheduler):
            if outcome.value is None:
                failures[outcome.index] = (SamplingFailure(tasks[outcome.index][0].id, outcome.error),)
            else:
                samples[outcome.index] = outcome.value
                failures[outcome.index] = outcome.value.failures
            advance(1)
    order = sorted(samples)
    labels = [part for k in order for part in samples[k].labels]
    structures = tuple(s for k in order for s in samples[k].structures)
    outside = "" if engine is None else describe_outside(structures, as_engine(engine))
    if outside:
        warnings.warn(outside, ExtrapolationWarning, stacklevel=3)
    return SamplingResult(
        structures,
        tuple(f for k in sorted(failures) for f in failures[k]),
        tuple(tasks[k][0].id for k in order if saddle_below is not None and samples[k].lowest_frequency < saddle_below),
        level,
        Properties.concatenate(labels) if labels else Properties(n_atoms=Properties.single(1).n_atoms[:0]),
        sum(samples[k].reused for k in order),
        sum(bool(samples[k].structures) for k in order),
        tuple(run for k in order for run in samples[k].runs),
    )


def _make_silent_worker(
    make_worker: Callable[[Any], Callable[[SamplingTask], StructureSamples]], spec: Any
) -> Callable[[SamplingTask], StructureSamples]:
    """The worker without warnings of structures outside training data: one warning for all samples comes at the end."""
    worker = make_worker(spec)

    def sample(task: SamplingTask) -> StructureSamples:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)
            return worker(task)

    return sample
