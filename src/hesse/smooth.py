"""The few operations whose derivatives go wrong when written naively.

Training on curvature differentiates the energy three times: twice in positions, once in parameters. A bare square root
at zero, a cutoff with a kink in its second derivative, or a padded entry that divides by zero ruins such a run without
a message. Everything here has finite derivatives of all orders that Hesse takes, at every input it documents.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["bump_cutoff", "cosine_cutoff", "masked_norm", "norm", "smooth_cutoff", "softened_sqrt"]


def norm(vectors: Float[Tensor, "*any 3"]) -> Float[Tensor, "*any"]:
    """Length of each vector. At the zero vector the value and every derivative are zero, never NaN."""
    squared = vectors.square().sum(-1)
    is_zero = squared == 0
    return torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, squared).sqrt())


def masked_norm(vectors: Float[Tensor, "*any 3"], mask: Bool[Tensor, "*any"], *, fill: float) -> Float[Tensor, "*any"]:
    """Length of the vectors that `mask` keeps; `fill`, with zero derivatives, elsewhere."""
    squared = torch.where(mask, vectors.square().sum(-1), fill * fill)
    return squared.sqrt()


def softened_sqrt(squared: Float[Tensor, "*any"], epsilon: float) -> Float[Tensor, "*any"]:
    """`sqrt(squared + epsilon)` for squared >= 0: a rounded absolute value. Third derivatives grow like 1/epsilon."""
    return (squared + epsilon).sqrt()


def smooth_cutoff(distances: Float[Tensor, "*any"], cutoff: float) -> Float[Tensor, "*any"]:
    """`1 − x⁴(35 − 84x + 70x² − 20x³)` with x = r/cutoff, and 0 beyond: the lowest polynomial step whose first three
    derivatives vanish at both ends, so energy, forces, curvature and its slope are continuous when an atom crosses.

    Computed as `(1 − x)⁴(1 + 4x + 10x² + 20x³)`: the first form is a difference of large numbers near the end."""
    x = (distances / cutoff).clamp(max=1.0)
    rest = (1.0 - x).square()
    return rest * rest * (1.0 + x * (4.0 + x * (10.0 + x * 20.0)))


def cosine_cutoff(distances: Float[Tensor, "*any"], cutoff: float) -> Float[Tensor, "*any"]:
    """`cos²(πr/2R)`, and 0 beyond: the cutoff published with HIP-NN. Its second derivative jumps at the cutoff."""
    x = (distances / cutoff).clamp(max=1.0)
    return torch.cos(0.5 * math.pi * x).square()


def bump_cutoff(distances: Float[Tensor, "*any"], cutoff: float) -> Float[Tensor, "*any"]:
    """`exp(1 − 1/(1 − x²))` with x = r/cutoff, and 0 beyond: all derivatives vanish at the cutoff (ANI-2xr has it).

    Within 0.7 % of the cutoff it is below 10⁻³⁰ and taken as constant, so that no power of 1/(1 − x²) overflows."""
    x = distances / cutoff
    inside = (1.0 - x * x).clamp(min=1.0 / 70.0)
    return torch.where(x < 1.0, torch.exp(1.0 - 1.0 / inside), 0.0)
