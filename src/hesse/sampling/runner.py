"""Common parts of all kinds of sampling: inputs, distribution of the work, names of samples, results."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets import Dataset, StructuresLike, as_dataset, as_structures, check_consistency
from hesse.datasets.ase_atoms import atoms_with_labels
from hesse.engines import Engine, as_engine
from hesse.engines.levels import levels_agree, names_unknown_model
from hesse.errors import EngineError, ExtrapolationWarning, RequestError
from hesse.pes import MinimizationResult, describe_outside, minimize
from hesse.runtime.parallel import map_tasks
from hesse.runtime.progress import track
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Properties, Structure, closest_collision

__all__ = [
    "DynamicsRun",
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
"""Maximal number of attempts to draw a sample without collisions."""


@dataclass(frozen=True)
class SamplingFailure:
    """A molecule or a sample that could not be created.

    Attributes:
        id: its id.
        reason: the reason.
    """

    id: str
    reason: str


@dataclass(frozen=True, eq=False, repr=False)
class SamplingResult(ShortRepr):
    """Sampled geometries, in the order of the molecules they belong to.

    Attributes:
        structures: the samples; their group is that of the molecule, or its id.
        failures: molecules and samples that could not be created.
        saddles: ids of molecules whose relaxed structure has an imaginary mode (normal-mode sampling).
        level: level of theory of the engine; empty where no engine was used.
        labels: energies and forces of the samples where sampling computes them (dynamics, paths).
        n_reused: number of Hessians that were taken from the input.
        n_sampled: number of molecules with at least one sample.
        runs: what each run of molecular dynamics did.
    """

    structures: tuple[Structure, ...]
    failures: tuple[SamplingFailure, ...]
    saddles: tuple[str, ...]
    level: str
    labels: Properties
    n_reused: int = 0
    n_sampled: int = 0
    runs: tuple[DynamicsRun, ...] = ()

    def dataset(self, **attributes: str) -> Dataset:
        """Convert to a data set.

        Args:
            **attributes: metadata of the data set.

        Returns:
            The samples with their labels; the level of theory is in the metadata where there are labels.

        Raises:
            RequestError: there are no samples.
        """
        if not self.structures:
            raise RequestError("nothing was sampled: there are no structures for a data set")
        level_attribute = {"level": self.level} if self.labels.energy is not None else {}
        return Dataset(self.structures, self.labels, metadata={**level_attribute, **attributes})

    def to_ase(self) -> list[Atoms]:
        """Convert to ASE.

        Returns:
            The samples; ids, tags and groups are in `atoms.info`, energies and forces in a calculator.
        """
        return [atoms_with_labels(s, self.labels, i, {}) for i, s in enumerate(self.structures)]


@dataclass(frozen=True)
class DynamicsRun:
    """Record of a run of molecular dynamics.

    Attributes:
        id: id of the run, `{molecule}/md-300K/{run}`.
        time: time reached, fs.
        time_requested: fs.
        temperature: mean over the steps after equilibration (over all, if the run ended before), K.
        temperature_requested: K.
        energy_drift: slope of the total energy, eV/ps. A thermostat exchanges energy with the molecule.
        reason: why it ended early; empty otherwise.
    """

    id: str
    time: float
    time_requested: float
    temperature: float
    temperature_requested: float
    energy_drift: float
    reason: str = ""

    def __str__(self) -> str:
        end = f", ended early: {self.reason}" if self.reason else ""
        return (
            f"{self.id}: {self.time:g} of {self.time_requested:g} fs, mean temperature {self.temperature:.0f} K (set "
            f"{self.temperature_requested:g} K), drift of the total energy {self.energy_drift:+.2g} eV/ps{end}"
        )


@dataclass(frozen=True, eq=False)
class KnownLabels:
    """Labels of a start that the input already has.

    Attributes:
        hessian: eV/Å², `[n, 3, n, 3]`.
        forces: eV/Å, `[n, 3]`.
    """

    hessian: Float[Array, "n 3 n 3"] | None = None
    forces: Float[Array, "n 3"] | None = None


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


SamplingTask = tuple[Structure, KnownLabels]


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


def validated_starts(structures: StructuresLike) -> tuple[Structure, ...]:
    """The structures to start from.

    Args:
        structures: see `hesse.datasets.as_structures`.

    Returns:
        The structures, with different ids.

    Raises:
        RequestError: two structures have the same id, or there are none.
    """
    starts = as_structures(structures)
    ids = [structure.id for structure in starts]
    if len(set(ids)) < len(ids):
        raise RequestError("two molecules to sample have the same id; ids name samples and must differ")
    return starts


def sampling_tasks(structures: StructuresLike, engine: str | Engine | None, *, reuse: bool) -> list[SamplingTask]:
    """The starts with the Hessians that their data set has.

    Args:
        structures: see `hesse.datasets.as_structures`.
        engine: the engine, whose level of theory must be that of the Hessians; None accepts any level.
        reuse: False ignores Hessians in the data set.

    Returns:
        One task per structure.
    """
    source = as_dataset(structures) if isinstance(structures, str | Path) else structures
    starts = validated_starts(source)
    if reuse and isinstance(source, Dataset):
        return list(zip(starts, stored_hessians(source, engine), strict=True))
    return [(start, KnownLabels()) for start in starts]


def stored_hessians(structures: Sequence[Structure] | Dataset, engine: str | Engine | None) -> list[KnownLabels]:
    """Hessians (and forces) in a data set. Suspect labels are not used.

    Args:
        structures: a data set; a list of structures has no labels.
        engine: name of the engine, or the engine; None accepts Hessians of any level of theory.

    Returns:
        The known labels of each structure; none, with a warning, where the data set names a model without a digest.

    Raises:
        RequestError: the Hessians have another level of theory than the engine, or the data set does not name it.
        InconsistentLabelsError: Hessians and forces contradict each other (a wrong sign or unit).
    """
    if not isinstance(structures, Dataset) or structures.labels.hessian is None:
        return [KnownLabels()] * len(structures)
    stored_level = structures.metadata.get("level", "")
    level = stored_level if engine is None else as_engine(engine).level
    if engine is not None and names_unknown_model(stored_level):
        warnings.warn(
            f"the Hessians in {structures.source} are not used: their level {stored_level} does not say which model "
            "computed them (files of earlier versions lack its digest). New ones are computed.",
            UserWarning,
            stacklevel=2,
        )
        return [KnownLabels()] * len(structures)
    if engine is not None and not levels_agree(stored_level, level):
        raise RequestError(
            f"{structures.source} holds Hessians of {stored_level or 'a level of theory it does not name'}, but the "
            f"engine is {level}. Choose that engine, or compute new Hessians (reuse=False; --no-reuse)."
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
    """Relax a structure.

    Args:
        start: the structure.
        engine: the engine.
        fmax: limit of the largest force, eV/Å.
        steps: maximal number of steps.

    Returns:
        The result of the relaxation, which has converged.

    Raises:
        EngineError: the relaxation did not converge.
    """
    run = minimize(start, engine, fmax=fmax, steps=steps)
    if not run.converged:
        raise EngineError(
            f'structure "{start.id}": not relaxed after {run.steps} steps (largest force {run.fmax:.3g} eV/Å, '
            f"limit {fmax:g})"
        )
    return run


def with_name(structure: Structure, parent: Structure, tag: str, name: str) -> Structure:
    """Set id, tag and group of a sample.

    Args:
        structure: the sample.
        parent: the molecule it belongs to.
        tag: tag of the sample.
        name: id of the sample.

    Returns:
        The structure with this id and tag, in the group of the molecule (its id where it has no group).
    """
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
        masses=structure.masses,
    )


def energy_labels(structure: Structure, energy: float, forces: Float[Array, "n 3"] | None = None) -> Properties:
    """Labels of one structure.

    Args:
        structure: the structure.
        energy: eV.
        forces: eV/Å, `[n, 3]`.

    Returns:
        Its energy and forces as labels.
    """
    return Properties.single(len(structure), energy=energy, forces=forces, structure_id=structure.id)


def rng_from_name(seed: int, name: str) -> np.random.Generator:
    """Create a random generator that is a function of a seed and a name.

    Other samples, molecules or processes do not change its numbers.

    Args:
        seed: the seed.
        name: the name, such as the id of a sample.

    Returns:
        The generator.
    """
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def has_collision(structure: Structure, fraction: float = 0.6) -> bool:
    """Test whether two atoms (periodic images included) are too close.

    Args:
        structure: the structure.
        fraction: the smallest allowed distance as a fraction of the sum of covalent radii.

    Returns:
        True if two atoms are closer.
    """
    return closest_collision(structure, fraction) is not None
