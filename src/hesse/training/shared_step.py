"""A gradient step that several processes share: loss, terms and gradient are those of all their structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hesse.losses import LOSS_TERMS
from hesse.training.processes import Communicator
from hesse.training.step import LossAndGradient, MicroBatch, count_labeled_structures

__all__ = ["DistributedGradient"]

_TERM_NAMES = (*LOSS_TERMS, "penalty")


class DistributedGradient:
    """`GradientStep` over the structures of all processes. With one process it is that step and nothing else.

    Terms are means over the structures that hold a label, wherever they are: the numbers of holders are summed first,
    with them the losses of the processes add up (`hesse.losses.weighted_loss`), and so do their gradients.

    Args:
        gradient: the step of one process.
        processes: who shares it; each with parts of its own, which may be none.
    """

    def __init__(self, gradient: LossAndGradient, communicator: Communicator) -> None:
        self.gradient, self.communicator = gradient, communicator

    def __call__(
        self, microbatches: Sequence[MicroBatch], weights: Mapping[str, float]
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The loss of all parts and its unweighted terms; the sum of gradients is in `.grad` of the parameters."""
        if self.communicator.size == 1:
            return self.gradient(microbatches, weights)
        device = next(self.gradient.potential.parameters()).device
        counts = self._global_counts(microbatches, weights, device)
        zero = torch.zeros((), dtype=torch.float64, device=device)
        total, terms = self.gradient(microbatches, weights, counts) if microbatches else (zero, {})
        parameters = self.gradient.trainable_parameters()
        has_gradient = [p.grad is not None for p in parameters]
        self._all_reduce_gradients(parameters)
        flags = torch.tensor([*(name in terms for name in _TERM_NAMES), *has_gradient], dtype=torch.float64, device=device)
        local = torch.stack([total, *(terms.get(name, zero) for name in _TERM_NAMES)]).to(torch.float64)
        values, n_present = self.communicator.all_reduce_sum(torch.cat([local, flags])).split([len(local), len(flags)])
        present = [count > 0 for count in n_present.tolist()]
        # What no process has is absent, as it is with one process, and not zero: the optimiser passes it over.
        for parameter, is_present in zip(parameters, present[len(_TERM_NAMES) :], strict=True):
            if not is_present:
                parameter.grad = None
        return values[0], {n: v for n, v, there in zip(_TERM_NAMES, values[1:].unbind(), present, strict=False) if there}

    def _global_counts(
        self, microbatches: Sequence[MicroBatch], weights: Mapping[str, float], device: torch.device
    ) -> dict[str, Int[Tensor, ""]]:
        local = count_labeled_structures(microbatches, weights)
        zero = torch.zeros((), dtype=torch.int64, device=device)
        total = self.communicator.all_reduce_sum(torch.stack([local.get(name, zero) for name in _TERM_NAMES]))
        return dict(zip(_TERM_NAMES, total.unbind(), strict=True))

    def _all_reduce_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """In one message for each type of number."""
        for dtype in sorted({p.dtype for p in parameters}, key=str):
            group = [p for p in parameters if p.dtype == dtype]
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in group]
            flat = self.communicator.all_reduce_sum(torch.cat([slope.reshape(-1) for slope in gradients]))
            for parameter, gradient in zip(group, flat.split([p.numel() for p in group]), strict=True):
                parameter.grad = gradient.view_as(parameter)
