"""What every kind of sampling shares: how work is spread, how samples are named, what comes back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets import Dataset, require_consistency
from hesse.engines import Engine, make_engine
from hesse.errors import EngineError, RequestError
from hesse.pes import MinimisationResult, minimise
from hesse.progress import track
from hesse.structures import Labels, Structure, closest_contact
from hesse.workers import run_tasks

__all__ = [
    "Known",
    "Samples",
    "SamplingFailure",
    "SamplingResult",
    "generator_for",
    "known_hessians",
    "labels_at",
    "named",
    "relaxed",
    "run_sampling",
    "starts_of",
    "too_close",
]

ATTEMPTS = 100
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
    labels: Labels
    reused: int = 0
    sampled: int = 0

    def dataset(self, **attributes: str) -> Dataset:
        """As a data set, for writing. Raises RequestError when nothing was made."""
        if not self.structures:
            raise RequestError("nothing was sampled: there is no data set to make")
        held = {"level": self.level} if self.labels.energy is not None else {}
        return Dataset(self.structures, self.labels, attributes={**held, **attributes})


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a start before any work: its Hessian (eV/Å²) and forces (eV/Å)."""

    hessian: Float[Array, "n 3 n 3"] | None = None
    forces: Float[Array, "n 3"] | None = None


@dataclass(frozen=True, eq=False)
class Samples:
    """What came of one start. `labels` are those of `structures`; `lowest` is its lowest frequency, cm⁻¹."""

    structures: tuple[Structure, ...]
    labels: tuple[Labels, ...]
    failures: tuple[SamplingFailure, ...] = ()
    lowest: float = 0.0
    reused: bool = False


Task = tuple[Structure, Known]


def run_sampling(
    set_up: Callable[[Any], Callable[[Task], Samples]],
    spec: Any,
    tasks: Sequence[Task],
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
        set_up, spec, workers, scheduler: as of `hesse.workers.run_tasks`.
        saddle_below: cm⁻¹; starts whose lowest frequency is below are named in `saddles`.
    """
    made: dict[int, Samples] = {}
    failures: dict[int, tuple[SamplingFailure, ...]] = {}
    with track(title, len(tasks), quiet=quiet) as advance:
        for outcome in run_tasks(set_up, spec, tasks, workers=workers, scheduler=scheduler):
            if outcome.answer is None:
                failures[outcome.index] = (SamplingFailure(tasks[outcome.index][0].id, outcome.reason),)
            else:
                made[outcome.index] = outcome.answer
                failures[outcome.index] = outcome.answer.failures
            advance(1)
    order = sorted(made)
    labels = [part for k in order for part in made[k].labels]
    return SamplingResult(
        tuple(s for k in order for s in made[k].structures),
        tuple(f for k in sorted(failures) for f in failures[k]),
        tuple(tasks[k][0].id for k in order if saddle_below is not None and made[k].lowest < saddle_below),
        level,
        Labels.concatenate(labels) if labels else Labels(n_atoms=Labels.of(1).n_atoms[:0]),
        sum(made[k].reused for k in order),
        sum(bool(made[k].structures) for k in order),
    )


def starts_of(structures: Sequence[Structure] | Dataset, engine: str | Engine, workers: int | None) -> list[Structure]:
    """The structures to start from. Raises RequestError for ids that stand twice, and for an engine object together
    with processes."""
    starts = list(structures.structures if isinstance(structures, Dataset) else structures)
    ids = [structure.id for structure in starts]
    if len(set(ids)) < len(ids):
        raise RequestError("two molecules to sample have the same id; ids name structures and must differ")
    if not isinstance(engine, str) and workers != 0:
        raise RequestError("processes make their own engines: give the engine as text, or workers=0")
    return starts


def known_hessians(structures: Sequence[Structure] | Dataset, engine: str | Engine) -> list[Known]:
    """Hessians (and forces) that a data set holds, one entry per structure. Suspect labels count as unknown.

    Raises:
        RequestError: they are of another level of theory than the engine, or of one that the data set does not name.
        IdentityError: they contradict the forces beside them (a wrong sign or unit).
    """
    if not isinstance(structures, Dataset) or structures.labels.hessian is None:
        return [Known()] * len(structures)
    level = (make_engine(engine) if isinstance(engine, str) else engine).level
    held = structures.attributes.get("level", "")
    if held.strip().lower() != level.strip().lower():
        raise RequestError(
            f"{structures.source} holds Hessians of {held or 'a level of theory it does not name'}, but the engine is "
            f"{level}. Choose that engine, or ask for new Hessians (reuse=False; --no-reuse)."
        )
    require_consistency(structures)
    labels = structures.labels
    usable = labels.mask("hessian") & ~labels.suspects()
    forces = labels.mask("forces")
    return [
        Known(
            labels.hessian_of(i).numpy(),
            labels.forces[labels.atoms_of(i)].numpy() if labels.forces is not None and bool(forces[i]) else None,
        )
        if bool(usable[i])
        else Known()
        for i in range(len(structures.structures))
    ]


def relaxed(start: Structure, engine: Engine, fmax: float, steps: int) -> MinimisationResult:
    """The minimum below `start`. Raises EngineError when it is not reached."""
    run = minimise(start, engine, fmax=fmax, steps=steps)
    if not run.converged:
        raise EngineError(
            f'structure "{start.id}": not relaxed after {run.steps} steps (largest force {run.fmax:.3g} eV/Å, '
            f"asked {fmax:g})"
        )
    return run


def named(structure: Structure, parent: Structure, tag: str, name: str) -> Structure:
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


def labels_at(structure: Structure, energy: float, forces: Float[Array, "n 3"] | None = None) -> Labels:
    """Energy (eV) and forces (eV/Å) as labels of one structure."""
    return Labels.of(len(structure), energy=energy, forces=forces, structure_id=structure.id)


def generator_for(seed: int, name: str) -> np.random.Generator:
    """Random numbers that belong to a name for ever: other samples, molecules or processes do not change them."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def too_close(structure: Structure, fraction: float = 0.6) -> bool:
    """Whether two atoms (images included) are closer than `fraction` of the sum of their covalent radii."""
    return closest_contact(structure, fraction) is not None
