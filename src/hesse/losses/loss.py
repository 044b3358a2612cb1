"""The loss: squared errors of energies, forces, Hessian-vector products and Hessians in one normalization.

Per structure of N atoms (arXiv 2603.04523):

    λ_E ΔE²/√N  +  λ_F |ΔF|²/(3N)  +  λ_H (1/K) Σ_k |ΔH v_k|²/(9N²)  +  λ_full ‖ΔH‖²/(9N²)

With `E[v vᵀ] = I` the HVP term estimates the Hessian term without bias, whatever the family of probes, so λ_H and
λ_full mean the same. Each term is averaged over those structures of the batch that hold the label; a batch in which
none does contributes nothing. Losses see labels and predictions only, never a model.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from hesse.errors import MissingLabelError
from hesse.structures import Properties, segment_ids

__all__ = [
    "LOSS_TERMS",
    "LossWeights",
    "count_labeled",
    "masked_targets",
    "per_structure_loss",
    "residual_weights",
    "weighted_loss",
]

LOSS_TERMS = ("energy", "forces", "hvp", "hessian", "atomic_energies", "stress")
"""Labels that can supervise, in the order in which they are reported."""


class LossWeights(BaseModel):
    """How much each term counts. The defaults are the outcome of the study in docs/choosing-weights.md.

    The length in `from_length_scale` is the displacement at which an error in forces (times ℓ) and one in curvature (times ℓ²)
    matter as much as one in energy; published weights 1 : 0.3 : 0.09 are ℓ = 0.55 Å.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    energy: float = Field(4.0, ge=0)
    forces: float = Field(0.3, ge=0)
    hvp: float = Field(0.15, ge=0)
    hessian: float = Field(0.0, ge=0)
    atomic_energies: float = Field(0.0, ge=0)
    stress: float = Field(0.0, ge=0)
    regularizer: float = Field(0.0, ge=0, description="the potential's own regularizer")

    @classmethod
    def from_length_scale(cls, length: float, *, energy: float = 1.0) -> LossWeights:
        """Weights `energy : energy ℓ² : energy ℓ⁴` from one length scale ℓ in Å."""
        return cls(energy=energy, forces=energy * length**2, hvp=energy * length**4)

    def active(self) -> tuple[str, ...]:
        """Names of the labels with a weight above zero."""
        return tuple(name for name in LOSS_TERMS if getattr(self, name) > 0)


def per_structure_loss(predictions: Properties, references: Properties, name: str) -> Float[Tensor, "structures"]:
    """The normalized squared error of one label for every structure; zero where it is absent.

    Raises:
        MissingLabelError: predictions lack a label that the references hold.
    """
    value, target = getattr(predictions, name), getattr(references, name)
    if value is None or target is None:
        raise MissingLabelError(f"the loss of {name} needs it among predictions and references")
    mask = references.mask(name)
    n = references.n_atoms.to(target.dtype)
    if name == "energy":
        return _masked_difference(value - target, mask).square() / n.sqrt()
    if name == "stress":
        return _masked_difference(value - target, mask).square().mean((-2, -1))
    if name == "hessian":
        # Only present blocks are stored in the references; predictions hold all of them.
        if predictions.hessian_mask is not None or references.hessian_mask is not None:
            value = predictions.select(torch.nonzero(mask)[:, 0]).hessian
        assert value is not None
        structure_index = segment_ids(references.hessian_lengths())
        return _segment_sum((value - target).square(), structure_index, len(n)) / (9 * n * n)
    structure_index = segment_ids(references.n_atoms, value.shape[1 if name == "hvp" else 0])
    if name == "atomic_energies":
        return (
            _segment_sum(_masked_difference(value - target, mask[structure_index]).square(), structure_index, len(n))
            / n
        )
    if name == "forces":
        return _segment_sum(
            _masked_difference(value - target, mask[structure_index]).square().sum(-1), structure_index, len(n)
        ) / (3 * n)
    # hvp: [probes, atoms, 3]; every structure averages over the pairs that it holds.
    squares = _masked_difference(value - target, mask[:, structure_index]).square().sum(-1)
    return _segment_sum(squares.sum(0), structure_index, len(n)) / (9 * n * n) / mask.sum(0).clamp(min=1)


def count_labeled(references: Properties, weights: LossWeights | Mapping[str, float]) -> dict[str, Int[Tensor, ""]]:
    """How many structures hold each weighted label, and, as "regularizer", how many there are.

    Sums of these over the parts of a step make the loss of a part additive: see `weighted_loss`.
    """
    weights = weights.model_dump() if isinstance(weights, LossWeights) else weights
    n_labeled: dict[str, Tensor] = {}
    for name in LOSS_TERMS:
        if weights.get(name, 0.0) > 0 and getattr(references, name) is not None:
            mask = references.mask(name)
            n_labeled[name] = (mask.any(0) if name == "hvp" else mask).sum()
    if weights.get("regularizer", 0.0) > 0:
        n_labeled["regularizer"] = references.n_atoms.new_tensor(len(references))
    return n_labeled


def weighted_loss(
    predictions: Properties,
    references: Properties,
    weights: LossWeights | Mapping[str, float],
    n_labeled: Mapping[str, Int[Tensor, ""]] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """The total loss and its unweighted terms (means over the structures that hold the label).

    Terms with weight zero, and labels that no structure of the batch holds, are left out.

    Args:
        predictions: of the same structures as `references`.
        references: the labels.
        weights: of the terms.
        counts: structures that hold each label in all parts of a step (`holders`, summed over parts and processes);
            None where these are the only one. The losses of the parts then add up to that of the whole.
    """
    weights = weights.model_dump() if isinstance(weights, LossWeights) else weights
    n_labeled = count_labeled(references, weights) if n_labeled is None else n_labeled
    terms: dict[str, Tensor] = {}
    total = references.n_atoms.new_zeros((), dtype=torch.float64)
    for name in LOSS_TERMS:
        if weights.get(name, 0.0) <= 0 or getattr(references, name) is None:
            continue
        if getattr(predictions, name) is None and not bool(references.mask(name).any()):
            continue  # nobody predicts what no structure of this batch can be compared with
        losses = per_structure_loss(predictions, references, name).to(torch.float64)
        terms[name] = losses.sum() / n_labeled[name].clamp(min=1)
        total = total + weights[name] * terms[name]
    if weights.get("regularizer", 0.0) > 0 and predictions.regularizer is not None:
        terms["regularizer"] = predictions.regularizer.to(torch.float64).sum() / n_labeled["regularizer"]
        total = total + weights["regularizer"] * terms["regularizer"]
    return total, terms


def masked_targets(references: Properties, weights: Mapping[str, float]) -> dict[str, Tensor]:
    """The labels that are weighted, with zeros in place of absent ones (their factors are zero). A label that is there
    and no number stays none."""
    targets = {name: getattr(references, name) for name in _RESIDUAL_TERMS if weights.get(name, 0.0) > 0}
    return {
        name: _masked_difference(v, _broadcast_mask(references, name, v))
        for name, v in targets.items()
        if v is not None
    }


def _broadcast_mask(references: Properties, name: str, value: Tensor) -> Bool[Tensor, "*structures_or_atoms"]:
    """Who holds a label: per structure for energies and stress, per atom (and probe) otherwise."""
    mask = references.mask(name)
    if name in _PER_STRUCTURE:
        return mask
    return mask[..., segment_ids(references.n_atoms, value.shape[1 if name == "hvp" else 0])]


def residual_weights(
    references: Properties, weights: Mapping[str, float], n_labeled: Mapping[str, Int[Tensor, ""]]
) -> dict[str, Tensor]:
    """The loss as a sum of squares: what each squared difference of a label is multiplied with in `weighted_loss`.

    For energies, forces, products, atomic energies and stress (Hessians are not among them), broadcastable to the
    label; "regularizer" per structure. All that masks, sizes and weights decide is in these numbers, none of what a
    potential predicts.

    Args:
        references: the labels.
        weights: of the terms.
        counts: see `weighted_loss`.
    """
    n = references.n_atoms
    result: dict[str, Tensor] = {}
    for name in _RESIDUAL_TERMS:
        value = getattr(references, name)
        if weights.get(name, 0.0) <= 0 or value is None:
            continue
        structure_index = n if name in _PER_STRUCTURE else segment_ids(n, value.shape[1 if name == "hvp" else 0])
        mask = references.mask(name).to(value.dtype)
        scale = weights[name] / n_labeled[name].clamp(min=1).to(value.dtype)
        if name == "energy":
            result[name] = scale * mask / n.to(value.dtype).sqrt()
        elif name == "stress":
            result[name] = (scale * mask / 9)[:, None, None]
        elif name == "hvp":
            each = mask / mask.sum(0).clamp(min=1) / (9 * n * n)
            result[name] = scale * each[:, structure_index, None]
        else:
            each = (mask / (3 * n if name == "forces" else n))[structure_index]
            result[name] = scale * (each[:, None] if name == "forces" else each)
    if weights.get("regularizer", 0.0) > 0:
        each = weights["regularizer"] / n_labeled["regularizer"].to(torch.float64)
        result["regularizer"] = each * torch.ones_like(n, dtype=torch.float64)
    return result


_RESIDUAL_TERMS = ("energy", "forces", "hvp", "atomic_energies", "stress")
_PER_STRUCTURE = ("energy", "stress")


def _masked_difference(difference: Tensor, mask: Bool[Tensor, "*structures"]) -> Tensor:
    """Zero, with zero gradient, where the label is absent (and its place holds NaN)."""
    return torch.where(mask.reshape(*mask.shape, *([1] * (difference.dim() - mask.dim()))), difference, 0.0)


def _segment_sum(values: Float[Tensor, "items"], segment_index: Tensor, structures: int) -> Float[Tensor, "structures"]:
    return values.new_zeros(structures).index_add(0, segment_index, values)
