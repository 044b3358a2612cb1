"""The heart of a step: the loss of some structures and its gradient in the trained parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn

from hesse.curvature import evaluate
from hesse.errors import CompilationError
from hesse.losses import holders, weighted_loss
from hesse.potential import Potential
from hesse.structures import Batch, Labels, Request
from hesse.training.compiled import CompiledGradient
from hesse.training.set_up import request_for

__all__ = ["GradientStep", "Part", "counts_of"]

Part = tuple[Batch, Labels]
"""Structures and their labels. A step may have several: their gradients add up."""


def counts_of(parts: Sequence[Part], weights: Mapping[str, float]) -> dict[str, Int[Tensor, ""]]:
    """How many structures of all parts hold each weighted label (see `hesse.losses.holders`)."""
    total: dict[str, Tensor] = {}
    for _, labels in parts:
        for name, count in holders(labels, weights).items():
            total[name] = total[name] + count if name in total else count
    return total


class GradientStep:
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
        compiled: CompiledGradient | None = None,
        *,
        given_up: Callable[[str], None] | None = None,
    ) -> None:
        self.potential, self.compiled, self.given_up = potential, compiled, given_up

    def __call__(
        self, parts: Sequence[Part], weights: Mapping[str, float], counts: Mapping[str, Int[Tensor, ""]] | None = None
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The loss and its unweighted terms, detached; the gradient is added to `.grad` of the parameters.

        Args:
            parts: what to sum over; each is a graph of its own, so that memory is that of the largest.
            weights: of the terms.
            counts: see `hesse.losses.weighted_loss`; None where the parts are all there is.
        """
        counts = counts_of(parts, weights) if counts is None else counts
        totals: list[Tensor] = []
        sums: dict[str, Tensor] = {}
        for batch, labels in parts:
            total, terms = self._differentiated(batch, labels, weights, counts)
            totals.append(total)
            for name, value in terms.items():
                sums[name] = sums[name] + value if name in sums else value
        return sum(totals[1:], totals[0]), sums

    def _differentiated(
        self, batch: Batch, labels: Labels, weights: Mapping[str, float], counts: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        request = request_for(labels, weights)
        if self.compiled is not None and not self.compiled.why_not(request):
            return self._compiled(self.compiled, batch, labels, request, weights, counts)
        total, terms = self._loss(batch, labels, request, weights, counts)
        if total.requires_grad:  # not where no structure holds a weighted label
            # In parameters only: the third derivative in positions would be computed and thrown away.
            total.backward(inputs=self.trained())
        return total.detach(), {name: value.detach() for name, value in terms.items()}

    def why_eager(self, labels: Labels, weights: Mapping[str, float]) -> str:
        """Why these structures are differentiated eagerly; empty where they go through compiled code."""
        if self.compiled is None:
            return "steps are eager"
        return self.compiled.why_not(request_for(labels, weights))

    def _compiled(
        self,
        compiled: CompiledGradient,
        batch: Batch,
        labels: Labels,
        request: Request,
        weights: Mapping[str, float],
        counts: Mapping[str, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        try:
            total, terms, slopes = compiled(batch, labels, request, weights, counts)
        except CompilationError as error:
            if self.given_up is None:
                raise
            self.compiled = None
            self.given_up(str(error))
            return self._differentiated(batch, labels, weights, counts)
        for name, slope in slopes.items():
            parameter = self.potential.get_parameter(name)
            parameter.grad = slope if parameter.grad is None else parameter.grad + slope
        return total, terms

    def _loss(
        self,
        batch: Batch,
        labels: Labels,
        request: Request,
        weights: Mapping[str, float],
        counts: Mapping[str, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        predictions = evaluate(self.potential, batch, request, create_graph=True)
        return weighted_loss(predictions, labels, weights, counts)

    def trained(self) -> list[nn.Parameter]:
        """The parameters that the gradient is taken in."""
        return [parameter for parameter in self.potential.parameters() if parameter.requires_grad]
