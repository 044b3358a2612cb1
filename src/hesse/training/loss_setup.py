"""Before the first step of a run: are all terms in the loss, how many structures hold them, and measured weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from hesse.datasets import DatasetLike
from hesse.errors import ConfigError
from hesse.losses import Loss, LossTerm, LossWeights
from hesse.training.compile_policy import state_restored
from hesse.training.loader import TrainingLoader
from hesse.training.replay_data import CURVATURE
from hesse.training.step import LossAndGradient, sum_counts

__all__ = ["TermStart", "balanced_weights", "describe_terms", "measure_terms", "set_up_loss"]

BATCHES = 4
"""Batches over which the norms of gradients are averaged."""
MAX_BATCHES = 20
"""Batches in which a gradient is looked for, if it is not averaged."""
UNUSUAL_RATIO = 30.0
"""Measured weights that differ by more than this factor from the default ones get a remark. In the loss study forces of
critical points got 2,000 times their default weight, and curvature and energies suffered."""
NEGLIGIBLE = 1e-20
"""A term below it is rounding error, for example of molecules whose atoms are farther apart than the cutoff."""


@dataclass(frozen=True)
class TermStart:
    """A term of the loss before the first step.

    Attributes:
        value: the unweighted term, mean over the batches.
        gradient_norm: root mean square over the batches of the norm of its gradient in the parameters.
    """

    value: float
    gradient_norm: float


def set_up_loss(
    gradient: LossAndGradient,
    loader: TrainingLoader,
    data: DatasetLike,
    *,
    replay: tuple[TrainingLoader, DatasetLike] | None = None,
    fresh_probes: bool,
    balance: bool,
) -> tuple[dict[str, float], Sequence[str]]:
    """Check that every term is in the loss, and measure the weights if that is requested. Process 0 does it for all.

    Args:
        gradient: loss and gradient.
        loader: the loader of the run.
        data: training data.
        replay: loader and data of replay steps, if any, for terms whose label the training data lack.
        fresh_probes: whether products are computed from Hessians.
        balance: whether to measure the weights.

    Returns:
        Weight of each term by name, and lines for the record of the run.

    Raises:
        ConfigError: see `measure_terms` and `balanced_weights`.
    """
    own, other = gradient.loss.terms, tuple[LossTerm, ...]()
    if replay is not None:
        own = tuple(term for term in gradient.loss if _count(term, data, fresh_probes) or term.quantity in CURVATURE)
        other = tuple(term for term in gradient.loss if term not in own)

    def measure() -> dict[str, TermStart]:
        found = measure_terms(gradient, loader, data, fresh_probes=fresh_probes, average=balance, terms=own)
        if replay is not None and other:
            found |= measure_terms(gradient, *replay, fresh_probes=fresh_probes, average=balance, terms=other)
        return {term.name: found[term.name] for term in gradient.loss}

    started = gradient.communicator.run_on_rank_zero(measure)
    weights = balanced_weights(gradient.loss, started) if balance else gradient.loss.weights()
    lines = describe_terms(
        gradient.loss, data, weights, replay=replay and replay[1], fresh_probes=fresh_probes, balanced=balance
    )
    return weights, lines


def measure_terms(
    gradient: LossAndGradient,
    loader: TrainingLoader,
    data: DatasetLike,
    *,
    fresh_probes: bool,
    average: bool,
    terms: Sequence[LossTerm] | None = None,
) -> dict[str, TermStart]:
    """Evaluate each term of the loss alone, on batches that hold its label.

    Parameters, gradients and the state of random generators do not change.

    Args:
        gradient: loss and gradient; evaluated eagerly, in this process alone.
        loader: the loader of the run.
        data: training data.
        fresh_probes: whether products are computed from Hessians.
        average: average over several batches; otherwise the first batch with a gradient is enough.
        terms: the terms to measure; None for all.

    Returns:
        Value and gradient norm of each term, by name.

    Raises:
        ConfigError: a term with a weight is not in the loss, or all structures with its label have the weight zero.
    """
    batches = loader.epoch(0)
    result: dict[str, TermStart] = {}
    for term in gradient.loss.terms if terms is None else terms:
        held = _holders(term, data, fresh_probes)
        values: list[float] = []
        squares: list[float] = []
        with state_restored(gradient):
            for indices in batches:
                if not bool(held[torch.as_tensor(indices)].any()):
                    continue
                if len(values) == (BATCHES if average else MAX_BATCHES):
                    break
                for parameter in gradient.potential.parameters():
                    parameter.grad = None
                # All structures with the label, also if only a part of them is drawn in the steps of the run.
                labeled = indices[held[torch.as_tensor(indices)].numpy()]
                microbatches = loader.load(labeled, 0, only=labeled)
                weights = {term.name: 1.0}
                counts = sum_counts(gradient.loss, microbatches, weights)
                if not float(counts[term.name]) > 0:
                    continue
                total, by_name = gradient(microbatches, weights, counts)
                if term.name not in by_name:
                    raise ConfigError(
                        f"the loss term {term.name} has a weight, but is not in the loss: the potential does not "
                        f"predict {term.quantity}. Set its weight to zero, or use another potential."
                    )
                norms = [p.grad.norm() for p in gradient.trainable_parameters() if p.grad is not None]
                values.append(float(total))
                squares.append(float(torch.stack(norms).square().sum()) if norms else 0.0)
                if not average and squares[-1] > 0:  # a few structures may have no gradient
                    break
        if not values:
            raise ConfigError(
                f"the loss term {term.name} has a weight, but no structure counts in it: all structures with this "
                "label have the weight zero. Set the weight of the term to zero, or change those of the structures."
            )
        result[term.name] = TermStart(sum(values) / len(values), math.sqrt(sum(squares) / len(squares)))
        if result[term.name].gradient_norm == 0.0 and result[term.name].value > NEGLIGIBLE:
            warnings.warn(
                f"the loss term {term.name} does not depend on any trained parameter: its gradient is zero",
                RuntimeWarning,
                stacklevel=2,
            )
    return result


def balanced_weights(loss: Loss, terms: Mapping[str, TermStart]) -> dict[str, float]:
    """Weights with which the gradients of all terms have the same norm before the first step, times their factors.

    The first term keeps its default weight, so that the loss has its usual size.

    Args:
        loss: the loss; its weights are the factors.
        terms: see `measure_terms`.

    Returns:
        Weight of each term by name.

    Raises:
        ConfigError: a term has no gradient.
    """
    zero = [name for name, term in terms.items() if not 0.0 < term.gradient_norm < math.inf]
    if zero:
        raise ConfigError(
            f"weights: balance is not possible, because the gradient of {zero[0]} is {terms[zero[0]].gradient_norm:g} "
            "before the first step. Give the weights as numbers."
        )
    first, *_ = loss
    default = LossWeights().by_name().get(first.quantity, 0.0) or 1.0
    scale = default * terms[first.name].gradient_norm
    return {term.name: term.weight * scale / terms[term.name].gradient_norm for term in loss}


def describe_terms(
    loss: Loss,
    data: DatasetLike,
    weights: Mapping[str, float],
    *,
    replay: DatasetLike | None = None,
    fresh_probes: bool,
    balanced: bool,
) -> Sequence[str]:
    """Lines about the terms of the loss, for the record of a run.

    Args:
        loss: the loss.
        data: training data.
        weights: weight of each term by name.
        replay: replay data, if any; they are named for terms whose label the training data lack.
        fresh_probes: whether products are computed from Hessians.
        balanced: whether the weights were measured.

    Returns:
        One line about the terms, their weights and the numbers of structures that hold their labels; for measured
        weights another one with their ratios, and a remark about unusual ones.
    """
    parts = []
    for term in loss:
        form = "" if term.form == "mse" else f" {term.form}"
        holders = f"{_count(term, data, fresh_probes)} of {len(data)} structures"
        if replay is not None and not _count(term, data, fresh_probes):
            holders = f"{_count(term, replay, fresh_probes)} of {len(replay)} replay structures"
        parts.append(f"{term.name}{form} {weights[term.name]:.3g} ({holders})")
    lines = [f"loss terms and weights: {', '.join(parts)}"]
    if balanced:
        first = weights[loss.terms[0].name]
        ratios = " : ".join(f"{weights[term.name] / first:.3g}" for term in loss)
        lines.append(f"weights balanced: {' : '.join(term.name for term in loss)} = {ratios}")
        usual = LossWeights().by_name()
        unusual = []
        for term in loss:
            unit = usual.get(term.quantity, 0.0) / (usual.get(loss.terms[0].quantity, 0.0) or 1.0)
            measured = weights[term.name] / first
            if unit > 0 and not 1 / UNUSUAL_RATIO < measured / (unit * term.weight) < UNUSUAL_RATIO:
                unusual.append(f"{term.name} {measured / unit:.3g}")
        if unusual:
            lines.append(
                f"unusual weights, in units of the default ones with {loss.terms[0].name} 1: {', '.join(unusual)}. "
                "Gradients before the first step can say little about a term (forces of relaxed structures, energies "
                "of a new network): consider numbers (docs/choosing-weights.md)"
            )
    return lines


def _holders(term: LossTerm, data: DatasetLike, fresh_probes: bool) -> torch.Tensor:
    """Which structures have the label of a term; fresh probes make products of Hessians."""
    if term.entry.role == "output":
        return torch.ones(len(data), dtype=torch.bool)
    mask = data.mask(term.quantity)
    mask = mask.any(0) if mask.dim() == 2 else mask
    return mask | data.mask("hessian") if term.quantity == "hvp" and fresh_probes else mask


def _count(term: LossTerm, data: DatasetLike, fresh_probes: bool) -> int:
    """Number of structures with the label of a term."""
    return int(_holders(term, data, fresh_probes).sum())
