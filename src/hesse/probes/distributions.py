"""Distributions of probes: the random directions of Hessian-vector products.

All distributions have `E[v vᵀ] = I` (without rigid-body motions: the projector on the internal space). `|ΔH v|²/(9N²)`
is therefore an unbiased estimate of the mean squared error of Hessian elements. The distributions differ in the
variance of this estimate; for `A = ΔHᵀΔH`: Gaussian `2‖A‖²`, Rademacher `2(‖A‖² − Σ A_ii²)`, one-hot `3N Σ A_jj² − (tr
A)²`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hesse.errors import ConfigError, check_choice
from hesse.probes.counter_rng import probe_states, random_bits, to_normal, to_uniform
from hesse.structures import Batch, segment_offsets
from hesse.structures.rigid_body import rigid_body_modes

__all__ = [
    "Gaussian",
    "OneHot",
    "Probe",
    "ProbeSeed",
    "Rademacher",
    "RigidBodyFree",
    "Sphere",
    "make_probe",
    "project_out_rigid_body",
]

_LINEAR_TOLERANCE = 10**-4.5
"""See `rigid_body_modes`. Only exactly linear molecules: a bent one, however slightly, has curvature along its third
rotation like any other."""


@dataclass(frozen=True)
class ProbeSeed:
    """Seed of probes: equal seeds and epochs give equal directions in all versions of Hesse.

    Attributes:
        seed: seed of the run.
        epoch: number of the epoch or step; another number gives independent directions.
    """

    seed: int
    epoch: int = 0


class Probe(ABC):
    """Base class of all distributions of random directions.

    Attributes:
        n_probes: number of directions per structure, at least 1.
    """

    n_probes: int

    @abstractmethod
    def draw(self, batch: Batch, seed: ProbeSeed) -> Float[Tensor, "probes atoms 3"]:
        """Draw directions for all structures of a batch.

        Args:
            batch: structures.
            seed: seed and epoch.

        Returns:
            Dimensionless directions, `[probes, atoms, 3]`, in the floating-point type and on the device of the
            positions.
        """


def _check_n_probes(n_probes: int) -> None:
    if n_probes < 1:
        raise ConfigError(f"a probe draws at least one direction per structure, got {n_probes}")


def _states_and_counters(
    batch: Batch, seed: ProbeSeed, n_probes: int
) -> tuple[Int[Tensor, "probes atoms"], Int[Tensor, "atoms 3"]]:
    """Random state of the structure of each atom, and the index of each coordinate within its structure."""
    states = probe_states(batch.rng_keys, seed=seed.seed, epoch=seed.epoch, n_probes=n_probes)
    atom = (
        torch.arange(len(batch.structure_index), device=batch.structure_index.device)
        - segment_offsets(batch.n_atoms)[batch.structure_index]
    )
    counters = 3 * atom[:, None] + torch.arange(3, device=atom.device)
    return states[:, batch.structure_index], counters


@final
@dataclass(frozen=True)
class Rademacher(Probe):
    """Independent random signs ±1. The variance never exceeds that of `Gaussian`.

    Args:
        n_probes: number of directions per structure.
    """

    n_probes: int = 1

    def __post_init__(self) -> None:
        _check_n_probes(self.n_probes)

    def draw(self, batch: Batch, seed: ProbeSeed) -> Float[Tensor, "probes atoms 3"]:
        """See `Probe.draw`."""
        bits = random_bits(*_states_and_counters(batch, seed, self.n_probes))
        return torch.where(bits < 0, -1.0, 1.0).to(batch.positions.dtype)


@final
@dataclass(frozen=True)
class Gaussian(Probe):
    """Independent standard normal numbers.

    Args:
        n_probes: number of directions per structure.
    """

    n_probes: int = 1

    def __post_init__(self) -> None:
        _check_n_probes(self.n_probes)

    def draw(self, batch: Batch, seed: ProbeSeed) -> Float[Tensor, "probes atoms 3"]:
        """See `Probe.draw`."""
        states, counters = _states_and_counters(batch, seed, self.n_probes)
        first, second = random_bits(states, 2 * counters), random_bits(states, 2 * counters + 1)
        return to_normal(first, second).to(batch.positions.dtype)


@final
@dataclass(frozen=True)
class Sphere(Probe):
    """Uniform on the sphere of radius √(3N), so that `E[v vᵀ] = I`.

    Data of codes that use unit vectors are converted by multiplying both v and H v by √(3N).

    Args:
        n_probes: number of directions per structure.
    """

    n_probes: int = 1

    def __post_init__(self) -> None:
        _check_n_probes(self.n_probes)

    def draw(self, batch: Batch, seed: ProbeSeed) -> Float[Tensor, "probes atoms 3"]:
        """See `Probe.draw`."""
        float64_batch = batch.to(dtype=torch.float64)
        gauss = Gaussian(self.n_probes).draw(float64_batch, seed)
        squares = batch.sum_over_atoms(gauss.square().sum(-1).T)
        scale = (3.0 * batch.n_atoms[:, None] / squares).sqrt()[batch.structure_index]
        return (gauss * scale.T[..., None]).to(batch.positions.dtype)


@final
@dataclass(frozen=True)
class OneHot(Probe):
    """√(3N) at one random coordinate, zero elsewhere: the products are scaled columns of the Hessian.

    Args:
        n_probes: number of directions per structure.
    """

    n_probes: int = 1

    def __post_init__(self) -> None:
        _check_n_probes(self.n_probes)

    def draw(self, batch: Batch, seed: ProbeSeed) -> Float[Tensor, "probes atoms 3"]:
        """See `Probe.draw`."""
        states, counters = _states_and_counters(batch, seed, self.n_probes)
        size = (3 * batch.n_atoms)[batch.structure_index]
        fraction = to_uniform(random_bits(states, torch.zeros_like(batch.structure_index)))
        selected = (fraction * size).to(torch.int64)
        hot = counters[None] == selected[..., None]
        return (hot * size.to(torch.float64).sqrt()[:, None]).to(batch.positions.dtype)


@final
@dataclass(frozen=True)
class RigidBodyFree(Probe):
    """A distribution from whose directions rigid-body motions are projected out.

    These are three translations, and three rotations (two for linear molecules, none for crystals). With
    `E[v vᵀ] = I` before the projection P, `E[(Pv)(Pv)ᵀ] = P`: the identity on the internal space. The estimate of the
    error of internal Hessian elements, `ΔH = P ΔH P`, is therefore unbiased without rescaling. Rigid-body motions carry
    no information at a stationary point; elsewhere the rotational block contains only the gradient.

    Args:
        base: the distribution before the projection.
    """

    base: Rademacher | Gaussian

    @property
    def n_probes(self) -> int:  # type: ignore[override]
        """Number of directions per structure."""
        return self.base.n_probes

    def draw(self, batch: Batch, seed: ProbeSeed) -> Float[Tensor, "probes atoms 3"]:
        """See `Probe.draw`."""
        return project_out_rigid_body(batch, self.base.draw(batch, seed))


def project_out_rigid_body(
    batch: Batch, directions: Float[Tensor, "probes atoms 3"]
) -> Float[Tensor, "probes atoms 3"]:
    """Orthogonal projection of directions on the internal space of each structure.

    Args:
        batch: structures.
        directions: `[probes, atoms, 3]`.

    Returns:
        Directions without rigid-body motions, of the same shape and type.
    """
    periodic = batch.pbc.any(-1)
    modes = rigid_body_modes(batch.positions, batch.n_atoms, periodic, linear_tolerance=_LINEAR_TOLERANCE)
    return modes.project_out(directions)


_KINDS = {
    "rademacher": Rademacher,
    "gaussian": Gaussian,
    "one-hot": OneHot,
    "sphere": Sphere,
    "rademacher-internal": lambda k: RigidBodyFree(Rademacher(k)),
    "gaussian-internal": lambda k: RigidBodyFree(Gaussian(k)),
}

PROBE_KINDS: tuple[str, ...] = tuple(_KINDS)
"""Names of the distributions on the command line and in configuration files."""


def make_probe(kind: str, n_probes: int = 1) -> Probe:
    """Create a probe from its name.

    Args:
        kind: one of `PROBE_KINDS`.
        n_probes: number of directions per structure.

    Returns:
        The probe.

    Raises:
        UnknownOptionError: unknown name.
    """
    return _KINDS[check_choice(kind, _KINDS, "probe")](n_probes)  # type: ignore[operator]
