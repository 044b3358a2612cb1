"""The loss: squared errors of energies, forces, Hessian-vector products and Hessians in one normalization.

Per structure of N atoms (arXiv 2603.04523):

    λ_E ΔE²/√N  +  λ_F |ΔF|²/(3N)  +  λ_H (1/K) Σ_k |ΔH v_k|²/(9N²)  +  λ_full ‖ΔH‖²/(9N²)

With `E[v vᵀ] = I` the HVP term is an unbiased estimate of the Hessian term for all distributions of probes, so λ_H and
λ_full have the same meaning. Each term is the mean over those structures of the batch that have the label; it is zero
if none has it. Losses depend on labels and predictions only, not on models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from hesse.errors import MissingLabelError
from hesse.runtime.settings import Settings
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
"""Properties that a loss can contain, in the order of reports."""


class LossWeights(Settings):
    """Weight of each term of the loss. The defaults result from the study in docs/choosing-weights.md."""

    renamed: ClassVar[Mapping[str, str]] = {"penalty": "regularizer"}

    energy: float = Field(4.0, ge=0)
    forces: float = Field(0.3, ge=0)
    hvp: float = Field(0.15, ge=0)
    hessian: float = Field(0.0, ge=0)
    atomic_energies: float = Field(0.0, ge=0)
    stress: float = Field(0.0, ge=0)
    regularizer: float = Field(0.0, ge=0, description="the potential's own regularizer")

    @classmethod
    def from_length_scale(cls, length: float, *, energy: float = 1.0) -> LossWeights:
        """Weights `energy : energy ℓ² : energy ℓ⁴` of energy, forces and HVP from one length scale ℓ.

        ℓ is the displacement at which errors in forces (times ℓ) and in curvature (times ℓ²) contribute as much as
        errors in the energy. The published weights 1 : 0.3 : 0.09 correspond to ℓ = 0.55 Å.

        Args:
            length: ℓ, Å.
            energy: weight of the energy.

        Returns:
            The weights; all other terms are zero.
        """
        return cls(energy=energy, forces=energy * length**2, hvp=energy * length**4)

    def active(self) -> tuple[str, ...]:
        """Names of the terms with a weight above zero.

        Returns:
            Names in the order of `LOSS_TERMS`.
        """
        return tuple(name for name in LOSS_TERMS if getattr(self, name) > 0)


def per_structure_loss(predictions: Properties, references: Properties, name: str) -> Float[Tensor, "structures"]:
    """Normalized squared error of one property for each structure.

    Args:
        predictions: predicted properties.
        references: labels of the same structures.
        name: one of `LOSS_TERMS`.

    Returns:
        Errors, `[structures]`; zero for structures without the label.

    Raises:
        MissingLabelError: the property is missing in the predictions or the references.
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
        # References contain only the Hessians of labeled structures, predictions those of all structures.
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
    # hvp: [probes, atoms, 3]; the mean over the labeled probes of each structure.
    squares = _masked_difference(value - target, mask[:, structure_index]).square().sum(-1)
    return _segment_sum(squares.sum(0), structure_index, len(n)) / (9 * n * n) / mask.sum(0).clamp(min=1)


def count_labeled(references: Properties, weights: LossWeights | Mapping[str, float]) -> dict[str, Int[Tensor, ""]]:
    """Number of structures with each weighted label; for "regularizer" the number of all structures.

    If a step consists of several micro-batches, the sums of these numbers make their losses additive (`weighted_loss`).

    Args:
        references: the labels.
        weights: weight of each term.

    Returns:
        Numbers by name of the term.
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
    """The loss of a batch and its unweighted terms.

    Terms of weight zero, and properties without labels in the batch, are not computed.

    Args:
        predictions: predicted properties of the same structures.
        references: the labels.
        weights: weight of each term.
        n_labeled: number of structures with each label in all micro-batches of a step (`count_labeled`, summed over
            micro-batches and processes), so that the losses of the micro-batches add up to the loss of the step. None
            if this batch is the whole step.

    Returns:
        The weighted sum, and its unweighted terms by name (means over the structures with the label).
    """
    weights = weights.model_dump() if isinstance(weights, LossWeights) else weights
    n_labeled = count_labeled(references, weights) if n_labeled is None else n_labeled
    terms: dict[str, Tensor] = {}
    total = references.n_atoms.new_zeros((), dtype=torch.float64)
    for name in LOSS_TERMS:
        if weights.get(name, 0.0) <= 0 or getattr(references, name) is None:
            continue
        if getattr(predictions, name) is None and not bool(references.mask(name).any()):
            continue  # not predicted, because no structure of this batch has the label
        losses = per_structure_loss(predictions, references, name).to(torch.float64)
        terms[name] = losses.sum() / n_labeled[name].clamp(min=1)
        total = total + weights[name] * terms[name]
    if weights.get("regularizer", 0.0) > 0 and predictions.regularizer is not None:
        terms["regularizer"] = predictions.regularizer.to(torch.float64).sum() / n_labeled["regularizer"]
        total = total + weights["regularizer"] * terms["regularizer"]
    return total, terms


def masked_targets(references: Properties, weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Labels of the weighted terms with zeros for missing values (whose residual weights are zero).

    NaN or infinity in an existing label is kept, so that it is noticed.

    Args:
        references: the labels.
        weights: weight of each term.

    Returns:
        Labels by name of the term, Hessians excluded.
    """
    targets = {name: getattr(references, name) for name in _RESIDUAL_TERMS if weights.get(name, 0.0) > 0}
    return {
        name: _masked_difference(v, _broadcast_mask(references, name, v))
        for name, v in targets.items()
        if v is not None
    }


def _broadcast_mask(references: Properties, name: str, value: Tensor) -> Bool[Tensor, "*structures_or_atoms"]:
    """Mask of a label: per structure for energies and stress, otherwise per atom (and probe)."""
    mask = references.mask(name)
    if name in _PER_STRUCTURE:
        return mask
    return mask[..., segment_ids(references.n_atoms, value.shape[1 if name == "hvp" else 0])]


def residual_weights(
    references: Properties, weights: Mapping[str, float], n_labeled: Mapping[str, Int[Tensor, ""]]
) -> dict[str, Tensor]:
    """Factors of the squared residuals in `weighted_loss`, for terms other than Hessians.

    The loss is the sum of factor times squared difference. The factors contain all effects of masks, sizes and weights,
    and do not depend on predictions.

    Args:
        references: the labels.
        weights: weight of each term.
        n_labeled: see `weighted_loss`.

    Returns:
        Factors by name of the term, broadcastable to the label; for "regularizer" one per structure.
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
    """The difference; zero, with zero gradient, where the label is missing (NaN)."""
    return torch.where(mask.reshape(*mask.shape, *([1] * (difference.dim() - mask.dim()))), difference, 0.0)


def _segment_sum(values: Float[Tensor, "items"], segment_index: Tensor, structures: int) -> Float[Tensor, "structures"]:
    return values.new_zeros(structures).index_add(0, segment_index, values)
