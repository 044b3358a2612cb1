"""Normal-mode sampling: geometries around a minimum with the distribution of the harmonic well at a temperature.

Each molecule is relaxed, its Hessian is computed (or taken from the input), and its atoms are displaced along the
normal modes with the classical or quantum distribution (`hesse.harmonic.normal_modes.thermal_displacements`). A
geometry is a function of seed, id of the molecule, temperature and index alone: more samples or other molecules do not
change existing ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from pydantic import Field, model_validator

from hesse.datasets import StructuresLike
from hesse.engines import Engine, EngineLike, FiniteDifferences, as_engine, engine_for_workers
from hesse.errors import MissingLabelError, RequestError
from hesse.harmonic.normal_modes import NormalModes, normal_modes, thermal_displacements
from hesse.runtime.settings import Settings, settings_from
from hesse.sampling.runner import StructureSamples, run_sampling
from hesse.sampling.samples import MAX_DRAWS, has_collision, rng_from_name, with_name
from hesse.sampling.sampling_result import SamplingFailure, SamplingResult
from hesse.sampling.starts import KnownLabels, relax_or_raise, sampling_tasks
from hesse.sampling.value_list import TemperaturesFromZero
from hesse.structures import Properties, Request, Structure

__all__ = ["NormalModeSampling", "sample_normal_modes"]

IMAGINARY_LIMIT = -50.0
"""cm⁻¹; a relaxed structure with a mode below this is a saddle point. Smaller imaginary frequencies are left by
incomplete relaxation of soft modes."""

STORED = "stored"
"""The engine that computes nothing: the Hessians of the input are used."""

MAX_STATIONARY_FORCE = 0.02
"""eV/Å; a structure with larger forces is a point of a path whose direction is that of the gradient."""


class NormalModeSampling(Settings):
    """Settings of normal-mode sampling.

    Attributes:
        temperatures: K; 0 K with quantum statistics: zero-point motion alone.
        count: number of geometries per molecule and temperature.
        seed: seed of all random displacements.
        relax: relax first, and keep the relaxed structure (tag "relaxed"). Otherwise modes are those of the input
            geometry.
        fmax: limit of the largest force after relaxation, eV/Å.
        steps: maximal number of steps of the relaxation.
        min_frequency: softer modes are displaced as if they had this frequency, cm⁻¹.
        imaginary: treatment of imaginary modes, see `hesse.harmonic.normal_modes.thermal_displacements`.
        project_out_path: exclude the motion along the reaction path, so that samples lie around the path instead of
            further along it. The excluded direction is that of the gradient or, at a stationary point (forces below
            0.02 eV/Å), the lowest mode if it is imaginary. Only without relaxation (`relax=False`).
        statistics: "classical", or "quantum" with zero-point motion: stiff modes move as far as in a quantum
            calculation, which at 300 K is twice the classical displacement at 2000 cm⁻¹ and three times at 3700 cm⁻¹.

    Raises:
        ConfigError: a value out of range, or options that contradict each other.
        UnknownOptionError: an unknown treatment of imaginary modes.
    """

    temperatures: TemperaturesFromZero = (300.0,)
    count: int = Field(20, ge=1)
    seed: int = 0
    relax: bool = True
    fmax: float = Field(0.005, gt=0)
    steps: int = Field(500, ge=1)
    min_frequency: float = Field(150.0, gt=0)
    imaginary: Literal["floor", "freeze"] = "floor"
    project_out_path: bool = False
    statistics: Literal["classical", "quantum"] = "classical"

    @model_validator(mode="after")
    def _check_path(self) -> NormalModeSampling:
        if self.statistics == "classical" and min(self.temperatures) == 0:
            raise ValueError("temperatures: at 0 K nothing moves without quantum statistics (--statistics quantum)")
        if self.project_out_path and self.relax:
            raise ValueError(
                "relaxation leaves the reaction path: exclude the reaction only without it (relax=False; --no-relax)"
            )
        return self


def nms_tag(temperature: float) -> str:
    """The tag of samples at a temperature: "nms-300K"."""
    return f"nms-{temperature:g}K"


def sample_normal_modes(
    structures: StructuresLike,
    engine: EngineLike,
    sampling: NormalModeSampling | None = None,
    *,
    differences: FiniteDifferences | None = None,
    reuse: bool = True,
    workers: int | None = None,
    scheduler: str | None = None,
    quiet: bool = False,
    **options: Any,
) -> SamplingResult:
    """Sample geometries around molecules along their normal modes.

    The samples have the ids `{molecule}/relaxed` and `{molecule}/nms-300K/0007`, and the tags `relaxed` and `nms-300K`.

    Args:
        structures: the molecules: ASE Atoms, a Structure, a list of them, a Dataset, or the path of a file.
        engine: a name (`gfn2`), the path of a model, an Engine, a Potential or an ASE calculator. Worker processes need
            a name or a path; objects work in this process. "stored": no engine; the modes are those of the Hessians in
            the input, whatever their level of theory, and nothing is relaxed.
        sampling: settings.
        differences: how Hessians are taken from forces.
        reuse: use Hessians of the data set, if they have the level of theory of the engine and relaxation does not move
            the atoms; False computes all Hessians.
        workers: number of processes of one thread each, 1 by default; 0 works in this process. A molecule that kills
            its process becomes a failure.
        scheduler: instead, a dask cluster; see `hesse.runtime.parallel.map_tasks`.
        quiet: no progress.
        **options: the fields of `NormalModeSampling` in place of `sampling`.

    Returns:
        The samples, and the molecules and samples that failed.

    Raises:
        RequestError: two structures have the same id; an engine object together with workers;
            Hessians of another level of theory.
        HesseError: the input cannot be read, or there is no such engine.
    """
    settings = settings_from(NormalModeSampling, sampling, options)
    if isinstance(engine, str) and engine == STORED:
        if not reuse:
            raise RequestError(f'engine "{STORED}" uses the Hessians of the input: leave out reuse=False (--no-reuse)')
        return run_sampling(
            _make_sampler,
            (None, None, settings.model_copy(update={"relax": False})),
            sampling_tasks(structures, None, reuse=True),
            level="",
            title="sampling",
            workers=0,
            quiet=quiet,
        )
    engine, workers = engine_for_workers(engine, workers, scheduler, differences)
    return run_sampling(
        _make_sampler,
        (engine, differences, settings),
        sampling_tasks(structures, engine, reuse=reuse),
        level=as_engine(engine).level,
        title="sampling",
        engine=engine,
        saddle_below=IMAGINARY_LIMIT if settings.relax else None,
        workers=workers,
        scheduler=scheduler,
        quiet=quiet,
    )


def _make_sampler(
    spec: tuple[str | Engine | None, FiniteDifferences | None, NormalModeSampling],
) -> Callable[[tuple[Structure, KnownLabels]], StructureSamples]:
    engine_or_name, differences, sampling = spec
    engine = None if engine_or_name is None else as_engine(engine_or_name, differences=differences)
    return lambda task: _sample_one(*task, engine, sampling)


def _sample_one(
    start: Structure, known: KnownLabels, engine: Engine | None, sampling: NormalModeSampling
) -> StructureSamples:
    center, structures, failures = start, [], []
    if sampling.relax and engine is not None:
        run = relax_or_raise(start, engine, sampling.fmax, sampling.steps)
        center = run.structure
        structures.append(with_name(center, start, "relaxed", f"{start.id}/relaxed"))
        known = known if run.steps == 0 else KnownLabels()
    modes = _modes(center, known, engine, sampling.project_out_path)
    if len(modes) == 0:
        failures.append(
            SamplingFailure(start.id, "no normal modes to sample (a single atom, or only the reaction mode)")
        )
    for temperature in sampling.temperatures if len(modes) else ():
        tag = nms_tag(temperature)
        for index in range(sampling.count):
            name = f"{start.id}/{tag}/{index:04d}"
            displaced = _draw(center, modes, temperature, sampling, rng_from_name(sampling.seed, name))
            if displaced is None:
                failures.append(SamplingFailure(name, f"atoms collide in each of {MAX_DRAWS} draws"))
            else:
                structures.append(with_name(displaced, start, tag, name))
    lowest = float(modes.frequencies[0]) if len(modes) else 0.0
    labels = tuple(Properties.single(len(s)) for s in structures)
    return StructureSamples(tuple(structures), labels, tuple(failures), lowest, known.hessian is not None)


def _modes(center: Structure, known: KnownLabels, engine: Engine | None, project_out_path: bool) -> NormalModes:
    """Normal modes from known labels and those that the engine must compute."""
    hessian, forces = known.hessian, known.forces
    if engine is None and (hessian is None or (forces is None and project_out_path)):
        what = "no Hessian that can be used" if hessian is None else "no forces, which give the direction of the path"
        raise MissingLabelError(f'structure "{center.id}" has {what}; choose an engine to compute it')
    if engine is not None and (hessian is None or (forces is None and project_out_path)):
        request = Request(energy=False, forces=project_out_path, hessian=hessian is None)
        properties = engine.compute(center, request)
        hessian = properties.hessian_of(0).numpy() if hessian is None else hessian
        forces = None if properties.forces is None else properties.forces.numpy()
    assert hessian is not None
    if not project_out_path or forces is None:
        return normal_modes(center, hessian)
    return _modes_orthogonal_to_path(center, hessian, forces)


def _modes_orthogonal_to_path(
    center: Structure, hessian: Float[Array, "n 3 n 3"], forces: Float[Array, "n 3"]
) -> NormalModes:
    if np.linalg.norm(forces, axis=1).max() > MAX_STATIONARY_FORCE:
        return normal_modes(center, hessian, gradient=-forces)
    modes = normal_modes(center, hessian)
    if modes.n_imaginary:  # the lowest comes first
        return replace(modes, frequencies=modes.frequencies[1:], vectors=modes.vectors[1:])
    return modes


def _draw(
    center: Structure,
    modes: NormalModes,
    temperature: float,
    sampling: NormalModeSampling,
    rng: np.random.Generator,
) -> Structure | None:
    for _ in range(MAX_DRAWS):
        displacements = thermal_displacements(
            modes,
            temperature,
            rng,
            min_frequency=sampling.min_frequency,
            imaginary=sampling.imaginary,
            statistics=sampling.statistics,
        )
        candidate = center.with_positions(center.positions + displacements[0])
        if not has_collision(candidate):
            return candidate
    return None
