"""Probes that favor light atoms or soft normal modes.

A probe z with `E[z zᵀ] = I` becomes `v = P z`, so that

    E|ΔH v|² = ‖ΔH P‖²,    P Pᵀ = c M^-1/2 (Σ_k w(ν_k) u_k u_kᵀ) M^-1/2

with the normal modes u_k of the reference Hessian in mass-weighted coordinates, without rigid-body motions, and c such
that the mean of `|v|²` is 3N as for other probes. The weights w are one for all modes (`mass`), or `1/(1 + (ν/ν₀)²)`
(`soft-modes`): errors along modes far below ν₀ count fully, those of stretches hardly. Of the Cartesian error of a
Hessian, modes below 300 cm⁻¹ are less than a percent, although entropies depend on them.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from hesse.harmonic.normal_modes import normal_modes
from hesse.structures import Structure, segment_offsets

__all__ = ["PROBE_WEIGHTINGS", "probe_transform", "probe_transforms"]

PROBE_WEIGHTINGS = ("none", "mass", "soft-modes")


def probe_transform(
    structure: Structure,
    hessian: Float[ndarray, "n 3 n 3"],
    weighting: Literal["mass", "soft-modes"],
    *,
    soft_below: float = 400.0,
) -> Float[ndarray, "n 3 n 3"]:
    """The matrix P of one structure.

    Args:
        structure: the geometry.
        hessian: its reference Hessian, eV/Å².
        weighting: "mass" or "soft-modes".
        soft_below: ν₀, cm⁻¹.

    Returns:
        P, dimensionless, `(n, 3, n, 3)`. The identity for a single atom, which has no modes.
    """
    n = len(structure)
    modes = normal_modes(structure, hessian)
    if len(modes) == 0:
        return np.eye(3 * n).reshape(n, 3, n, 3)
    weights = np.ones(len(modes)) if weighting == "mass" else 1.0 / (1.0 + (modes.frequencies / soft_below) ** 2)
    vectors = modes.vectors.reshape(len(modes), 3 * n)
    matrix = modes.cartesian.reshape(len(modes), 3 * n).T @ (np.sqrt(weights)[:, None] * vectors)
    scale = np.sqrt(3 * n / np.square(matrix).sum())
    return (scale * matrix).reshape(n, 3, n, 3)


def probe_transforms(
    structures: list[Structure],
    elements: Float[Tensor, "elements"],
    mask: Bool[Tensor, "structures"],
    weighting: Literal["mass", "soft-modes"],
    *,
    soft_below: float = 400.0,
) -> Float[Tensor, "elements"]:
    """The matrices P of many structures, in the layout of their Hessians.

    Args:
        structures: the geometries.
        elements: Hessians of those that have one (`hesse.structures.hessian_blocks`), eV/Å².
        mask: which structures have a Hessian.
        weighting: see `probe_transform`.
        soft_below: see `probe_transform`.

    Returns:
        The matrices, `[elements]`.
    """
    sizes: Int[Tensor, "structures"] = torch.tensor([len(s) for s in structures])
    starts = segment_offsets(9 * sizes**2 * mask).tolist()
    result = torch.empty_like(elements)
    for i, structure in enumerate(structures):
        if bool(mask[i]):
            n, start = len(structure), starts[i]
            block = slice(start, start + 9 * n * n)
            hessian = elements[block].double().numpy().reshape(n, 3, n, 3)
            matrix = probe_transform(structure, hessian, weighting, soft_below=soft_below)
            result[block] = torch.from_numpy(matrix).reshape(-1).to(elements.dtype)
    return result
