"""Geometries from molecular dynamics: what the surface itself visits at a temperature, floppy motions included.

Every run belongs to its name: its seed is drawn from (seed, id of the molecule, temperature, run), so that more runs,
other molecules or worker processes do not change the ones before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hesse.datasets import Dataset
from hesse.engines import Engine, make_engine
from hesse.errors import ConfigError
from hesse.pes import MDSettings, run_md
from hesse.sampling.runner import (
    KnownLabels,
    SamplingFailure,
    SamplingResult,
    StructureSamples,
    energy_labels,
    relax_or_raise,
    rng_from_name,
    run_sampling,
    validated_starts,
    with_name,
)
from hesse.structures import Properties, Structure

__all__ = ["MDSampling", "sample_md"]


@dataclass(frozen=True)
class MDSampling:
    """What to sample.

    Attributes:
        temperatures: K.
        count: geometries per run.
        stride: steps from one geometry to the next; 100 steps of 0.5 fs outlast a vibration, not a rotation of a group.
        equilibration: steps before the first stride.
        runs: independent runs per molecule and temperature.
        time_step: fs.
        ensemble: "langevin" holds the temperature, "nve" conserves the energy drawn at the start.
        friction: fs⁻¹, of Langevin.
        stretch: a run ends when a bond is longer than this multiple of its length at the start; None: bonds may break.
        seed: of all runs.
        relax: relax first, and keep the relaxed structure (tag "relaxed").
        fmax: eV/Å; relaxation ends below it.
        steps: relaxation gives up after so many.

    Raises:
        ConfigError: a value out of range.
    """

    temperatures: tuple[float, ...] = (300.0,)
    count: int = 20
    stride: int = 100
    equilibration: int = 1000
    runs: int = 1
    time_step: float = 0.5
    ensemble: Literal["langevin", "nve"] = "langevin"
    friction: float = 0.01
    max_bond_stretch: float | None = None
    seed: int = 0
    relax: bool = True
    fmax: float = 0.005
    steps: int = 500

    def __post_init__(self) -> None:
        if not self.temperatures or any(not (np.isfinite(t) and t > 0) for t in self.temperatures):
            raise ConfigError(f"temperatures must be positive numbers of K, got {self.temperatures}")
        if len({md_tag(t) for t in self.temperatures}) < len(self.temperatures):
            raise ConfigError(f"temperatures must differ, got {self.temperatures}")
        if self.count < 1 or self.runs < 1 or self.stride < 1 or self.equilibration < 0:
            raise ConfigError(
                f"expected at least one geometry, run and step of stride, and no negative equilibration, got "
                f"{self.count}, {self.runs}, {self.stride} and {self.equilibration}"
            )
        if not (np.isfinite(self.fmax) and self.fmax > 0) or self.steps < 1:
            raise ConfigError(f"relaxation needs a positive fmax (eV/Å) and steps, got {self.fmax} and {self.steps}")
        self.md_settings(self.temperatures[0], 0)

    def md_settings(self, temperature: float, seed: int) -> MDSettings:
        """The settings of one run."""
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
    structures: Sequence[Structure] | Dataset,
    engine: str | Engine,
    sampling: MDSampling | None = None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    quiet: bool = False,
) -> SamplingResult:
    """Run each of `structures` and keep geometries on the way: ids `{molecule}/md-300K/{run}/{step}`, tags `md-300K`,
    with the energies and forces that moved them. A run that ends early keeps what it has and is a failure as well.

    Arguments and errors are those of `hesse.sampling.sample_normal_modes`.
    """
    settings = sampling or MDSampling()
    starts = validated_starts(structures, engine, workers)
    return run_sampling(
        _make_sampler,
        (engine, settings),
        [(start, KnownLabels()) for start in starts],
        level=(make_engine(engine) if isinstance(engine, str) else engine).level,
        title="dynamics",
        workers=workers,
        scheduler=scheduler,
        quiet=quiet,
    )


def _make_sampler(spec: tuple[str | Engine, MDSampling]) -> Callable[[tuple[Structure, KnownLabels]], StructureSamples]:
    engine_or_name, sampling = spec
    engine = make_engine(engine_or_name) if isinstance(engine_or_name, str) else engine_or_name
    return lambda task: _sample_one(task[0], engine, sampling)


def _sample_one(start: Structure, engine: Engine, sampling: MDSampling) -> StructureSamples:
    structures: list[Structure] = []
    labels: list[Properties] = []
    failures: list[SamplingFailure] = []
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
            if not result.completed:
                failures.append(SamplingFailure(name, f"ended after {result.times[-1]:g} fs: {result.reason}"))
    return StructureSamples(tuple(structures), tuple(labels), tuple(failures))
