"""The heart of a step: the loss of some structures and its gradient in the trained parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hesse.curvature import evaluate
from hesse.errors import CompilationError
from hesse.losses import LOSS_TERMS, count_labeled, weighted_loss
from hesse.potential import Potential
from hesse.structures import Batch, Properties, Request
from hesse.training.compiled_step import CompiledLossAndGradient
from hesse.training.distributed import Communicator
from hesse.training.run_setup import request_for_loss

__all__ = ["DistributedGradient", "LossAndGradient", "MicroBatch", "count_labeled_structures"]

MicroBatch = tuple[Batch, Properties]
"""Structures and their labels. A step may have several: their gradients add up."""


def count_labeled_structures(
    microbatches: Sequence[MicroBatch], weights: Mapping[str, float]
) -> dict[str, Int[Tensor, ""]]:
    """How many structures of all parts hold each weighted label (see `hesse.losses.holders`)."""
    total: dict[str, Tensor] = {}
    for _, labels in microbatches:
        for name, count in count_labeled(labels, weights).items():
            total[name] = total[name] + count if name in total else count
    return total


class LossAndGradient:
    """Energies, forces and Hessian-vector products of a potential, their loss, and its gradient in parameters.

    Args:
        potential: differentiated in those of its parameters that have `requires_grad`.
        compiled: the same in one compiled function; None for eager steps. What cannot be compiled (full Hessians:
            `CompiledLossAndGradient.unsupported_reason`) is differentiated eagerly all the same.
        given_up: called with the reason where the compiler, or what it made, fails. That step and all later ones are
            eager then; None to raise the error instead.
    """

    def __init__(
        self,
        potential: Potential,
        compiled: CompiledLossAndGradient | None = None,
        *,
        on_compile_failure: Callable[[str], None] | None = None,
    ) -> None:
        self.potential, self.compiled, self.on_compile_failure = potential, compiled, on_compile_failure

    def __call__(
        self,
        microbatches: Sequence[MicroBatch],
        weights: Mapping[str, float],
        counts: Mapping[str, Int[Tensor, ""]] | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The loss and its unweighted terms, detached; the gradient is added to `.grad` of the parameters.

        Args:
            parts: what to sum over; each is a graph of its own, so that memory is that of the largest.
            weights: of the terms.
            counts: see `hesse.losses.weighted_loss`; None where the parts are all there is.
        """
        counts = count_labeled_structures(microbatches, weights) if counts is None else counts
        totals: list[Tensor] = []
        sums: dict[str, Tensor] = {}
        for batch, labels in microbatches:
            total, terms = self._backward(batch, labels, weights, counts)
            totals.append(total)
            for name, value in terms.items():
                sums[name] = sums[name] + value if name in sums else value
        return sum(totals[1:], totals[0]), sums

    def _backward(
        self, batch: Batch, labels: Properties, weights: Mapping[str, float], counts: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        request = request_for_loss(labels, weights)
        if self.compiled is not None and not self.compiled.unsupported_reason(request):
            return self._compiled_backward(self.compiled, batch, labels, request, weights, counts)
        total, terms = self._loss(batch, labels, request, weights, counts)
        if total.requires_grad:  # not where no structure holds a weighted label
            # In parameters only: the third derivative in positions would be computed and thrown away.
            total.backward(inputs=self.trainable_parameters())
        return total.detach(), {name: value.detach() for name, value in terms.items()}

    def eager_reason(self, labels: Properties, weights: Mapping[str, float]) -> str:
        """Why these structures are differentiated eagerly; empty where they go through compiled code."""
        if self.compiled is None:
            return "steps are eager"
        return self.compiled.unsupported_reason(request_for_loss(labels, weights))

    def _compiled_backward(
        self,
        compiled: CompiledLossAndGradient,
        batch: Batch,
        labels: Properties,
        request: Request,
        weights: Mapping[str, float],
        counts: Mapping[str, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        try:
            total, terms, gradients = compiled(batch, labels, request, weights, counts)
        except CompilationError as error:
            if self.on_compile_failure is None:
                raise
            self.compiled = None
            self.on_compile_failure(str(error))
            return self._backward(batch, labels, weights, counts)
        for name, gradient in gradients.items():
            parameter = self.potential.get_parameter(name)
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return total, terms

    def _loss(
        self,
        batch: Batch,
        labels: Properties,
        request: Request,
        weights: Mapping[str, float],
        counts: Mapping[str, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        predictions = evaluate(self.potential, batch, request, create_graph=True)
        return weighted_loss(predictions, labels, weights, counts)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters that the gradient is taken in."""
        return [parameter for parameter in self.potential.parameters() if parameter.requires_grad]


_TERM_NAMES = (*LOSS_TERMS, "regularizer")


class DistributedGradient:
    """`LossAndGradient` over the structures of all processes. With one process it is that step and nothing else.

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
        flags = torch.tensor(
            [*(name in terms for name in _TERM_NAMES), *has_gradient], dtype=torch.float64, device=device
        )
        local = torch.stack([total, *(terms.get(name, zero) for name in _TERM_NAMES)]).to(torch.float64)
        values, n_present = self.communicator.all_reduce_sum(torch.cat([local, flags])).split([len(local), len(flags)])
        present = [count > 0 for count in n_present.tolist()]
        # What no process has is absent, as it is with one process, and not zero: the optimizer passes it over.
        for parameter, is_present in zip(parameters, present[len(_TERM_NAMES) :], strict=True):
            if not is_present:
                parameter.grad = None
        return values[0], {
            n: v for n, v, is_present in zip(_TERM_NAMES, values[1:].unbind(), present, strict=False) if is_present
        }

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
            flat = self.communicator.all_reduce_sum(torch.cat([gradient.reshape(-1) for gradient in gradients]))
            for parameter, gradient in zip(group, flat.split([p.numel() for p in group]), strict=True):
                parameter.grad = gradient.view_as(parameter)


# MERGED DOCSTRING (fold into the module docstring): """A gradient step that several processes share: loss, terms and gradient are those of all their structures."""
