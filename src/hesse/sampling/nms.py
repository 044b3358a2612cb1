"""Normal-mode sampling: geometries around a minimum, as the harmonic well would have them at a temperature.

Each molecule is relaxed, its Hessian taken, and displaced along its normal modes with the classical Boltzmann
distribution (`hesse.harmonic.sample_displacements`). A geometry is a function of (seed, id of the molecule,
temperature, index) alone: asking for more samples, or with other molecules, does not change the ones before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase.data import covalent_radii

from hesse.engines import Differences, Engine, make_engine
from hesse.errors import ConfigError, EngineError, RequestError
from hesse.harmonic import NormalModes, normal_modes, sample_displacements
from hesse.pes import minimise
from hesse.progress import track
from hesse.structures import Request, Structure
from hesse.workers import run_tasks

__all__ = ["NormalModeSampling", "SamplingFailure", "SamplingResult", "sample_normal_modes", "too_close"]

CLOSEST = 0.6
"""Atoms closer than this fraction of the sum of their covalent radii have collided; the sample is drawn again."""

ATTEMPTS = 100
"""How often a sample is drawn before it is given up."""

SADDLE = -50.0
"""cm⁻¹; a relaxed structure with a mode below this is no minimum. Smaller imaginary modes are left by loose
relaxation of soft modes."""


@dataclass(frozen=True)
class NormalModeSampling:
    """What to sample.

    Attributes:
        temperatures: K.
        count: geometries per molecule and temperature.
        seed: of all random displacements.
        relax: relax first, and keep the relaxed structure (tag "relaxed"). Otherwise modes are those of the given
            geometry.
        fmax: eV/Å; relaxation ends below it.
        steps: relaxation gives up after so many.
        floor: cm⁻¹; softer modes are displaced as if they had this frequency.
        imaginary: treatment of imaginary modes, see `hesse.harmonic.sample_displacements`.

    Raises:
        ConfigError: a value out of range.
    """

    temperatures: tuple[float, ...] = (300.0,)
    count: int = 20
    seed: int = 0
    relax: bool = True
    fmax: float = 0.005
    steps: int = 500
    floor: float = 150.0
    imaginary: Literal["floor", "freeze"] = "floor"

    def __post_init__(self) -> None:
        if not self.temperatures or any(not (np.isfinite(t) and t > 0) for t in self.temperatures):
            raise ConfigError(f"temperatures must be positive numbers of K, got {self.temperatures}")
        if len({nms_tag(t) for t in self.temperatures}) < len(self.temperatures):
            raise ConfigError(f"temperatures must differ, got {self.temperatures}")
        if not (np.isfinite(self.fmax) and self.fmax > 0) or self.steps < 1:
            raise ConfigError(f"relaxation needs a positive fmax (eV/Å) and steps, got {self.fmax} and {self.steps}")
        if not (np.isfinite(self.floor) and self.floor > 0):
            raise ConfigError(f"the floor of frequencies must be a positive number of cm⁻¹, got {self.floor}")
        if self.count < 1:
            raise ConfigError(f"expected at least one sample per molecule and temperature, got {self.count}")


@dataclass(frozen=True)
class SamplingFailure:
    """A molecule, or one sample of it, that could not be made, and why."""

    id: str
    reason: str


@dataclass(frozen=True, eq=False)
class SamplingResult:
    """Geometries in order of the molecules, then temperatures, then index.

    Attributes:
        structures: what was made; ids `{molecule}/relaxed`, `{molecule}/nms-300K/0007`, tags `relaxed`, `nms-300K`;
            the group is the molecule's, or its id.
        failures: what was not.
        saddles: ids of molecules whose relaxed structure has an imaginary mode.
        level: level of theory of the relaxation and the Hessian.
    """

    structures: tuple[Structure, ...]
    failures: tuple[SamplingFailure, ...]
    saddles: tuple[str, ...]
    level: str


def nms_tag(temperature: float) -> str:
    """The tag of samples at a temperature: "nms-300K"."""
    return f"nms-{temperature:g}K"


def sample_normal_modes(
    structures: Sequence[Structure],
    engine: str | Engine,
    sampling: NormalModeSampling | None = None,
    *,
    differences: Differences | None = None,
    workers: int = 1,
    quiet: bool = False,
) -> SamplingResult:
    """Sample geometries around each of `structures`.

    Args:
        engine: for relaxation and Hessian; text as for `hesse.engines.make_engine`, or an engine (then with
            `workers=0`, in this process).
        sampling: what to sample.
        differences: how Hessians are taken, when `engine` is text.
        workers: processes of one thread each. A molecule that kills its worker is a failure, nothing more.
        quiet: no progress.

    Raises:
        RequestError: two structures of one id; an engine object together with workers.
    """
    asked = sampling or NormalModeSampling()
    ids = [structure.id for structure in structures]
    if len(set(ids)) < len(ids):
        raise RequestError("two molecules to sample have the same id; ids name structures and must differ")
    if not isinstance(engine, str) and workers:
        raise RequestError("processes make their own engines: give the engine as text, or workers=0")
    level = (make_engine(engine) if isinstance(engine, str) else engine).level
    made: dict[int, _Samples] = {}
    failures: dict[int, tuple[SamplingFailure, ...]] = {}
    with track("sampling", len(structures), quiet=quiet) as advance:
        for outcome in run_tasks(_set_up, (engine, differences, asked), structures, workers=workers):
            if outcome.answer is None:
                failures[outcome.index] = (SamplingFailure(ids[outcome.index], outcome.reason),)
            else:
                made[outcome.index] = outcome.answer
                failures[outcome.index] = outcome.answer.failures
            advance(1)
    order = sorted(made)
    return SamplingResult(
        tuple(s for k in order for s in made[k].structures),
        tuple(f for k in sorted(failures) for f in failures[k]),
        tuple(ids[k] for k in order if asked.relax and made[k].lowest < SADDLE),
        level,
    )


@dataclass(frozen=True, eq=False)
class _Samples:
    structures: tuple[Structure, ...]
    failures: tuple[SamplingFailure, ...]
    lowest: float


def _set_up(spec: tuple[str | Engine, Differences | None, NormalModeSampling]) -> Callable[[Structure], _Samples]:
    chosen, differences, sampling = spec
    engine = make_engine(chosen, differences=differences) if isinstance(chosen, str) else chosen
    return lambda structure: _sample_one(structure, engine, sampling)


def _sample_one(start: Structure, engine: Engine, sampling: NormalModeSampling) -> _Samples:
    centre, made, failures = start, [], []
    if sampling.relax:
        run = minimise(start, engine, fmax=sampling.fmax, steps=sampling.steps)
        if not run.converged:
            raise EngineError(
                f'structure "{start.id}": not relaxed after {run.steps} steps (largest force {run.fmax:.3g} eV/Å, '
                f"asked {sampling.fmax:g})"
            )
        centre = run.structure
        made.append(_named(centre, start, "relaxed", f"{start.id}/relaxed"))
    labels = engine.compute(centre, Request(energy=False, hessian=True))
    modes = normal_modes(centre, labels.hessian_of(0).numpy())
    if len(modes) == 0:
        failures.append(SamplingFailure(start.id, "a lone atom has no normal modes to sample"))
        return _Samples(tuple(made), tuple(failures), 0.0)
    for temperature in sampling.temperatures:
        tag = nms_tag(temperature)
        for index in range(sampling.count):
            name = f"{start.id}/{tag}/{index:04d}"
            drawn = _draw(centre, modes, temperature, sampling, _generator(sampling.seed, name))
            if drawn is None:
                failures.append(SamplingFailure(name, f"atoms collide in each of {ATTEMPTS} draws"))
            else:
                made.append(_named(drawn, start, tag, name))
    return _Samples(tuple(made), tuple(failures), float(modes.frequencies[0]))


def _named(structure: Structure, parent: Structure, tag: str, name: str) -> Structure:
    return Structure(
        structure.numbers,
        structure.positions,
        id=name,
        cell=structure.cell,
        pbc=structure.pbc,
        charge=structure.charge,
        multiplicity=structure.multiplicity,
        tag=tag,
        group=parent.group or parent.id,
    )


def _generator(seed: int, name: str) -> np.random.Generator:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def _draw(
    centre: Structure,
    modes: NormalModes,
    temperature: float,
    sampling: NormalModeSampling,
    rng: np.random.Generator,
) -> Structure | None:
    for _ in range(ATTEMPTS):
        moved = sample_displacements(modes, temperature, rng, floor=sampling.floor, imaginary=sampling.imaginary)
        candidate = centre.moved(centre.positions + moved[0])
        if not too_close(candidate):
            return candidate
    return None


def too_close(structure: Structure, fraction: float = CLOSEST) -> bool:
    """Whether two atoms (images included) are closer than `fraction` of the sum of their covalent radii."""
    radii = covalent_radii[structure.numbers]
    pairs = structure.neighbours(float(2.0 * fraction * radii.max()))
    return bool((pairs.distances < fraction * (radii[pairs.first] + radii[pairs.second])).any())
