"""Operations whose derivatives are wrong or infinite when written naively.

Training on curvature differentiates the energy three times: twice in positions, once in parameters. A square root at
zero, a cutoff with a kink in its second derivative, or a division by zero in a padded entry ruins such a run without an
error message. All functions here have finite derivatives up to third order at every input that they document.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["bump_cutoff", "cosine_cutoff", "masked_norm", "norm", "smooth_cutoff", "softened_sqrt"]


def norm(vectors: Float[Tensor, "*any 3"]) -> Float[Tensor, "*any"]:
    """Length of vectors. At the zero vector the value and all derivatives are zero, never NaN.

    Args:
        vectors: `[..., 3]`.

    Returns:
        Lengths, `[...]`, in the unit of the vectors.
    """
    squared = vectors.square().sum(-1)
    is_zero = squared == 0
    return torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, squared).sqrt())


def masked_norm(vectors: Float[Tensor, "*any 3"], mask: Bool[Tensor, "*any"], *, fill: float) -> Float[Tensor, "*any"]:
    """Length of the vectors selected by a mask.

    Args:
        vectors: `[..., 3]`.
        mask: `[...]`, True where the vector is used.
        fill: positive value returned elsewhere, with zero derivatives.

    Returns:
        Lengths, `[...]`, in the unit of the vectors.
    """
    squared = torch.where(mask, vectors.square().sum(-1), fill * fill)
    return squared.sqrt()


def softened_sqrt(squared: Float[Tensor, "*any"], epsilon: float) -> Float[Tensor, "*any"]:
    """Softened absolute value `sqrt(x² + epsilon)`.

    Args:
        squared: x², not negative.
        epsilon: positive, in the unit of x². Third derivatives grow like 1/epsilon.

    Returns:
        `sqrt(squared + epsilon)`, of the same shape.
    """
    return (squared + epsilon).sqrt()


def smooth_cutoff(distances: Float[Tensor, "*any"], cutoff: float) -> Float[Tensor, "*any"]:
    """Polynomial cutoff function with three continuous derivatives.

    `1 − x⁴(35 − 84x + 70x² − 20x³)` with x = r/cutoff, and 0 beyond the cutoff: the polynomial of lowest degree whose
    first three derivatives vanish at both ends. Energy, forces, curvature and the derivative of the curvature are
    continuous when an atom crosses the cutoff.

    Computed as `(1 − x)⁴(1 + 4x + 10x² + 20x³)`: the first form is a difference of large numbers near the end.

    Args:
        distances: r, not negative.
        cutoff: in the unit of r.

    Returns:
        Values between 0 and 1, of the shape of `distances`.
    """
    x = (distances / cutoff).clamp(max=1.0)
    squared = (1.0 - x).square()
    return squared * squared * (1.0 + x * (4.0 + x * (10.0 + x * 20.0)))


def cosine_cutoff(distances: Float[Tensor, "*any"], cutoff: float) -> Float[Tensor, "*any"]:
    """Cosine cutoff function `cos²(πr/2R)`, and 0 beyond R, as published with HIP-NN.

    Its second derivative jumps at the cutoff: only C¹.

    Args:
        distances: r, not negative.
        cutoff: R, in the unit of r.

    Returns:
        Values between 0 and 1, of the shape of `distances`.
    """
    x = (distances / cutoff).clamp(max=1.0)
    return torch.cos(0.5 * math.pi * x).square()


def bump_cutoff(distances: Float[Tensor, "*any"], cutoff: float) -> Float[Tensor, "*any"]:
    """Bump function `exp(1 − 1/(1 − x²))` with x = r/cutoff, and 0 beyond, as used by ANI-2xr.

    All derivatives vanish at the cutoff. Within 0.7 % of the cutoff the value is below 10⁻³⁰ and treated as constant,
    so that no power of 1/(1 − x²) overflows.

    Args:
        distances: r, not negative.
        cutoff: in the unit of r.

    Returns:
        Values between 0 and 1, of the shape of `distances`.
    """
    x = distances / cutoff
    inside = (1.0 - x * x).clamp(min=1.0 / 70.0)
    return torch.where(x < 1.0, torch.exp(1.0 - 1.0 / inside), 0.0)
