"""What every kind of sampling shares: how work is spread, how samples are named, what comes back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets import Dataset, check_consistency
from hesse.engines import Engine, make_engine
from hesse.errors import EngineError, RequestError
from hesse.pes import MinimizationResult, minimize
from hesse.runtime.parallel import map_tasks
from hesse.runtime.progress import track
from hesse.structures import Properties, Structure, closest_collision

__all__ = [
    "KnownLabels",
    "SamplingFailure",
    "SamplingResult",
    "StructureSamples",
    "energy_labels",
    "has_collision",
    "relax_or_raise",
    "rng_from_name",
    "run_sampling",
    "stored_hessians",
    "validated_starts",
    "with_name",
]

MAX_DRAWS = 100
"""How often a sample is drawn before it is given up."""


@dataclass(frozen=True)
class SamplingFailure:
    """A molecule, or one sample of it, that could not be made, and why."""

    id: str
    reason: str


@dataclass(frozen=True, eq=False)
class SamplingResult:
    """Geometries in order of the molecules they came from.

    Attributes:
        structures: what was made; the group is the molecule's, or its id.
        failures: what was not.
        saddles: ids of molecules whose relaxed structure has an imaginary mode (normal-mode sampling).
        level: level of theory of the engine; empty where none was asked.
        labels: energies and forces that came for free on the way (dynamics, paths); none elsewhere.
        reused: how many Hessians were known before.
        sampled: how many of the molecules gave anything.
    """

    structures: tuple[Structure, ...]
    failures: tuple[SamplingFailure, ...]
    saddles: tuple[str, ...]
    level: str
    labels: Properties
    n_reused: int = 0
    n_sampled: int = 0

    def dataset(self, **attributes: str) -> Dataset:
        """As a data set, for writing. Raises RequestError when nothing was made."""
        if not self.structures:
            raise RequestError("nothing was sampled: there is no data set to make")
        level_attribute = {"level": self.level} if self.labels.energy is not None else {}
        return Dataset(self.structures, self.labels, metadata={**level_attribute, **attributes})


@dataclass(frozen=True, eq=False)
class KnownLabels:
    """What is known of a start before any work: its Hessian (eV/Å²) and forces (eV/Å)."""

    hessian: Float[Array, "n 3 n 3"] | None = None
    forces: Float[Array, "n 3"] | None = None


@dataclass(frozen=True, eq=False)
class StructureSamples:
    """What came of one start. `labels` are those of `structures`; `lowest` is its lowest frequency, cm⁻¹."""

    structures: tuple[Structure, ...]
    labels: tuple[Properties, ...]
    failures: tuple[SamplingFailure, ...] = ()
    lowest_frequency: float = 0.0
    reused: bool = False


SamplingTask = tuple[Structure, KnownLabels]


def run_sampling(
    initializer: Callable[[Any], Callable[[SamplingTask], StructureSamples]],
    spec: Any,
    tasks: Sequence[SamplingTask],
    *,
    level: str,
    title: str,
    saddle_below: float | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    quiet: bool = False,
) -> SamplingResult:
    """Sample every start; one that fails or kills its worker is a failure, nothing more.

    Args:
        set_up, spec, workers, scheduler: as of `hesse.runtime.parallel.map_tasks`.
        saddle_below: cm⁻¹; starts whose lowest frequency is below are named in `saddles`.
    """
    samples: dict[int, StructureSamples] = {}
    failures: dict[int, tuple[SamplingFailure, ...]] = {}
    with track(title, len(tasks), quiet=quiet) as advance:
        for outcome in map_tasks(initializer, spec, tasks, workers=workers, scheduler=scheduler):
            if outcome.value is None:
                failures[outcome.index] = (SamplingFailure(tasks[outcome.index][0].id, outcome.error),)
            else:
                samples[outcome.index] = outcome.value
                failures[outcome.index] = outcome.value.failures
            advance(1)
    order = sorted(samples)
    labels = [part for k in order for part in samples[k].labels]
    return SamplingResult(
        tuple(s for k in order for s in samples[k].structures),
        tuple(f for k in sorted(failures) for f in failures[k]),
        tuple(tasks[k][0].id for k in order if saddle_below is not None and samples[k].lowest_frequency < saddle_below),
        level,
        Properties.concatenate(labels) if labels else Properties(n_atoms=Properties.single(1).n_atoms[:0]),
        sum(samples[k].reused for k in order),
        sum(bool(samples[k].structures) for k in order),
    )


def validated_starts(
    structures: Sequence[Structure] | Dataset, engine: str | Engine, workers: int | None
) -> list[Structure]:
    """The structures to start from. Raises RequestError for ids that stand twice, and for an engine object together
    with processes."""
    starts = list(structures.structures if isinstance(structures, Dataset) else structures)
    ids = [structure.id for structure in starts]
    if len(set(ids)) < len(ids):
        raise RequestError("two molecules to sample have the same id; ids name structures and must differ")
    if not isinstance(engine, str) and workers != 0:
        raise RequestError("processes make their own engines: give the engine as text, or workers=0")
    return starts


def stored_hessians(structures: Sequence[Structure] | Dataset, engine: str | Engine) -> list[KnownLabels]:
    """Hessians (and forces) that a data set holds, one entry per structure. Suspect labels count as unknown.

    Raises:
        RequestError: they are of another level of theory than the engine, or of one that the data set does not name.
        IdentityError: they contradict the forces beside them (a wrong sign or unit).
    """
    if not isinstance(structures, Dataset) or structures.labels.hessian is None:
        return [KnownLabels()] * len(structures)
    level = (make_engine(engine) if isinstance(engine, str) else engine).level
    stored_level = structures.metadata.get("level", "")
    if stored_level.strip().lower() != level.strip().lower():
        raise RequestError(
            f"{structures.source} holds Hessians of {stored_level or 'a level of theory it does not name'}, but the engine is "
            f"{level}. Choose that engine, or ask for new Hessians (reuse=False; --no-reuse)."
        )
    check_consistency(structures)
    labels = structures.labels
    usable = labels.mask("hessian") & ~labels.suspect_mask()
    forces = labels.mask("forces")
    return [
        KnownLabels(
            labels.hessian_of(i).numpy(),
            labels.forces[labels.atom_slice(i)].numpy() if labels.forces is not None and bool(forces[i]) else None,
        )
        if bool(usable[i])
        else KnownLabels()
        for i in range(len(structures.structures))
    ]


def relax_or_raise(start: Structure, engine: Engine, fmax: float, steps: int) -> MinimizationResult:
    """The minimum below `start`. Raises EngineError when it is not reached."""
    run = minimize(start, engine, fmax=fmax, steps=steps)
    if not run.converged:
        raise EngineError(
            f'structure "{start.id}": not relaxed after {run.steps} steps (largest force {run.fmax:.3g} eV/Å, '
            f"asked {fmax:g})"
        )
    return run


def with_name(structure: Structure, parent: Structure, tag: str, name: str) -> Structure:
    """`structure` with a name and a tag, in the group of the molecule it came from."""
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


def energy_labels(structure: Structure, energy: float, forces: Float[Array, "n 3"] | None = None) -> Properties:
    """Energy (eV) and forces (eV/Å) as labels of one structure."""
    return Properties.single(len(structure), energy=energy, forces=forces, structure_id=structure.id)


def rng_from_name(seed: int, name: str) -> np.random.Generator:
    """Random numbers that belong to a name for ever: other samples, molecules or processes do not change them."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def has_collision(structure: Structure, fraction: float = 0.6) -> bool:
    """Whether two atoms (images included) are closer than `fraction` of the sum of their covalent radii."""
    return closest_collision(structure, fraction) is not None
