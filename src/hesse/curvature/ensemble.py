"""Mean and standard deviation of the predictions of several potentials."""

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
    """Predictions of an ensemble of potentials.

    Attributes:
        mean: mean of energy, forces, Hessian-vector products, Hessians, ... over the members.
        std: their standard deviation over the members (divisor n − 1), element by element. The probes are those of the
            request.
    """

    mean: Properties
    std: Properties


def evaluate_ensemble(
    potentials: Sequence[Potential], batch: Batch, request: Request, *, memory_mib: float | None = None
) -> EnsemblePrediction:
    """Mean and standard deviation of the predictions of several potentials.

    Args:
        potentials: two or more, such as the parts of an `Ensemble`.
        batch: structures, with neighbors up to the largest cutoff of all potentials.
        request: properties to compute.
        memory_mib: see `evaluate`.

    Returns:
        Mean and standard deviation in float64 (eV, Å).

    Raises:
        RequestError: fewer than two potentials.
        HesseError: see `evaluate`.
    """
    if len(potentials) < 2:
        raise RequestError(f"a standard deviation needs two potentials or more, got {len(potentials)}")
    predictions = [evaluate(p, batch, request, memory_mib=memory_mib).map_tensors(Tensor.double) for p in potentials]
    mean, std = {}, {}
    for field in fields(Properties):
        values = [getattr(prediction, field.name) for prediction in predictions]
        if field.name in ("probes", "regularizer") or any(v is None or not v.is_floating_point() for v in values):
            continue
        stacked = torch.stack(values)
        mean[field.name], std[field.name] = stacked.mean(0), stacked.std(0)
    first = replace(predictions[0], regularizer=None)
    return EnsemblePrediction(mean=replace(first, **mean), std=replace(first, **std))
