"""Geometries from molecular dynamics: those visited at a temperature, including large-amplitude motions.

The seed of a run is a function of seed, id of the molecule, temperature and index of the run: more runs, other
molecules or worker processes do not change existing trajectories.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, model_validator

from hesse.datasets import StructuresLike
from hesse.engines import Engine, EngineLike, as_engine, engine_for_workers
from hesse.pes import MDResult, MDSettings, run_md
from hesse.runtime.settings import Settings, settings_from
from hesse.sampling.runner import StructureSamples, run_sampling
from hesse.sampling.samples import energy_labels, rng_from_name, with_name
from hesse.sampling.sampling_result import DynamicsRun, SamplingFailure, SamplingResult
from hesse.sampling.starts import KnownLabels, relax_or_raise, sampling_tasks
from hesse.sampling.value_list import Temperatures
from hesse.structures import Properties, Structure

__all__ = ["MDSampling", "sample_md"]


class MDSampling(Settings):
    """Settings of sampling by molecular dynamics.

    Attributes:
        temperatures: K.
        count: number of geometries per run.
        stride: steps between geometries; 100 steps of 0.5 fs are longer than a vibration, but shorter than the rotation
            of a group.
        equilibration: steps before the first stride.
        runs: number of independent runs per molecule and temperature.
        time_step: fs.
        ensemble: "langevin" keeps the temperature, "nve" conserves the initial energy.
        friction: fs⁻¹, of Langevin dynamics.
        max_bond_stretch: a run ends when a bond exceeds this multiple of its initial length; None: bonds may break.
        seed: seed of all runs.
        relax: relax first, and keep the relaxed structure (tag "relaxed").
        fmax: limit of the largest force after relaxation, eV/Å.
        steps: maximal number of steps of the relaxation.

    Raises:
        ConfigError: a value out of range.
    """

    temperatures: Temperatures = (300.0,)
    count: int = Field(20, ge=1)
    stride: int = Field(100, ge=1)
    equilibration: int = Field(1000, ge=0)
    runs: int = Field(1, ge=1)
    time_step: float = 0.5
    ensemble: Literal["langevin", "nve"] = "langevin"
    friction: float = 0.01
    max_bond_stretch: float | None = None
    seed: int = 0
    relax: bool = True
    fmax: float = Field(0.005, gt=0)
    steps: int = Field(500, ge=1)

    @model_validator(mode="after")
    def _check_runs(self) -> MDSampling:
        for temperature in self.temperatures:
            self.md_settings(temperature, 0)
        return self

    def md_settings(self, temperature: float, seed: int) -> MDSettings:
        """Settings of one run.

        Args:
            temperature: K.
            seed: seed of the run.

        Returns:
            The settings for `hesse.run_md`.
        """
        first = self.equilibration + self.stride
        return MDSettings(
            temperature=temperature,
            ensemble=self.ensemble,
            time_step=self.time_step,
            steps=self.equilibration + self.stride * self.count,
            friction=self.friction,
            stride=self.stride,
            equilibration=first,
            seed=seed,
            max_bond_stretch=self.max_bond_stretch,
        )


def md_tag(temperature: float) -> str:
    """The tag of samples at a temperature: "md-300K"."""
    return f"md-{temperature:g}K"


def sample_md(
    structures: StructuresLike,
    engine: EngineLike,
    sampling: MDSampling | None = None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    quiet: bool = False,
    **options: Any,
) -> SamplingResult:
    """Sample geometries of molecules by molecular dynamics, with their energies and forces.

    The samples have the ids `{molecule}/md-300K/{run}/{step}` and the tag `md-300K`. A run that ends early keeps its
    samples and is listed as a failure too.

    Args:
        structures: the molecules: ASE Atoms, a Structure, a list of them, a Dataset, or the path of a file.
        engine: a name (`gfn2`), the path of a model, an Engine, a Potential or an ASE calculator. Worker processes need
            a name or a path; objects work in this process.
        sampling: settings.
        workers: number of processes of one thread each, 1 by default; 0 works in this process. A molecule that kills
            its process becomes a failure.
        scheduler: instead, a dask cluster; see `hesse.runtime.parallel.map_tasks`.
        quiet: no progress.
        **options: the fields of `MDSampling` in place of `sampling`.

    Returns:
        The samples, and the molecules and samples that failed.

    Raises:
        RequestError: two structures have the same id; an engine object together with workers.
        HesseError: the input cannot be read, or there is no such engine.
    """
    settings = settings_from(MDSampling, sampling, options)
    engine, workers = engine_for_workers(engine, workers, scheduler)
    return run_sampling(
        _make_sampler,
        (engine, settings),
        sampling_tasks(structures, engine, reuse=False),
        level=as_engine(engine).level,
        title="dynamics",
        engine=engine,
        workers=workers,
        scheduler=scheduler,
        quiet=quiet,
    )


def _make_sampler(spec: tuple[str | Engine, MDSampling]) -> Callable[[tuple[Structure, KnownLabels]], StructureSamples]:
    engine_or_name, sampling = spec
    engine = as_engine(engine_or_name)
    return lambda task: _sample_one(task[0], engine, sampling)


def _sample_one(start: Structure, engine: Engine, sampling: MDSampling) -> StructureSamples:
    structures: list[Structure] = []
    labels: list[Properties] = []
    failures: list[SamplingFailure] = []
    runs: list[DynamicsRun] = []
    center = start
    if sampling.relax:
        run = relax_or_raise(start, engine, sampling.fmax, sampling.steps)
        center = run.structure
        structures.append(with_name(center, start, "relaxed", f"{start.id}/relaxed"))
        labels.append(energy_labels(center, run.energy))
    for temperature in sampling.temperatures:
        for number in range(sampling.runs):
            name = f"{start.id}/{md_tag(temperature)}/{number}"
            seed = int(rng_from_name(sampling.seed, name).integers(2**63))
            result = run_md(center, engine, sampling.md_settings(temperature, seed))
            for s in result.snapshots:
                structures.append(with_name(s.structure, start, md_tag(temperature), f"{name}/{s.step:06d}"))
                labels.append(energy_labels(s.structure, s.energy, s.forces))
            runs.append(_summary(name, result, sampling, temperature))
            if not result.completed:
                failures.append(SamplingFailure(name, f"ended after {result.times[-1]:g} fs: {result.reason}"))
    return StructureSamples(tuple(structures), tuple(labels), tuple(failures), runs=tuple(runs))


def _summary(name: str, result: MDResult, sampling: MDSampling, temperature: float) -> DynamicsRun:
    start = sampling.equilibration if result.steps > sampling.equilibration else 0
    return DynamicsRun(
        name,
        float(result.times[-1]),
        sampling.md_settings(temperature, 0).steps * sampling.time_step,
        float(result.temperatures[start:].mean()),
        temperature,
        result.energy_drift,
        "" if result.completed else result.reason,
    )
