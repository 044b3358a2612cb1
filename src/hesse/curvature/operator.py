"""The Hessian of one structure as something to multiply with, never as a matrix."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hesse.curvature.derivatives import gradients, products, products_in_turn
from hesse.curvature.evaluate import evaluate
from hesse.curvature.home import home_of
from hesse.curvature.memory import DEFAULT_MEMORY_MIB, graph_bytes
from hesse.errors import LabelShapeError
from hesse.potential import Potential
from hesse.structures import Batch, Request, Structure, collate

__all__ = ["HessianProducts"]


class HessianProducts:
    """`v ↦ H v` at a fixed geometry. The graph of the gradient is made once and kept, so that each product is one
    backward pass: about half of what a product at a new geometry costs.

    Args:
        potential: any differentiable energy.
        structure: one structure, or a batch (whose structures do not interact: H is block-diagonal).
        memory_mib: how much memory directions that go through the graph together may take; None for a default by
            device. The graph itself takes what it takes (`graph_mib`).

    Attributes:
        energy: eV, of each structure.
        gradient: eV/Å.
        graph_mib: MiB that the graph keeps while this object lives.

    Raises:
        UnknownElementError, LabelShapeError, RequestError: see `evaluate`.
    """

    def __init__(self, potential: Potential, structure: Structure | Batch, *, memory_mib: float | None = None) -> None:
        dtype, device = home_of(potential)
        batch = collate([structure], potential.cutoff) if isinstance(structure, Structure) else structure
        batch = batch.to(device, dtype)
        energy = evaluate(potential, batch, Request()).energy  # all checks of the potential and the batch are made here
        assert energy is not None
        self.energy: Float[Tensor, "structures"] = energy
        self._positions = batch.positions.detach().requires_grad_(True)
        with torch.enable_grad(), graph_bytes() as saved:
            atomic = potential(batch.replace(positions=self._positions))
            (self._slope,) = gradients(atomic.sum(), [self._positions], create_graph=True)
        self.gradient: Float[Tensor, "atoms 3"] = self._slope.detach()
        self.graph_mib = saved[0] / 2**20
        bound = memory_mib or DEFAULT_MEMORY_MIB.get(device.type, DEFAULT_MEMORY_MIB["other"])
        self._at_once = max(1, int(bound / max(self.graph_mib, 1e-6)))
        self._multiply = products if potential.batched_gradients else products_in_turn

    def __call__(self, directions: Float[Tensor, "probes atoms 3"]) -> Float[Tensor, "probes atoms 3"]:
        """`H v` for every direction, eV/Å² times the unit of v, in the type and on the device of the potential.

        Raises:
            LabelShapeError: directions of another shape.
        """
        if directions.dim() != 3 or directions.shape[1:] != self._positions.shape or len(directions) == 0:
            raise LabelShapeError(
                f"directions of shape {tuple(directions.shape)}, expected [probes, {len(self._positions)}, 3]"
            )
        parts = directions.split(self._at_once)
        return torch.cat([self._multiply(self._slope, self._positions, part, False, keep=True) for part in parts])
