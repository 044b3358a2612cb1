"""Gradients and Hessian-vector products of any differentiable energy, in reverse over reverse mode."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["energy_and_gradient", "gradients", "hessian_vector_products", "hvp_sequential", "hvp_vmapped"]

SEQUENTIAL_ABOVE_ATOMS = {"cpu": 600}
"""Number of atoms in a batch, by device, from which several directions are computed one after the other.

A vectorized pass saves overhead per operation, but its tensors are larger by the number of directions. Cost of each
further one of four directions, in units of an E-F training step, on one CPU thread, vectorized and sequential
(benchmarks/more_probes.py): 16 molecules of 13 atoms: hipnn 1.36 and 1.38, ani 0.58 and 1.04, hessenet 1.02 and 1.30;
64 molecules: 1.76 and 1.67, 0.98 and 1.07, 1.58 and 1.42. Outside of training, where freed memory returns to the
operating system, the vectorized pass of 64 molecules took up to 1.4 times as long as the sequential one. Devices that
are not listed always use the vectorized pass."""


def gradients(output: Tensor, inputs: list[Tensor], *, create_graph: bool) -> list[Tensor]:
    """Derivatives of a scalar with respect to several tensors.

    Args:
        output: scalar.
        inputs: tensors with `requires_grad`.
        create_graph: keep the graph for further derivatives.

    Returns:
        One derivative for each input; zeros if the output does not depend on it.
    """
    if not output.requires_grad:  # a constant energy, such as a bare element reference
        return [torch.zeros_like(tensor) for tensor in inputs]
    return list(torch.autograd.grad(output, inputs, create_graph=create_graph, materialize_grads=True))


def energy_and_gradient(
    energy: Callable[..., Tensor], inputs: list[Tensor], *, create_graph: bool = True
) -> tuple[Tensor, list[Tensor]]:
    """Energies of a function and the derivatives of their sum, with the graph for further derivatives.

    Args:
        energy: function of `inputs`; returns energies of any shape, eV.
        inputs: tensors with `requires_grad`.
        create_graph: keep the graph of the derivatives.

    Returns:
        The energies, and one derivative for each input.
    """
    with torch.enable_grad():
        energies = energy(*inputs)
        return energies, gradients(energies.sum(), inputs, create_graph=create_graph)


def hvp_vmapped(
    gradient: Tensor,
    positions: Tensor,
    directions: Float[Tensor, "probes atoms 3"],
    create_graph: bool,
    retain_graph: bool,
) -> Float[Tensor, "probes atoms 3"]:
    """Hessian-vector products for all directions in one pass, vectorized if there are several.

    Args:
        gradient: derivative of the energy with respect to the positions, with its graph, `[atoms, 3]`.
        positions: leaf tensor, Å, `[atoms, 3]`.
        directions: `[probes, atoms, 3]`.
        create_graph: keep the graph for further derivatives.
        retain_graph: keep the graph of the gradient for further products.

    Returns:
        `H v`, eV/Å² times the unit of the directions, `[probes, atoms, 3]`.
    """
    directions = directions.to(gradient)
    if not gradient.requires_grad:  # an energy linear in positions
        return torch.zeros_like(directions)
    vectorized = directions.shape[0] > 1
    # Not materialize_grads: in a vectorized pass its zeros lack the probe axis.
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
    """Hessian-vector products one by one: for large batches, and for operations that cannot be vectorized.

    Args:
        gradient: see `hvp_vmapped`.
        positions: see `hvp_vmapped`.
        directions: `[probes, atoms, 3]`.
        create_graph: keep the graph for further derivatives.
        retain_graph: keep the graph of the gradient for further products.

    Returns:
        `H v`, eV/Å² times the unit of the directions, `[probes, atoms, 3]`.
    """
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
    """Hessian-vector products by the faster method for this number of atoms.

    Args:
        gradient: see `hvp_vmapped`.
        positions: see `hvp_vmapped`.
        directions: `[probes, atoms, 3]`.
        create_graph: keep the graph for further derivatives.
        retain_graph: keep the graph of the gradient for further products.
        supports_vmap: whether the operations of the potential can be vectorized.

    Returns:
        `H v`, eV/Å² times the unit of the directions, `[probes, atoms, 3]`.
    """
    threshold = SEQUENTIAL_ABOVE_ATOMS.get(positions.device.type)
    small = threshold is None or positions.numel() < 3 * threshold
    return (hvp_vmapped if supports_vmap and small else hvp_sequential)(
        gradient, positions, directions, create_graph, retain_graph
    )
