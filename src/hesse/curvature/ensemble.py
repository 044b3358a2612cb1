"""Mean and standard deviation of the predictions of several potentials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hesse.curvature.energy_derivatives import evaluate
from hesse.errors import RequestError
from hesse.potential import Potential
from hesse.structures import Batch, Properties, Request

__all__ = ["EnsemblePrediction", "evaluate_ensemble", "mean_and_std"]


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
    return mean_and_std([evaluate(p, batch, request, memory_mib=memory_mib) for p in potentials])


def mean_and_std(predictions: Sequence[Properties]) -> EnsemblePrediction:
    """Mean and standard deviation of several predictions for the same structures.

    Args:
        predictions: two or more, with the same properties and probes.

    Returns:
        Mean and standard deviation in float64 (eV, Å).
    """
    predictions = [prediction.map_tensors(Tensor.double) for prediction in predictions]
    mean, std = {}, {}
    for column, _ in predictions[0].items():
        if column.kind == "value" and column.quantity.role == "label":
            stacked = torch.stack([prediction.__dict__[column.name] for prediction in predictions])
            mean[column.name], std[column.name] = stacked.mean(0), stacked.std(0)
    first = predictions[0].replace(regularizer=None)
    return EnsemblePrediction(mean=first.replace(**mean), std=first.replace(**std))
