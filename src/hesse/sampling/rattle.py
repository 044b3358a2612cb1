"""Rattled geometries: random displacements of all atoms and random strain of cells. No engine is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from pydantic import Field, model_validator

from hesse.datasets import StructuresLike
from hesse.errors import RequestError
from hesse.runtime.settings import Settings, settings_from
from hesse.sampling.runner import StructureSamples, run_sampling
from hesse.sampling.samples import MAX_DRAWS, has_collision, rng_from_name, with_name
from hesse.sampling.sampling_result import SamplingFailure, SamplingResult
from hesse.sampling.starts import KnownLabels, validated_starts
from hesse.sampling.value_list import Sizes
from hesse.structures import Properties, Structure

__all__ = ["RattleSampling", "sample_rattled"]


class RattleSampling(Settings):
    """Settings of rattling.

    Attributes:
        sizes: standard deviations of the displacement of every coordinate, Å.
        count: number of geometries per structure and size.
        strain: standard deviation of each of the six components of a symmetric strain of the cell, which moves the
            atoms too; for crystals that are periodic in three directions.
        min_contact: a sample is drawn again when two atoms are closer than this fraction of the sum of their covalent
            radii.
        seed: seed of all displacements.

    Raises:
        ConfigError: a value out of range.
    """

    sizes: Sizes = (0.05,)
    count: int = Field(20, ge=1)
    strain: float = Field(0.0, ge=0, lt=0.5)
    min_contact: float = Field(0.6, gt=0)
    seed: int = 0

    @model_validator(mode="after")
    def _check_motion(self) -> RattleSampling:
        if self.strain == 0 and 0 in self.sizes:
            raise ValueError("a size of 0 Å moves nothing: give a size, or a strain of the cell")
        return self


def rattle_tag(size: float) -> str:
    """The tag of samples of a size: "rattle-0.05"."""
    return f"rattle-{size:g}"


def sample_rattled(
    structures: StructuresLike, sampling: RattleSampling | None = None, *, quiet: bool = False, **options: Any
) -> SamplingResult:
    """Displace all atoms of structures at random.

    The samples have the ids `{structure}/rattle-0.05/0007` and the tag `rattle-0.05`. A geometry is a function of seed,
    id, size and index alone. Samples whose atoms collide are drawn again; a sample that collides in each of 100 draws
    is a failure.

    Args:
        structures: ASE Atoms, a Structure, a list of them, a Dataset, or the path of a file.
        sampling: settings.
        quiet: no progress.
        **options: the fields of `RattleSampling` in place of `sampling`.

    Returns:
        The samples, and those that failed.

    Raises:
        RequestError: two structures have the same id; strain of a structure that is not periodic in three directions.
    """
    settings = settings_from(RattleSampling, sampling, options)
    starts = validated_starts(structures)
    open_ids = [s.id for s in starts if not all(s.pbc)]
    if settings.strain > 0 and open_ids:
        raise RequestError(
            f'structure "{open_ids[0]}" has no cell in all three directions to strain ({len(open_ids)} of '
            f"{len(starts)} structures): sample them separately, without strain"
        )
    tasks = [(start, KnownLabels()) for start in starts]
    return run_sampling(_make_sampler, settings, tasks, level="", title="rattling", workers=0, quiet=quiet)


def _make_sampler(sampling: RattleSampling) -> Callable[[tuple[Structure, KnownLabels]], StructureSamples]:
    return lambda task: _sample_one(task[0], sampling)


def _sample_one(start: Structure, sampling: RattleSampling) -> StructureSamples:
    structures, failures = [], []
    for size in sampling.sizes:
        tag = rattle_tag(size)
        for index in range(sampling.count):
            name = f"{start.id}/{tag}/{index:04d}"
            displaced = _draw(start, size, sampling, rng_from_name(sampling.seed, name))
            if displaced is None:
                failures.append(SamplingFailure(name, f"atoms collide in each of {MAX_DRAWS} draws"))
            else:
                structures.append(with_name(displaced, start, tag, name))
    return StructureSamples(tuple(structures), tuple(Properties.single(len(s)) for s in structures), tuple(failures))


def _draw(start: Structure, size: float, sampling: RattleSampling, rng: np.random.Generator) -> Structure | None:
    for _ in range(MAX_DRAWS):
        deformation = np.eye(3) + _random_strain(sampling.strain, rng)
        positions = start.positions @ deformation + size * rng.standard_normal(start.positions.shape)
        candidate = Structure(
            start.numbers,
            positions,
            cell=start.cell @ deformation,
            pbc=start.pbc,
            charge=start.charge,
            multiplicity=start.multiplicity,
            masses=start.masses,
        )
        if not has_collision(candidate, sampling.min_contact):
            return candidate
    return None


def _random_strain(size: float, rng: np.random.Generator) -> Float[Array, "3 3"]:
    """A symmetric random matrix: strain without rotation."""
    if size == 0:
        return np.zeros((3, 3))
    components = size * rng.standard_normal((3, 3))
    return np.triu(components) + np.triu(components, 1).T
