"""A gradient step that several processes share: loss, terms and gradient are those of all their structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hesse.losses import TERMS
from hesse.training.processes import Processes
from hesse.training.step import GradientStep, Part, counts_of

__all__ = ["SharedStep"]

_NAMES = (*TERMS, "penalty")


class SharedStep:
    """`GradientStep` over the structures of all processes. With one process it is that step and nothing else.

    Terms are means over the structures that hold a label, wherever they are: the numbers of holders are summed first,
    with them the losses of the processes add up (`hesse.losses.weighted_loss`), and so do their gradients.

    Args:
        gradient: the step of one process.
        processes: who shares it; each with parts of its own, which may be none.
    """

    def __init__(self, gradient: GradientStep, processes: Processes) -> None:
        self.gradient, self.processes = gradient, processes

    def __call__(
        self, parts: Sequence[Part], weights: Mapping[str, float]
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The loss of all parts and its unweighted terms; the sum of gradients is in `.grad` of the parameters."""
        if self.processes.size == 1:
            return self.gradient(parts, weights)
        device = next(self.gradient.potential.parameters()).device
        counts = self._holders(parts, weights, device)
        zero = torch.zeros((), dtype=torch.float64, device=device)
        total, terms = self.gradient(parts, weights, counts) if parts else (zero, {})
        trained = self.gradient.trained()
        has_gradient = [p.grad is not None for p in trained]
        self._sum_gradients(trained)
        flags = torch.tensor([*(name in terms for name in _NAMES), *has_gradient], dtype=torch.float64, device=device)
        mine = torch.stack([total, *(terms.get(name, zero) for name in _NAMES)]).to(torch.float64)
        values, holders = self.processes.sum(torch.cat([mine, flags])).split([len(mine), len(flags)])
        somewhere = [count > 0 for count in holders.tolist()]
        # What no process has is absent, as it is with one process, and not zero: the optimiser passes it over.
        for parameter, there in zip(trained, somewhere[len(_NAMES) :], strict=True):
            if not there:
                parameter.grad = None
        return values[0], {n: v for n, v, there in zip(_NAMES, values[1:].unbind(), somewhere, strict=False) if there}

    def _holders(
        self, parts: Sequence[Part], weights: Mapping[str, float], device: torch.device
    ) -> dict[str, Int[Tensor, ""]]:
        mine = counts_of(parts, weights)
        none = torch.zeros((), dtype=torch.int64, device=device)
        total = self.processes.sum(torch.stack([mine.get(name, none) for name in _NAMES]))
        return dict(zip(_NAMES, total.unbind(), strict=True))

    def _sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """In one message for each type of number."""
        for dtype in sorted({p.dtype for p in parameters}, key=str):
            group = [p for p in parameters if p.dtype == dtype]
            slopes = [torch.zeros_like(p) if p.grad is None else p.grad for p in group]
            flat = self.processes.sum(torch.cat([slope.reshape(-1) for slope in slopes]))
            for parameter, slope in zip(group, flat.split([p.numel() for p in group]), strict=True):
                parameter.grad = slope.view_as(parameter)
