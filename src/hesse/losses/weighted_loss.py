"""The loss of predictions for one batch, as a function: for evaluation, tests and training loops of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from hesse.errors import ConfigError, MissingLabelError
from hesse.losses.loss import Loss, matched_predictions
from hesse.losses.terms import LossTerm, term_names
from hesse.structures import Batch, Properties, segment_ids

__all__ = ["default_loss", "per_structure_loss", "weighted_loss"]


class NamedWeights(Protocol):
    """Weights of the terms by name, as `LossWeights`."""

    def by_name(self) -> dict[str, float]:
        """The weights by name of the term."""


_DEFAULTS: dict[tuple[str, ...], Loss] = {}


def default_loss() -> Loss:
    """Squared errors of all quantities and the regularizer, each with weight one.

    Returns:
        The loss.
    """
    names = tuple(term_names())
    if names not in _DEFAULTS:
        _DEFAULTS[names] = Loss(LossTerm(quantity=name) for name in names)
    return _DEFAULTS[names]


def weighted_loss(
    predictions: Properties,
    references: Properties,
    weights: Mapping[str, float] | Loss | NamedWeights,
    counts: Mapping[str, Tensor] | None = None,
    *,
    batch: Batch | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """The loss of a batch and its unweighted terms.

    Terms of weight zero, and properties without labels in the batch, are not computed.

    Args:
        predictions: predicted properties of the same structures.
        references: the labels.
        weights: weight of each term by its name (a mapping or `LossWeights`), of squared errors; or a `Loss` with its
            own terms.
        counts: see `Loss.counts`, summed over all batches of a step, so that their losses add up; None if this batch is
            the whole step.
        batch: the structures, for stress (volumes of cells) and mass-weighted terms.

    Returns:
        The weighted sum, and its unweighted terms by name (means over the structures with the label).

    Raises:
        MissingLabelError: a prediction, or the batch of structures, is missing.
        ConfigError: a weight of a term that does not exist.
    """
    loss = weights if isinstance(weights, Loss) else default_loss()
    values = weights.weights() if isinstance(weights, Loss) else _as_mapping(weights)
    counts = loss.counts(references, values) if counts is None else counts
    terms = [
        term
        for term in loss.active(references, values)
        # Not predicted, because no structure of this batch has the label, or the potential has no regularizer.
        if predictions[term.quantity] is not None
        or (loss.entries[term.name].role == "label" and bool(references.mask(term.quantity).any()))
    ]
    values = {term.name: values[term.name] for term in terms}
    factors = loss.factors(references, values, counts, batch)
    matched = matched_predictions(predictions, references, [loss.entries[term.name] for term in terms])
    means = loss.means(matched, loss.targets(references, values, batch), factors)
    total = loss.total(means, values)
    if total is None:
        total = references.n_atoms.new_zeros((), dtype=torch.float64)
    return total, loss.values(means)


def _as_mapping(weights: Mapping[str, float] | NamedWeights) -> dict[str, float]:
    values = dict(weights) if isinstance(weights, Mapping) else weights.by_name()
    unknown = values.keys() - set(term_names())
    if unknown:
        raise ConfigError(f"there is no loss term of {min(unknown)!r}; terms: {', '.join(term_names())}")
    return values


def per_structure_loss(
    predictions: Properties, references: Properties, name: str, batch: Batch | None = None
) -> Float[Tensor, "structures"]:
    """Normalized squared error of one property for each structure.

    Args:
        predictions: predicted properties.
        references: labels of the same structures; their weights are not used.
        name: name of the property.
        batch: the structures, for stress (volumes of cells).

    Returns:
        Errors, `[structures]`; zero for structures without the label.

    Raises:
        MissingLabelError: the property is missing in the predictions or the references.
    """
    loss = default_loss()
    if references[name] is None:
        raise MissingLabelError(f"the loss of {name} needs it among predictions and references")
    term, references = loss[name], references.replace(weight=None)
    matched = matched_predictions(predictions, references, [term.entry])[name]
    one = {name: torch.ones((), dtype=torch.int64, device=references.n_atoms.device)}
    factor = loss.factors(references, {name: 1.0}, one, batch)[name]
    target = loss.targets(references, {name: 1.0}, batch)[name]
    values = factor * (matched - target).square()
    if term.entry.per == "element":
        index = segment_ids(references.hessian_lengths())
    elif "atom" in term.entry.per:
        index = segment_ids(references.n_atoms, values.shape[1 if term.entry.per == "probe atom" else 0])
    else:
        index = torch.arange(len(references), device=values.device)
    if term.entry.per == "probe atom":
        values = values.sum(0)
    values = values.reshape(len(index), -1).sum(1)
    return values.new_zeros(len(references)).index_add(0, index, values)
