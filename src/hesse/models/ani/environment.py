"""Atomic environment vectors (AEVs): what an atom sees around it, unchanged by rotation and by the order of atoms.

Smith, Isayev, Roitberg, Chem. Sci. 8, 3192 (2017), eqs. 3 and 4, with the factors of the published networks: 1/4 before
the radial terms, and 0.95 cos θ in place of cos θ, so that arccos keeps a finite slope when three atoms stand in line.

Axes: atoms; k = neighbours of an atom; r = radial shifts; triples = an atom with two of its near neighbours.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hesse.models.ani.config import AniConfig
from hesse.models.ani.triples import Triples, find_triples, sum_products
from hesse.smooth import cosine_cutoff, exponential_cutoff, masked_norm, smooth_cutoff
from hesse.structures import Batch

__all__ = ["environment_width", "environments"]

CUTOFFS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "smooth": smooth_cutoff,
    "cosine": cosine_cutoff,
    "exponential": exponential_cutoff,
}


def environment_width(config: AniConfig, elements: int) -> int:
    """Length of an AEV when there are so many elements."""
    pairs = elements * (elements + 1) // 2
    return elements * len(config.radial_shifts) + pairs * len(config.angular_shifts) * len(config.sections)


def environments(
    config: AniConfig, batch: Batch, element: Int[Tensor, "atoms"], elements: int, rows: Int[Tensor, "rows"]
) -> Float[Tensor, "rows width"]:
    """AEVs of the atoms `rows`.

    Args:
        config: the constants.
        batch: all atoms; neighbours up to `config.radial_cutoff`.
        element: which of the elements each atom of the batch is, counted from 0.
        elements: how many there are.
        rows: atoms to describe, in the order of the result.

    Returns:
        First the radial terms by (element of the neighbour, shift), then the angular terms by (pair of elements, shift
        of the mean distance, angle); pairs (a, b) with a ≤ b in the order (0, 0), (0, 1), ..., (1, 1), ...
    """
    near = element[batch.neighbours.index_select(0, rows)]
    vectors = batch.pair_vectors().index_select(0, rows)
    mask = batch.neighbour_mask.index_select(0, rows)
    distances = masked_norm(vectors, mask, fill=config.radial_cutoff)
    envelope = CUTOFFS[config.cutoff_function](distances, config.radial_cutoff) * mask
    radial = _radial(config, distances, envelope, near, elements)
    triples = find_triples(distances.detach(), mask, near, elements, config.angular_cutoff)
    return torch.cat([radial, _angular(config, vectors, triples)], dim=1)


def _radial(
    config: AniConfig,
    distances: Float[Tensor, "rows k"],
    envelope: Float[Tensor, "rows k"],
    near: Int[Tensor, "rows k"],
    elements: int,
) -> Float[Tensor, "rows width"]:
    """`¼ Σ_j exp(−η (r_j − r_s)²) f_cut(r_j)` over the neighbours of each element."""
    shifts = distances.new_tensor(config.radial_shifts)
    bells = torch.exp(-config.radial_eta * (distances[:, None] - shifts[:, None]).square())
    terms = bells * (0.25 * envelope)[:, None]
    of_element = (near[:, None] == torch.arange(elements, device=near.device)[:, None]).to(terms.dtype)
    return torch.bmm(of_element, terms.transpose(1, 2)).reshape(len(near), -1)


def _angular(config: AniConfig, vectors: Float[Tensor, "rows k 3"], triples: Triples) -> Float[Tensor, "rows width"]:
    """`2^{1−ζ} Σ_{j<k} (1 + cos(θ_jk − θ_s))^ζ exp(−η ((r_j + r_k)/2 − r_s)²) f_cut(r_j) f_cut(r_k)` over the pairs of
    neighbours of each pair of elements."""
    reach = config.angular_cutoff
    vectors = vectors.reshape(-1, 3).index_select(0, triples.near.reshape(-1)).reshape(*triples.near.shape, 3)
    distances = masked_norm(vectors, triples.mask, fill=reach)
    envelope = CUTOFFS[config.cutoff_function](distances, reach)
    unit = vectors / distances[..., None]
    cosine = 0.95 * triples.take(torch.bmm(unit, unit.transpose(1, 2)))
    mean = triples.take(0.5 * (distances[:, :, None] + distances[:, None]))
    weight = triples.take(2.0 * envelope[:, :, None] * envelope[:, None])
    # cos(θ − θ_s) = cos θ cos θ_s + sin θ sin θ_s needs no arccos, and sin θ >= √(1 − 0.95²) no care.
    sine = (1.0 - cosine.square()).sqrt()
    section = vectors.new_tensor(config.sections)
    angle = 0.5 + 0.5 * section.cos()[:, None] * cosine + 0.5 * section.sin()[:, None] * sine
    shifts = vectors.new_tensor(config.angular_shifts)
    bells = torch.exp(-config.angular_eta * (mean - shifts[:, None]).square()) * weight
    sums = sum_products(bells.t(), angle.pow(config.zeta).t(), triples.group, triples.groups)
    return sums.reshape(len(triples.near), -1)
