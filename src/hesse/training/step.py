"""Loss of a step and its gradient in the trained parameters, in one process or in several.

`LossAndGradient` is the step of one process. `DistributedGradient` adds losses and gradients of all processes, so that
they are those of all structures of the step.
"""

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

__all__ = ["DistributedGradient", "LossAndGradient", "MicroBatch", "count_labeled_structures", "request_for_loss"]

MicroBatch = tuple[Batch, Properties]
"""Structures and their labels. A step has one or more of them, and adds up their gradients."""


def request_for_loss(labels: Properties, weights: Mapping[str, float]) -> Request:
    """The predictions that the loss of a batch needs: only those with a weight and a label.

    Args:
        labels: labels of the batch.
        weights: weight of each loss term by name.

    Returns:
        The request for `hesse.curvature.evaluate`.
    """
    probes = None
    if weights["hvp"] > 0 and labels.hvp is not None and bool(labels.mask("hvp").any()):
        assert labels.probes is not None
        probes = torch.nan_to_num(labels.probes)  # absent pairs hold NaN; their products are masked in the loss
    return Request(
        energy=True,
        forces=weights["forces"] > 0 and labels.forces is not None,
        probes=probes,
        hessian=weights["hessian"] > 0 and labels.hessian is not None and bool(labels.mask("hessian").any()),
        atomic_energies=weights["atomic_energies"] > 0 and labels.atomic_energies is not None,
        stress=weights["stress"] > 0 and labels.stress is not None and bool(labels.mask("stress").any()),
    )


def count_labeled_structures(
    microbatches: Sequence[MicroBatch], weights: Mapping[str, float]
) -> dict[str, Int[Tensor, ""]]:
    """Number of structures with each weighted label, over several microbatches.

    Args:
        microbatches: structures and labels.
        weights: weight of each loss term by name.

    Returns:
        The numbers by name of the term; see `hesse.losses.count_labeled`.
    """
    total: dict[str, Tensor] = {}
    for _, labels in microbatches:
        for name, count in count_labeled(labels, weights).items():
            total[name] = total[name] + count if name in total else count
    return total


class LossAndGradient:
    """Loss of a potential on labeled structures, and its gradient in the parameters.

    Args:
        potential: the potential; parameters with `requires_grad` are differentiated.
        compiled: the same as one compiled function; None for eager steps. Requests that it does not support (full
            Hessians: `CompiledLossAndGradient.unsupported_reason`) are evaluated eagerly.
        on_compile_failure: called with the reason if compilation or compiled code fails; this step and all later ones
            are then eager. None: the error is raised.
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
        """Compute the loss, and add its gradient to `.grad` of the parameters.

        Args:
            microbatches: structures to sum over. Each has its own graph, so that memory is that of the largest.
            weights: weight of each loss term by name.
            counts: numbers of labeled structures to divide by (`hesse.losses.weighted_loss`); None: those of
                `microbatches`.

        Returns:
            The loss and its unweighted terms by name, detached.
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
        if total.requires_grad:  # False if no structure has a weighted label
            # In parameters only: without `inputs`, third derivatives in positions would be computed as well.
            total.backward(inputs=self.trainable_parameters())
        return total.detach(), {name: value.detach() for name, value in terms.items()}

    def eager_reason(self, labels: Properties, weights: Mapping[str, float]) -> str:
        """The reason why a microbatch is evaluated eagerly.

        Args:
            labels: its labels.
            weights: weight of each loss term by name.

        Returns:
            The reason; empty if compiled code is used.
        """
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
        """The parameters with `requires_grad`.

        Returns:
            The parameters, in the order of the potential.
        """
        return [parameter for parameter in self.potential.parameters() if parameter.requires_grad]


_TERM_NAMES = (*LOSS_TERMS, "regularizer")


class DistributedGradient:
    """`LossAndGradient` over the structures of all processes; with one process it is just that.

    A loss term is a mean over the structures with the label. The numbers of these structures are summed over all
    processes first; with them, the losses and gradients of the processes add up (`hesse.losses.weighted_loss`).

    Args:
        gradient: loss and gradient of one process.
        communicator: the processes. Each of them has its own microbatches, or none.
    """

    def __init__(self, gradient: LossAndGradient, communicator: Communicator) -> None:
        self.gradient, self.communicator = gradient, communicator

    def __call__(
        self, microbatches: Sequence[MicroBatch], weights: Mapping[str, float]
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Compute the loss of all processes' structures; the summed gradient is in `.grad` of the parameters.

        Args:
            microbatches: structures of this process.
            weights: weight of each loss term by name.

        Returns:
            The loss and its unweighted terms by name, detached, the same in all processes.
        """
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
        # A gradient that no process has stays None, as with one process: the optimizer skips such parameters.
        for parameter, is_present in zip(parameters, present[len(_TERM_NAMES) :], strict=True):
            if not is_present:
                parameter.grad = None
        return values[0], {
            n: v for n, v, is_present in zip(_TERM_NAMES, values[1:].unbind(), present, strict=False) if is_present
        }

    def _global_counts(
        self, microbatches: Sequence[MicroBatch], weights: Mapping[str, float], device: torch.device
    ) -> dict[str, Int[Tensor, ""]]:
        """Number of structures of all processes with each weighted label."""
        local = count_labeled_structures(microbatches, weights)
        zero = torch.zeros((), dtype=torch.int64, device=device)
        total = self.communicator.all_reduce_sum(torch.stack([local.get(name, zero) for name in _TERM_NAMES]))
        return dict(zip(_TERM_NAMES, total.unbind(), strict=True))

    def _all_reduce_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Sum gradients over processes, in one message per dtype."""
        for dtype in sorted({p.dtype for p in parameters}, key=str):
            group = [p for p in parameters if p.dtype == dtype]
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in group]
            flat = self.communicator.all_reduce_sum(torch.cat([gradient.reshape(-1) for gradient in gradients]))
            for parameter, gradient in zip(group, flat.split([p.numel() for p in group]), strict=True):
                parameter.grad = gradient.view_as(parameter)
