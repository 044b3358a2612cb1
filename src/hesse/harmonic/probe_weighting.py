"""Probes that favor light atoms, soft normal modes, or what free energies depend on.

A probe z with `E[z zᵀ] = I` becomes `v = P z`, so that

    E|ΔH v|² = ‖ΔH P‖²,    P Pᵀ = c M^-1/2 (Σ_k w(ν_k) u_k u_kᵀ) M^-1/2

with the normal modes u_k of the reference Hessian in mass-weighted coordinates, without rigid-body motions, and c such
that the mean of `|v|²` is 3N as for other probes. The weights w are one for all modes (`mass`), or `1/(1 + (ν/ν₀)²)`
(`soft-modes`): errors along modes far below ν₀ count fully, those of stretches hardly. Of the Cartesian error of a
Hessian, modes below 300 cm⁻¹ are less than a percent, although entropies depend on them.

The weights `coth(hν/2kT)/ν` (`free-energy`) are the derivatives of the harmonic free energy by the eigenvalues of the
mass-weighted Hessian, up to a factor: to first order its error is `c' E[v·ΔH v]`, from zero-point energy and entropy
together. Frequencies below 100 cm⁻¹ count as 100 cm⁻¹ there, as in quasi-harmonic free energies.
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
from hesse.units import BOLTZMANN, INVERSE_CM

__all__ = ["PROBE_WEIGHTINGS", "probe_transform", "probe_transforms"]

PROBE_WEIGHTINGS = ("none", "mass", "soft-modes", "free-energy")

Weighting = Literal["mass", "soft-modes", "free-energy"]

TEMPERATURE = 298.15
"""K, of `free-energy`."""
LOWEST = 100.0
"""cm⁻¹; lower and imaginary frequencies count as this one in `free-energy`."""


def probe_transform(
    structure: Structure,
    hessian: Float[ndarray, "n 3 n 3"],
    weighting: Weighting,
    *,
    soft_below: float = 400.0,
) -> Float[ndarray, "n 3 n 3"]:
    """The matrix P of one structure.

    Args:
        structure: the geometry.
        hessian: its Hessian, eV/Å²: that of the reference, or of a cheaper level of theory.
        weighting: "mass", "soft-modes" or "free-energy".
        soft_below: ν₀, cm⁻¹.

    Returns:
        P, dimensionless, `(n, 3, n, 3)`. The identity for a single atom, which has no modes.
    """
    n = len(structure)
    modes = normal_modes(structure, hessian)
    if len(modes) == 0:
        return np.eye(3 * n).reshape(n, 3, n, 3)
    weights = _mode_weights(modes.frequencies, weighting, soft_below)
    vectors = modes.vectors.reshape(len(modes), 3 * n)
    matrix = modes.cartesian.reshape(len(modes), 3 * n).T @ (np.sqrt(weights)[:, None] * vectors)
    scale = np.sqrt(3 * n / np.square(matrix).sum())
    return (scale * matrix).reshape(n, 3, n, 3)


def _mode_weights(
    frequencies: Float[ndarray, "modes"], weighting: Weighting, soft_below: float
) -> Float[ndarray, "modes"]:
    if weighting == "mass":
        return np.ones(len(frequencies))
    if weighting == "soft-modes":
        return np.asarray(1.0 / (1.0 + (frequencies / soft_below) ** 2))
    raised = np.maximum(frequencies, LOWEST)
    return np.asarray(1.0 / (raised * np.tanh(raised * INVERSE_CM / (2.0 * BOLTZMANN * TEMPERATURE))))


def probe_transforms(
    structures: list[Structure],
    elements: Float[Tensor, "elements"],
    mask: Bool[Tensor, "structures"],
    weighting: Weighting,
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
