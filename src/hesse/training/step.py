"""The heart of a step: the loss of some structures and its gradient in the trained parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn

from hesse.curvature import evaluate
from hesse.errors import CompilationError
from hesse.losses import count_labeled, weighted_loss
from hesse.potential import Potential
from hesse.structures import Batch, Properties, Request
from hesse.training.compiled import CompiledLossAndGradient
from hesse.training.set_up import request_for_loss

__all__ = ["LossAndGradient", "MicroBatch", "count_labeled_structures"]

MicroBatch = tuple[Batch, Properties]
"""Structures and their labels. A step may have several: their gradients add up."""


def count_labeled_structures(microbatches: Sequence[MicroBatch], weights: Mapping[str, float]) -> dict[str, Int[Tensor, ""]]:
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
            `CompiledGradient.why_not`) is differentiated eagerly all the same.
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
        self, microbatches: Sequence[MicroBatch], weights: Mapping[str, float], counts: Mapping[str, Int[Tensor, ""]] | None = None
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
