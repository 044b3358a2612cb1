"""Several potentials asked the same question: what they say on average, and how far they lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from hesse.curvature.evaluate import evaluate
from hesse.errors import RequestError
from hesse.potential import Potential
from hesse.structures import Batch, Labels, Request

__all__ = ["Committee", "committee"]


@dataclass(frozen=True)
class Committee:
    """Answers of several potentials to one request.

    Attributes:
        mean: of energy, forces, Hessian-vector products, Hessians, ... over the members.
        spread: their standard deviation over the members (n − 1), element by element, in the same record. Probes are
            the same in both.
    """

    mean: Labels
    spread: Labels


def committee(
    potentials: Sequence[Potential], batch: Batch, request: Request, *, memory_mib: float | None = None
) -> Committee:
    """Mean and spread of what `potentials` (the parts of an `Ensemble`, say) answer.

    Args:
        potentials: two or more.
        batch: structures, with neighbours up to the longest cutoff.
        request: what to compute.
        memory_mib: see `evaluate`.

    Raises:
        RequestError: fewer than two potentials; and all that `evaluate` raises.
    """
    if len(potentials) < 2:
        raise RequestError(f"a spread needs two potentials or more, got {len(potentials)}")
    answers = [evaluate(p, batch, request, memory_mib=memory_mib).map(Tensor.double) for p in potentials]
    mean, spread = {}, {}
    for field in fields(Labels):
        values = [getattr(answer, field.name) for answer in answers]
        if field.name in ("probes", "penalty") or any(v is None or not v.is_floating_point() for v in values):
            continue
        stacked = torch.stack(values)
        mean[field.name], spread[field.name] = stacked.mean(0), stacked.std(0)
    first = replace(answers[0], penalty=None)
    return Committee(mean=replace(first, **mean), spread=replace(first, **spread))
