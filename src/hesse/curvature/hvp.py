"""Gradients and their products with directions: reverse over reverse, for any differentiable energy."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["gradients", "hessian_vector_products", "hvp_sequential", "hvp_vmapped"]

SEQUENTIAL_ABOVE_ATOMS = {"cpu": 600}
"""Atoms from which several directions are taken one after the other: a vectorized pass saves the overhead of
operations, but its tensors are as many times as large. A further direction of four, in E-F training steps on one CPU
thread, at once and in turn (benchmarks/more_probes.py): 16 molecules of 13 atoms, hipnn 1.36 and 1.38, ani 0.58 and
1.04, hessenet 1.02 and 1.30; 64 molecules, 1.76 and 1.67, 0.98 and 1.07, 1.58 and 1.42. Outside of training, where
freed memory goes back to the system, 64 molecules at once took up to 1.4 times as long. On other devices always at
once."""


def gradients(output: Tensor, inputs: list[Tensor], *, create_graph: bool) -> list[Tensor]:
    """Derivatives of a scalar by each of `leaves`; zeros where it does not depend on them."""
    if not output.requires_grad:  # a constant energy, such as a bare element reference
        return [torch.zeros_like(leaf) for leaf in inputs]
    return list(torch.autograd.grad(output, inputs, create_graph=create_graph, materialize_grads=True))


def hvp_vmapped(
    gradient: Tensor,
    positions: Tensor,
    directions: Float[Tensor, "probes atoms 3"],
    create_graph: bool,
    retain_graph: bool,
) -> Float[Tensor, "probes atoms 3"]:
    """`H v` for all directions. One direction takes the plain path; several go through one vectorized pass."""
    directions = directions.to(gradient)
    if not gradient.requires_grad:  # an energy linear in positions
        return torch.zeros_like(directions)
    vectorized = directions.shape[0] > 1
    # Not materialize_grads: of a batched pass it gives zeros without the probe axis.
    (product,) = torch.autograd.grad(
        gradient,
        positions,
        grad_outputs=directions if vectorized else directions[0],
        is_grads_batched=vectorized,
        create_graph=create_graph,
        retain_graph=retain_graph or create_graph,
        allow_unused=True,
    )
    if product is None:  # an energy linear in positions, with parameters
        return torch.zeros_like(directions)
    return product if vectorized else product[None]


def hvp_sequential(
    gradient: Tensor,
    positions: Tensor,
    directions: Float[Tensor, "probes atoms 3"],
    create_graph: bool,
    retain_graph: bool,
) -> Float[Tensor, "probes atoms 3"]:
    """The same one direction at a time, for potentials whose operations cannot be vectorized."""
    last = len(directions) - 1
    return torch.cat(
        [
            hvp_vmapped(gradient, positions, directions[k : k + 1], create_graph, retain_graph=retain_graph or k < last)
            for k in range(len(directions))
        ]
    )


def hessian_vector_products(
    gradient: Tensor,
    positions: Tensor,
    directions: Float[Tensor, "probes atoms 3"],
    create_graph: bool,
    retain_graph: bool,
    *,
    supports_vmap: bool,
) -> Float[Tensor, "probes atoms 3"]:
    """The same by the quicker way for so many atoms. `batched`: whether the potential can be vectorized at all."""
    threshold = SEQUENTIAL_ABOVE_ATOMS.get(positions.device.type)
    small = threshold is None or positions.numel() < 3 * threshold
    return (hvp_vmapped if supports_vmap and small else hvp_sequential)(
        gradient, positions, directions, create_graph, retain_graph
    )
