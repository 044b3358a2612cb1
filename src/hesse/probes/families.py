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

from hesse.errors import ConfigError, require_choice
from hesse.probes.random_bits import coordinate_bits, normal, stream_states, uniform
from hesse.probes.rigid import without_rigid_motions
from hesse.structures import Batch, offsets_of

__all__ = ["AbstractProbe", "Gaussian", "Internal", "OneHot", "ProbeStream", "Rademacher", "Sphere", "make_probe"]


@dataclass(frozen=True)
class ProbeStream:
    """Where randomness comes from: the same seed and epoch give the same directions for ever. A new epoch (or step)
    number gives fresh ones."""

    seed: int
    epoch: int = 0


class AbstractProbe(ABC):
    """A family of random directions. `per_structure` (K >= 1) directions are drawn for every structure."""

    per_structure: int

    @abstractmethod
    def draw(self, batch: Batch, stream: ProbeStream) -> Float[Tensor, "probes atoms 3"]:
        """Directions for every structure of the batch, in the type of its positions."""


def _checked_count(per_structure: int) -> None:
    if per_structure < 1:
        raise ConfigError(f"a probe draws at least one direction per structure, got {per_structure}")


def _states_and_counters(
    batch: Batch, stream: ProbeStream, per_structure: int
) -> tuple[Int[Tensor, "probes atoms"], Int[Tensor, "atoms 3"]]:
    """The random state of each atom's structure, and the number of each coordinate within its structure."""
    states = stream_states(batch.keys, seed=stream.seed, epoch=stream.epoch, n_probes=per_structure)
    atom = torch.arange(len(batch.owner), device=batch.owner.device) - offsets_of(batch.n_atoms)[batch.owner]
    counters = 3 * atom[:, None] + torch.arange(3, device=atom.device)
    return states[:, batch.owner], counters


@final
@dataclass(frozen=True)
class Rademacher(AbstractProbe):
    """Independent signs ±1. Never more variance than Gaussian."""

    per_structure: int = 1

    def __post_init__(self) -> None:
        _checked_count(self.per_structure)

    def draw(self, batch: Batch, stream: ProbeStream) -> Float[Tensor, "probes atoms 3"]:
        """Signs for every coordinate."""
        bits = coordinate_bits(*_states_and_counters(batch, stream, self.per_structure))
        return torch.where(bits < 0, -1.0, 1.0).to(batch.positions.dtype)


@final
@dataclass(frozen=True)
class Gaussian(AbstractProbe):
    """Independent standard normal numbers."""

    per_structure: int = 1

    def __post_init__(self) -> None:
        _checked_count(self.per_structure)

    def draw(self, batch: Batch, stream: ProbeStream) -> Float[Tensor, "probes atoms 3"]:
        """Normal numbers for every coordinate."""
        states, counters = _states_and_counters(batch, stream, self.per_structure)
        first, second = coordinate_bits(states, 2 * counters), coordinate_bits(states, 2 * counters + 1)
        return normal(first, second).to(batch.positions.dtype)


@final
@dataclass(frozen=True)
class Sphere(AbstractProbe):
    """Uniform on the sphere of radius √(3N): a unit vector times √(3N), so that `E[v vᵀ] = I` like the others.

    Codes that use unit vectors divide their loss by 3N instead; rescale both v and H v by √(3N) to read their data.
    """

    per_structure: int = 1

    def __post_init__(self) -> None:
        _checked_count(self.per_structure)

    def draw(self, batch: Batch, stream: ProbeStream) -> Float[Tensor, "probes atoms 3"]:
        """Normal numbers, rescaled to length √(3N) over each structure."""
        wide = batch.to(dtype=torch.float64)
        gauss = Gaussian(self.per_structure).draw(wide, stream)
        squares = batch.sum_by_structure(gauss.square().sum(-1).T)
        scale = (3.0 * batch.n_atoms[:, None] / squares).sqrt()[batch.owner]
        return (gauss * scale.T[..., None]).to(batch.positions.dtype)


@final
@dataclass(frozen=True)
class OneHot(AbstractProbe):
    """One coordinate, chosen uniformly, times √(3N): a scaled column of the Hessian."""

    per_structure: int = 1

    def __post_init__(self) -> None:
        _checked_count(self.per_structure)

    def draw(self, batch: Batch, stream: ProbeStream) -> Float[Tensor, "probes atoms 3"]:
        """√(3N) at one coordinate of each structure, zero elsewhere."""
        states, counters = _states_and_counters(batch, stream, self.per_structure)
        size = (3 * batch.n_atoms)[batch.owner]
        draw = uniform(coordinate_bits(states, torch.zeros_like(batch.owner)))
        chosen = (draw * size).to(torch.int64)
        hot = counters[None] == chosen[..., None]
        return (hot * size.to(torch.float64).sqrt()[:, None]).to(batch.positions.dtype)


@final
@dataclass(frozen=True)
class Internal(AbstractProbe):
    """Another family with rigid-body motions projected out (three translations, and three rotations, two of a linear
    molecule, none of a crystal).

    With `E[v vᵀ] = I` before, the projection P has `E[(Pv)(Pv)ᵀ] = P`: the identity on the internal space. The
    estimator of an error that lives there, `ΔH = P ΔH P`, is therefore unbiased as it stands: an orthogonal projector
    needs no rescaling, and none is made. Rigid motions carry no information at a stationary point; away from one the
    rotational block holds only the gradient.
    """

    base: Rademacher | Gaussian

    @property
    def per_structure(self) -> int:  # type: ignore[override]
        """Directions per structure."""
        return self.base.per_structure

    def draw(self, batch: Batch, stream: ProbeStream) -> Float[Tensor, "probes atoms 3"]:
        """The base family's directions, projected."""
        return without_rigid_motions(batch, self.base.draw(batch, stream))


_KINDS = {
    "rademacher": Rademacher,
    "gaussian": Gaussian,
    "one-hot": OneHot,
    "sphere": Sphere,
    "rademacher-internal": lambda k: Internal(Rademacher(k)),
    "gaussian-internal": lambda k: Internal(Gaussian(k)),
}

PROBE_KINDS: tuple[str, ...] = tuple(_KINDS)
"""Names that the command line and configuration files understand."""


def make_probe(kind: str, per_structure: int = 1) -> AbstractProbe:
    """The probe family of that name. Raises UnknownOptionError for an unknown one."""
    return _KINDS[require_choice(kind, _KINDS, "probe")](per_structure)  # type: ignore[operator]
