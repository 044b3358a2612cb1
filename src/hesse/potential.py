"""What every potential is: a PyTorch module that turns a batch into atomic energies. It never sees a derivative."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from hesse.structures import Batch

__all__ = ["Potential"]


class Potential(nn.Module, ABC):
    """A differentiable energy.

    Attributes:
        cutoff: Å; the neighbour matrix of a batch must hold all pairs below it.
        elements: atomic numbers the potential knows; empty for any.
    """

    cutoff: float
    elements: tuple[int, ...] = ()

    @abstractmethod
    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """Atomic energies, eV; differentiable in `batch.positions` (and `batch.cell`)."""

    def energies_and_penalty(self, batch: Batch) -> tuple[Float[Tensor, "atoms"], Float[Tensor, "structures"] | None]:
        """Atomic energies and, where the potential has one, its own regulariser per structure (for training)."""
        return self(batch), None
