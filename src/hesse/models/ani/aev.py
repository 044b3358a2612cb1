"""Atomic environment vectors (AEVs): descriptors of an atom's surroundings, invariant to rotation and atom order.

Smith, Isayev, Roitberg, Chem. Sci. 8, 3192 (2017), eqs. 3 and 4, with the factors of the published networks: 1/4 before
the radial terms, and 0.95 cos θ in place of cos θ, so that arccos keeps a finite slope for three atoms on a line.

Axes: atoms; rows = atoms sorted by element; k = neighbors of an atom; triplets = an atom with two of its neighbors
within the angular cutoff.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hesse.models.ani.ani_config import AniConfig
from hesse.models.ani.triplets import TripletIndex
from hesse.smooth import bump_cutoff, cosine_cutoff, masked_norm, smooth_cutoff
from hesse.structures import Batch

__all__ = ["aev_length", "atomic_environment_vectors"]

CUTOFFS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "smooth": smooth_cutoff,
    "cosine": cosine_cutoff,
    "exponential": bump_cutoff,
}

CUTOFF_EPSILON = 1e-5
"""Added to the cutoff function of angular terms, in units of the machine epsilon, so that its logarithm is finite."""


def aev_length(config: AniConfig, elements: int) -> int:
    """Length of an AEV.

    Args:
        config: constants of the AEV.
        elements: number of elements.

    Returns:
        Number of radial and angular terms.
    """
    pairs = elements * (elements + 1) // 2
    return elements * len(config.radial_shifts) + pairs * len(config.angular_shifts) * len(config.sections)


def atomic_environment_vectors(config: AniConfig, batch: Batch, triplets: TripletIndex) -> Float[Tensor, "rows width"]:
    """AEVs of the atoms `triplets.order`.

    Args:
        config: constants of the AEV.
        batch: all atoms; neighbors up to `config.radial_cutoff`.
        triplets: of this batch, within `config.angular_cutoff`.

    Returns:
        First the radial terms by (element of the neighbor, shift), then the angular terms by (pair of elements, shift
        of the mean distance, angle); pairs (a, b) with a ≤ b in the order (0, 0), (0, 1), ..., (1, 1), ...
    """
    order = triplets.order
    vectors = batch.neighbor_vectors().index_select(0, order)
    mask = batch.neighbor_mask.index_select(0, order)
    radial = _radial(config, vectors, mask, triplets)
    return torch.cat([radial, _angular(config, vectors, triplets)], dim=1)


def _radial(
    config: AniConfig, vectors: Float[Tensor, "rows k 3"], mask: Bool[Tensor, "rows k"], triplets: TripletIndex
) -> Float[Tensor, "rows width"]:
    """`¼ Σ_j exp(−η (r_j − r_s)²) f_cut(r_j)` over the neighbors of each element."""
    distances = masked_norm(vectors, mask, fill=config.radial_cutoff)
    envelope = CUTOFFS[config.cutoff_function](distances, config.radial_cutoff) * mask
    shifts = distances.new_tensor(config.radial_shifts)
    bells = torch.exp(-config.radial_eta * (distances[..., None] - shifts).square())
    terms = bells * (0.25 * envelope)[..., None]
    numbers = torch.arange(len(triplets.atoms_by_element), device=mask.device)
    of_element = (triplets.neighbor_element[:, None] == numbers[:, None]).to(terms.dtype)
    return torch.bmm(of_element, terms).reshape(vectors.shape[0], -1)


def _angular(
    config: AniConfig, vectors: Float[Tensor, "rows k 3"], triplets: TripletIndex
) -> Float[Tensor, "rows width"]:
    """`2^{1−ζ} Σ_{j<k} (1 + cos(θ_jk − θ_s))^ζ exp(−η ((r_j + r_k)/2 − r_s)²) f_cut(r_j) f_cut(r_k)` over the pairs of
    neighbors of each pair of elements.

    A term is computed as one exponential of a sum of logarithms. A product of factors would write and read twice the
    memory in every derivative, and memory traffic determines the time here."""
    cutoff = config.angular_cutoff
    vectors = vectors.reshape(-1, 3).index_select(0, triplets.inside)
    distances = vectors.square().sum(-1).sqrt()
    envelope = CUTOFFS[config.cutoff_function](distances, cutoff)
    log_envelope = (envelope.clamp(min=0.0) + CUTOFF_EPSILON * torch.finfo(envelope.dtype).eps).log()
    unit = vectors / distances[:, None]
    # One table, so that each neighbor of a triplet is read once.
    table = torch.cat([unit, distances[:, None], log_envelope[:, None]], dim=1)
    to_j, to_k = table.index_select(0, triplets.neighbor_j), table.index_select(0, triplets.neighbor_k)
    x, y, z, distance, log_weight = (to_j + to_k).unbind(1)
    cosine = 0.95 * (0.5 * (x * x + y * y + z * z) - 1.0)  # |a + b|² = 2 + 2 cos θ
    # cos(θ − θ_s) = cos θ cos θ_s + sin θ sin θ_s avoids arccos; sin θ >= √(1 − 0.95²) is never close to zero.
    sine = (1.0 - cosine.square()).sqrt()
    sections = vectors.new_tensor(config.sections)
    projections = torch.stack([cosine, sine], dim=1) @ torch.stack([sections.cos(), sections.sin()])
    peaks = config.zeta * (0.5 + 0.5 * projections).log()
    shifts = vectors.new_tensor(config.angular_shifts)
    bells = log_weight[:, None] - config.angular_eta * (0.5 * distance[:, None] - shifts).square()
    terms = 2.0 * (torch.cat([bells, peaks], dim=1) @ _outer_sum_matrix(len(shifts), len(sections), vectors)).exp()
    rows, elements = triplets.neighbor_element.shape[0], len(triplets.atoms_by_element)
    n_segments = rows * (elements * (elements + 1) // 2)
    return terms.new_zeros(n_segments, terms.shape[1]).index_add(0, triplets.segment, terms).reshape(rows, -1)


def _outer_sum_matrix(a: int, b: int, like: Tensor) -> Float[Tensor, "a+b a*b"]:
    """Matrix of zeros and ones that maps a + b numbers to all sums of one of the first a and one of the last b. It is
    much faster than broadcasting over such short axes."""
    eye_a, eye_b = (
        torch.eye(a, dtype=like.dtype, device=like.device),
        torch.eye(b, dtype=like.dtype, device=like.device),
    )
    return torch.cat([eye_a.repeat_interleave(b, dim=1), eye_b.repeat(1, a)])
