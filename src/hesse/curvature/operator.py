"""The Hessian of one structure as a linear operator, without forming the matrix."""

from __future__ import annotations

from contextlib import nullcontext
from weakref import WeakKeyDictionary

import torch
from ase import Atoms
from jaxtyping import Float
from torch import Tensor

from hesse.curvature.energy_derivatives import gradient_with_graph, prepare_batch
from hesse.curvature.hvp import hvp_sequential, hvp_vmapped
from hesse.curvature.memory import DEFAULT_MEMORY_MIB, saved_tensor_bytes
from hesse.errors import LabelShapeError
from hesse.potential import Potential, dtype_and_device
from hesse.structures import Batch, Request, Structure, collate, to_structure

__all__ = ["HessianOperator"]


_GRAPHS: WeakKeyDictionary[Potential, tuple[int, float, tuple[torch.dtype, torch.device]]] = WeakKeyDictionary()
"""Size and memory (MiB) of the last measured graph of each potential: measuring takes as long as a small product."""
_SIMILAR = 1.5
"""Graphs whose numbers of pairs and atoms differ by less than this factor are not measured again."""


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
        graph_mib: memory of the graph, MiB; of one geometry after another, estimated from the first.

    Raises:
        UnknownElementError, LabelShapeError, RequestError: see `evaluate`.
    """

    def __init__(
        self, potential: Potential, structure: Structure | Atoms | Batch, *, memory_mib: float | None = None
    ) -> None:
        dtype, device = dtype_and_device(potential)
        batch = structure if isinstance(structure, Batch) else collate([to_structure(structure)], potential.cutoff)
        batch = prepare_batch(potential, batch.to(device, dtype), Request(), check_elements=True)
        known_mib = _known_graph_mib(potential, batch)
        with saved_tensor_bytes() if known_mib is None else nullcontext([0]) as saved_bytes:
            self.energy, self._differentiable_gradient, self._positions = gradient_with_graph(potential, batch)
        if known_mib is None:
            known_mib = saved_bytes[0] / 2**20
            _GRAPHS[potential] = (_n_slots(batch), known_mib, (dtype, device))
        self.gradient: Float[Tensor, "atoms 3"] = self._differentiable_gradient.detach()
        self.graph_mib = known_mib
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


def _n_slots(batch: Batch) -> int:
    """Number of entries of the neighbor matrix and of atoms."""
    return batch.neighbors.numel() + len(batch.numbers)


def _known_graph_mib(potential: Potential, batch: Batch) -> float | None:
    """Memory of the graph from that of a similar structure, MiB; None without one."""
    n_slots, mib, kind = _GRAPHS.get(potential, (0, 0.0, None))
    n = _n_slots(batch)
    similar = n_slots / _SIMILAR <= n <= n_slots * _SIMILAR
    return mib * n / n_slots if similar and kind == dtype_and_device(potential) else None
