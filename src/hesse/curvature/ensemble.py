"""Several potentials asked the same question: what they say on average, and how far they lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from hesse.curvature.energy_derivatives import evaluate
from hesse.errors import RequestError
from hesse.potential import Potential
from hesse.structures import Batch, Properties, Request

__all__ = ["EnsemblePrediction", "evaluate_ensemble"]


@dataclass(frozen=True)
class EnsemblePrediction:
    """Answers of several potentials to one request.

    Attributes:
        mean: of energy, forces, Hessian-vector products, Hessians, ... over the members.
        spread: their standard deviation over the members (n − 1), element by element, in the same record. Probes are
            the same in both.
    """

    mean: Properties
    std: Properties


def evaluate_ensemble(
    potentials: Sequence[Potential], batch: Batch, request: Request, *, memory_mib: float | None = None
) -> EnsemblePrediction:
    """Mean and spread of what `potentials` (the parts of an `Ensemble`, say) answer.

    Args:
        potentials: two or more.
        batch: structures, with neighbors up to the longest cutoff.
        request: what to compute.
        memory_mib: see `evaluate`.

    Raises:
        RequestError: fewer than two potentials; and all that `evaluate` raises.
    """
    if len(potentials) < 2:
        raise RequestError(f"a spread needs two potentials or more, got {len(potentials)}")
    predictions = [evaluate(p, batch, request, memory_mib=memory_mib).map_tensors(Tensor.double) for p in potentials]
    mean, std = {}, {}
    for field in fields(Properties):
        values = [getattr(answer, field.name) for answer in predictions]
        if field.name in ("probes", "regularizer") or any(v is None or not v.is_floating_point() for v in values):
            continue
        stacked = torch.stack(values)
        mean[field.name], std[field.name] = stacked.mean(0), stacked.std(0)
    first = replace(predictions[0], regularizer=None)
    return EnsemblePrediction(mean=replace(first, **mean), std=replace(first, **std))
