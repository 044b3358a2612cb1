"""The contract of potentials: a PyTorch module that maps a batch of structures to atomic energies.

Potentials compute no derivatives: forces, Hessian-vector products and Hessians come from `hesse.curvature`.
"""

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
    """Base class of all potentials: a differentiable energy.

    Attributes:
        cutoff: Å; the neighbor matrix of a batch must contain all pairs below it. Additional pairs are ignored.
        elements: supported atomic numbers; empty if all are supported.
        has_atomic_energies: whether atomic energies are meaningful; False if only their sum over a structure is.
        supports_vmap: whether the gradient can be differentiated along several directions in one vectorized pass
            (`is_grads_batched` of `torch.autograd.grad`). If False, Hessian-vector products are computed one by one.
    """

    cutoff: float
    elements: tuple[int, ...] = ()
    has_atomic_energies: bool = True
    supports_vmap: bool = True

    @abstractmethod
    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """Compute atomic energies.

        Args:
            batch: structures with neighbors up to at least `cutoff`.

        Returns:
            Energy of each atom in eV, `[atoms]`, differentiable in `batch.positions` and `batch.cell`.
        """

    def precompute(self, batch: Batch) -> Batch:
        """Store index tables (of pairs, triples, ...) that `forward` needs in `batch.precomputed`.

        The tables are not differentiated and not part of the compiled computation. If they are missing, `forward`
        computes them itself.

        Args:
            batch: any batch of structures.

        Returns:
            The batch with `precomputed`; the batch unchanged if the potential needs no tables.
        """
        return batch

    def forward_with_regularizer(
        self, batch: Batch
    ) -> tuple[Float[Tensor, "atoms"], Float[Tensor, "structures"] | None]:
        """Compute atomic energies and the regularizer of the potential, for training.

        Args:
            batch: structures with neighbors up to at least `cutoff`.

        Returns:
            Atomic energies in eV, `[atoms]`, and the dimensionless regularizer, `[structures]` (None if there is none).
        """
        return self(batch), None

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """Add energies per atom to the reference energies of the elements, in place.

        Used when training continues on data of another level of theory, which has another zero of energy.

        Args:
            shifts: energy to add in eV, by atomic number.

        Raises:
            RequestError: the potential has no reference energies.
        """
        raise RequestError(
            f"{type(self).__name__} holds no energies per element that could be shifted. Keep its references as they "
            "are, or add some: SumPotential([ReferenceEnergies(elements), potential])"
        )


@contextmanager
def evaluation_mode(potential: Potential) -> Iterator[None]:
    """Context in which the potential is in evaluation mode; its former mode is restored at the end.

    Args:
        potential: any potential.
    """
    training = potential.training
    potential.eval()
    try:
        yield
    finally:
        potential.train(training)


def dtype_and_device(potential: Potential) -> tuple[torch.dtype, torch.device]:
    """Floating-point type and device of a potential.

    Args:
        potential: any potential.

    Returns:
        Type and device of its first floating-point parameter, or of its first buffer if it has no parameters;
        float64 on the CPU if it has no tensors at all.
    """
    tensors = (t for t in (*potential.parameters(), *potential.buffers()) if t.is_floating_point())
    first = next(tensors, torch.zeros(0, dtype=torch.float64))
    return first.dtype, first.device
