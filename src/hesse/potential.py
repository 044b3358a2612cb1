"""What every potential is: a PyTorch module that turns a batch into atomic energies. It never sees a derivative."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hesse.errors import RequestError
from hesse.structures import Batch

__all__ = ["Potential", "dtype_and_device", "evaluation_mode"]


class Potential(nn.Module, ABC):
    """A differentiable energy.

    Attributes:
        cutoff: Å; the neighbor matrix of a batch must hold all pairs below it (it may hold others, which the
            potential leaves alone).
        elements: atomic numbers the potential knows; empty for any.
        splits_energy: whether the energy of one atom means something; False where only the sum over a structure does.
        batched_gradients: whether its gradient can be differentiated along several directions in one vectorized pass;
            False where operations inside cannot be vectorized: derivatives are then taken one direction at a time.
    """

    cutoff: float
    elements: tuple[int, ...] = ()
    has_atomic_energies: bool = True
    supports_vmap: bool = True

    @abstractmethod
    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """Atomic energies, eV; differentiable in `batch.positions` (and `batch.cell`)."""

    def precompute(self, batch: Batch) -> Batch:
        """The same batch, with `tables` where the potential needs any: which atoms, pairs or triples belong together.
        No derivative passes through them, and finding them is not compiled. `forward` finds what it is not given."""
        return batch

    def forward_with_regularizer(
        self, batch: Batch
    ) -> tuple[Float[Tensor, "atoms"], Float[Tensor, "structures"] | None]:
        """Atomic energies and, where the potential has one, its own regularizer per structure (for training)."""
        return self(batch), None

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """Add energies per atom to the references of elements, in place: `{atomic number: eV}`. What another level of
        theory calls zero is carried over so.

        Raises:
            RequestError: the potential holds no references.
        """
        raise RequestError(
            f"{type(self).__name__} holds no energies per element that could be shifted. Keep its references as they "
            "are, or add some: SumPotential([ReferenceEnergies(elements), potential])"
        )


@contextmanager
def evaluation_mode(potential: Potential) -> Iterator[None]:
    """The potential in evaluation mode for a while."""
    training = potential.training
    potential.eval()
    try:
        yield
    finally:
        potential.train(training)


def dtype_and_device(potential: Potential) -> tuple[torch.dtype, torch.device]:
    """The floating-point type and the device of a potential's first parameter, or of its first buffer where it has
    none; float64 on the CPU for a potential without tensors."""
    tensors = (t for t in (*potential.parameters(), *potential.buffers()) if t.is_floating_point())
    first = next(tensors, torch.zeros(0, dtype=torch.float64))
    return first.dtype, first.device


# MERGED DOCSTRING (fold into the module docstring): """Where a potential computes."""
