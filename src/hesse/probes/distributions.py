"""Directions along which curvature is probed.

All families have `E[v vᵀ] = I` (internal ones: the projector on the internal space), so that `|ΔH v|²/(9N²)` estimates
the mean squared Hessian element error without bias whatever the family. They differ in variance; for
`A = ΔHᵀΔH`: Gaussian `2‖A‖²`, Rademacher `2(‖A‖² − Σ A_ii²)`, one-hot `3N Σ A_jj² − (tr A)²`.
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
from hesse.probes.rigid_body import project_out_rigid_body
from hesse.structures import Batch, segment_offsets

__all__ = ["Gaussian", "OneHot", "Probe", "ProbeSeed", "Rademacher", "RigidBodyFree", "Sphere", "make_probe"]


@dataclass(frozen=True)
class ProbeSeed:
    """Where randomness comes from: the same seed and epoch give the same directions for ever. A new epoch (or step)
    number gives fresh ones."""

    seed: int
    epoch: int = 0


class Probe(ABC):
    """A family of random directions. `per_structure` (K >= 1) directions are drawn for every structure."""

    n_probes: int

    @abstractmethod
    def draw(self, batch: Batch, seed: ProbeSeed) -> Float[Tensor, "probes atoms 3"]:
        """Directions for every structure of the batch, in the type of its positions."""


def _check_n_probes(n_probes: int) -> None:
    if n_probes < 1:
        raise ConfigError(f"a probe draws at least one direction per structure, got {n_probes}")


def _states_and_counters(
    batch: Batch, seed: ProbeSeed, n_probes: int
) -> tuple[Int[Tensor, "probes atoms"], Int[Tensor, "atoms 3"]]:
    """The random state of each atom's structure, and the number of each coordinate within its structure."""
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
    """Independent signs ±1. Never more variance than Gaussian."""

    n_probes: int = 1

    def __post_init__(self) -> None:
        _check_n_probes(self.n_probes)

    def draw(self, batch: Batch, seed: ProbeSeed) -> Float[Tensor, "probes atoms 3"]:
        """Signs for every coordinate."""
        bits = random_bits(*_states_and_counters(batch, seed, self.n_probes))
        return torch.where(bits < 0, -1.0, 1.0).to(batch.positions.dtype)


@final
@dataclass(frozen=True)
class Gaussian(Probe):
    """Independent standard normal numbers."""

    n_probes: int = 1

    def __post_init__(self) -> None:
        _check_n_probes(self.n_probes)

    def draw(self, batch: Batch, seed: ProbeSeed) -> Float[Tensor, "probes atoms 3"]:
        """Normal numbers for every coordinate."""
        states, counters = _states_and_counters(batch, seed, self.n_probes)
        first, second = random_bits(states, 2 * counters), random_bits(states, 2 * counters + 1)
        return to_normal(first, second).to(batch.positions.dtype)


@final
@dataclass(frozen=True)
class Sphere(Probe):
    """Uniform on the sphere of radius √(3N): a unit vector times √(3N), so that `E[v vᵀ] = I` like the others.

    Codes that use unit vectors divide their loss by 3N instead; rescale both v and H v by √(3N) to read their data.
    """

    n_probes: int = 1

    def __post_init__(self) -> None:
        _check_n_probes(self.n_probes)

    def draw(self, batch: Batch, seed: ProbeSeed) -> Float[Tensor, "probes atoms 3"]:
        """Normal numbers, rescaled to length √(3N) over each structure."""
        float64_batch = batch.to(dtype=torch.float64)
        gauss = Gaussian(self.n_probes).draw(float64_batch, seed)
        squares = batch.sum_over_atoms(gauss.square().sum(-1).T)
        scale = (3.0 * batch.n_atoms[:, None] / squares).sqrt()[batch.structure_index]
        return (gauss * scale.T[..., None]).to(batch.positions.dtype)


@final
@dataclass(frozen=True)
class OneHot(Probe):
    """One coordinate, chosen uniformly, times √(3N): a scaled column of the Hessian."""

    n_probes: int = 1

    def __post_init__(self) -> None:
        _check_n_probes(self.n_probes)

    def draw(self, batch: Batch, seed: ProbeSeed) -> Float[Tensor, "probes atoms 3"]:
        """√(3N) at one coordinate of each structure, zero elsewhere."""
        states, counters = _states_and_counters(batch, seed, self.n_probes)
        size = (3 * batch.n_atoms)[batch.structure_index]
        fraction = to_uniform(random_bits(states, torch.zeros_like(batch.structure_index)))
        selected = (fraction * size).to(torch.int64)
        hot = counters[None] == selected[..., None]
        return (hot * size.to(torch.float64).sqrt()[:, None]).to(batch.positions.dtype)


@final
@dataclass(frozen=True)
class RigidBodyFree(Probe):
    """Another family with rigid-body motions projected out (three translations, and three rotations, two of a linear
    molecule, none of a crystal).

    With `E[v vᵀ] = I` before, the projection P has `E[(Pv)(Pv)ᵀ] = P`: the identity on the internal space. The
    estimator of an error that lives there, `ΔH = P ΔH P`, is therefore unbiased as it stands: an orthogonal projector
    needs no rescaling, and none is made. Rigid motions carry no information at a stationary point; away from one the
    rotational block holds only the gradient.
    """

    base: Rademacher | Gaussian

    @property
    def n_probes(self) -> int:  # type: ignore[override]
        """Directions per structure."""
        return self.base.n_probes

    def draw(self, batch: Batch, seed: ProbeSeed) -> Float[Tensor, "probes atoms 3"]:
        """The base family's directions, projected."""
        return project_out_rigid_body(batch, self.base.draw(batch, seed))


_KINDS = {
    "rademacher": Rademacher,
    "gaussian": Gaussian,
    "one-hot": OneHot,
    "sphere": Sphere,
    "rademacher-internal": lambda k: RigidBodyFree(Rademacher(k)),
    "gaussian-internal": lambda k: RigidBodyFree(Gaussian(k)),
}

PROBE_KINDS: tuple[str, ...] = tuple(_KINDS)
"""Names that the command line and configuration files understand."""


def make_probe(kind: str, n_probes: int = 1) -> Probe:
    """The probe family of that name. Raises UnknownOptionError for an unknown one."""
    return _KINDS[check_choice(kind, _KINDS, "probe")](n_probes)  # type: ignore[operator]
