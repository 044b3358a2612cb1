"""The Hessian of one structure as a linear operator, without forming the matrix."""

from __future__ import annotations

import torch
from ase import Atoms
from jaxtyping import Float
from torch import Tensor

from hesse.curvature.energy_derivatives import evaluate
from hesse.curvature.hvp import energy_and_gradient, hvp_sequential, hvp_vmapped
from hesse.curvature.memory import DEFAULT_MEMORY_MIB, saved_tensor_bytes
from hesse.errors import LabelShapeError
from hesse.potential import Potential, dtype_and_device
from hesse.structures import Batch, Request, Structure, collate, to_structure

__all__ = ["HessianOperator"]


class HessianOperator:
    """The linear operator `v ↦ H v` at a fixed geometry.

    The graph of the gradient is computed once and kept, so that each product is one backward pass. This costs about
    half as much as a product at a new geometry.

    Args:
        potential: any differentiable energy.
        structure: one structure, or a batch (whose structures do not interact: H is block-diagonal).
        memory_mib: memory limit for the directions of one vectorized pass; None for a default by device. The graph
            itself is not limited (`graph_mib`).

    Attributes:
        energy: energies of the structures, eV.
        gradient: derivative of the energy with respect to positions, eV/Å.
        graph_mib: memory of the graph, MiB.

    Raises:
        UnknownElementError, LabelShapeError, RequestError: see `evaluate`.
    """

    def __init__(
        self, potential: Potential, structure: Structure | Atoms | Batch, *, memory_mib: float | None = None
    ) -> None:
        dtype, device = dtype_and_device(potential)
        batch = structure if isinstance(structure, Batch) else collate([to_structure(structure)], potential.cutoff)
        batch = batch.to(device, dtype)
        energy = evaluate(potential, batch, Request()).energy  # includes all checks of potential and batch
        assert energy is not None
        self.energy: Float[Tensor, "structures"] = energy
        self._positions = batch.positions.detach().requires_grad_(True)
        with saved_tensor_bytes() as saved_bytes:
            _, (self._differentiable_gradient,) = energy_and_gradient(
                lambda positions: potential(batch.with_positions(positions=positions)), [self._positions]
            )
        self.gradient: Float[Tensor, "atoms 3"] = self._differentiable_gradient.detach()
        self.graph_mib = saved_bytes[0] / 2**20
        limit_mib = memory_mib or DEFAULT_MEMORY_MIB.get(device.type, DEFAULT_MEMORY_MIB["other"])
        self._chunk = max(1, int(limit_mib / max(self.graph_mib, 1e-6)))
        self._hvp_function = hvp_vmapped if potential.supports_vmap else hvp_sequential

    def __call__(self, directions: Float[Tensor, "probes atoms 3"]) -> Float[Tensor, "probes atoms 3"]:
        """Compute the products with several directions.

        Args:
            directions: `[probes, atoms, 3]`, in the floating-point type and on the device of the potential.

        Returns:
            `H v`, eV/Å² times the unit of v, `[probes, atoms, 3]`.

        Raises:
            LabelShapeError: directions of a wrong shape.
        """
        if directions.dim() != 3 or directions.shape[1:] != self._positions.shape or len(directions) == 0:
            raise LabelShapeError(
                f"directions of shape {tuple(directions.shape)}, expected [probes, {len(self._positions)}, 3]"
            )
        chunks = directions.split(self._chunk)
        return torch.cat(
            [
                self._hvp_function(self._differentiable_gradient, self._positions, chunk, False, retain_graph=True)
                for chunk in chunks
            ]
        )
