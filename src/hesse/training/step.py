"""Loss of a step and its gradient in the trained parameters: eager or compiled, in one process or in several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hesse.curvature import evaluate
from hesse.errors import CompilationError
from hesse.losses import Loss, default_loss, matched_predictions
from hesse.potential import Potential, dtype_and_device
from hesse.structures import Batch, Properties, Request
from hesse.training.compiled_step import CompiledLossAndGradient
from hesse.training.distributed import Communicator

__all__ = ["LossAndGradient", "MicroBatch", "request_for_loss", "sum_counts"]

MicroBatch = tuple[Batch, Properties]
"""Structures and their labels. A step has one or more of them, and adds up their gradients."""


def request_for_loss(loss: Loss, labels: Properties, weights: Mapping[str, float]) -> Request:
    """The predictions that the loss of a batch needs: only those with a weight and a label.

    Args:
        loss: the loss.
        labels: labels of the batch.
        weights: weight of each term by name.

    Returns:
        The request for `hesse.curvature.evaluate`.
    """
    needed = {term.quantity for term in loss.active(labels, weights)} - {"regularizer"}
    # A whole pass of derivatives is left out if no structure of this batch has the label.
    costly = {name for name in needed & {"hvp", "hessian", "stress"} if not bool(labels.mask(name).any())}
    flags = dict.fromkeys(needed - costly - {"energy", "hvp"}, True)
    probes = None
    if "hvp" in needed - costly:
        assert labels.probes is not None
        probes = torch.nan_to_num(labels.probes)  # absent pairs hold NaN; their products are masked in the loss
    return Request(energy=True, probes=probes, **flags)


def requested_weights(loss: Loss, request: Request, weights: Mapping[str, float]) -> dict[str, float]:
    """Weights of the terms whose predictions are requested.

    Args:
        loss: the loss.
        request: see `request_for_loss`.
        weights: weight of each term by name.

    Returns:
        The weights by name.
    """
    present = {"energy", "regularizer", *request.outputs}
    present |= {name for name in ("forces", "hessian", "atomic_energies", "stress") if getattr(request, name)}
    if request.probes is not None:
        present.add("hvp")
    return {name: weight for name, weight in weights.items() if weight > 0 and loss[name].quantity in present}


def sum_counts(loss: Loss, microbatches: Sequence[MicroBatch], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Numbers of structures with the label of each term (`Loss.counts`), over several microbatches.

    Args:
        loss: the loss.
        microbatches: structures and labels.
        weights: weight of each term by name.

    Returns:
        Scalars by name of the term.
    """
    total: dict[str, Tensor] = {}
    for _, labels in microbatches:
        _add(total, loss.counts(labels, weights))
    return total


def _add(total: dict[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Add scalars by name, in place."""
    for name, value in values.items():
        total[name] = total[name] + value if name in total else value


class LossAndGradient:
    """Loss of a potential on labeled structures, and its gradient in the parameters.

    A loss term is a mean over the structures with the label, of all microbatches of all processes. The numbers of these
    structures are summed first; with them, losses and gradients of microbatches and processes add up.

    Args:
        potential: the potential; parameters with `requires_grad` are differentiated.
        loss: the loss; None: squared errors of all labels.
        communicator: the processes that train together, each with its own microbatches, or none; None for this process
            alone.
        compiled: the same as one compiled function; None for eager steps. Requests that it does not support (full
            Hessians: `CompiledLossAndGradient.unsupported_reason`) are evaluated eagerly.
        on_compile_failure: called with the reason if compilation or compiled code fails; this step and all later ones
            are then eager. None: the error is raised.
    """

    def __init__(
        self,
        potential: Potential,
        loss: Loss | None = None,
        *,
        communicator: Communicator | None = None,
        compiled: CompiledLossAndGradient | None = None,
        on_compile_failure: Callable[[str], None] | None = None,
    ) -> None:
        self.potential, self.loss = potential, loss or default_loss()
        self.communicator = communicator or Communicator()
        self.compiled, self.on_compile_failure = compiled, on_compile_failure

    def __call__(
        self,
        microbatches: Sequence[MicroBatch],
        weights: Mapping[str, float],
        counts: Mapping[str, Tensor] | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Compute the loss, and add its gradient to `.grad` of the parameters.

        Args:
            microbatches: structures to sum over. Each has its own graph, so that memory is that of the largest.
            weights: weight of each loss term by name.
            counts: see `Loss.counts`; None: those of the microbatches of all processes. With counts, other processes
                are not waited for.

        Returns:
            The loss and its unweighted terms by name, detached; the same in all processes.
        """
        distributed = self.communicator.size > 1 and counts is None
        if counts is None:
            counts = sum_counts(self.loss, microbatches, weights)
            counts = self._sum_over_processes(counts, weights) if distributed else counts
        linear = self.loss.has_roots and (distributed or len(microbatches) > 1)
        step_weights = dict(weights)
        if linear:
            means = self._means(microbatches, weights, counts)
            means = self._sum_over_processes(means, weights) if distributed else means
            step_weights = self.loss.linear_weights({n: float(v) for n, v in means.items()}, weights)
        sums: dict[str, Tensor] = {}
        for batch, labels in microbatches:
            _add(sums, self._backward(batch, labels, step_weights, counts, linear))
        if distributed:
            sums = self._reduce(sums, weights)
        total = self.loss.total(sums, weights)
        if total is None:
            total = torch.zeros((), dtype=torch.float64, device=dtype_and_device(self.potential)[1])
        return total, self.loss.values(sums)

    def _means(
        self, microbatches: Sequence[MicroBatch], weights: Mapping[str, float], counts: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The means of all microbatches, without gradients: the roots in the loss are of their sums."""
        sums: dict[str, Tensor] = {}
        for batch, labels in microbatches:
            request = request_for_loss(self.loss, labels, weights)
            active = requested_weights(self.loss, request, weights)
            _add(sums, self._eager_means(batch, labels, request, active, counts, create_graph=False))
        return sums

    def _backward(
        self,
        batch: Batch,
        labels: Properties,
        weights: Mapping[str, float],
        counts: Mapping[str, Tensor],
        linear: bool,
    ) -> dict[str, Tensor]:
        """Add the gradient of one microbatch; returns its means."""
        request = request_for_loss(self.loss, labels, weights)
        active = requested_weights(self.loss, request, weights)
        if not self.loss.active(labels, active):
            return {}
        if self.compiled is not None and not self.compiled.unsupported_reason(request):
            try:
                means, gradients = self.compiled(batch, labels, request, active, counts, linear=linear)
            except CompilationError as error:
                if self.on_compile_failure is None:
                    raise
                self.compiled = None
                self.on_compile_failure(str(error))
            else:
                for name, gradient in gradients.items():
                    parameter = self.potential.get_parameter(name)
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
                return means
        means = self._eager_means(batch, labels, request, active, counts, create_graph=True)
        total = self.loss.total(means, weights, linear=linear)
        if total is not None and total.requires_grad:  # False if no structure has a weighted label
            # In parameters only: without `inputs`, third derivatives in positions would be computed as well.
            total.backward(inputs=self.trainable_parameters())
        return {name: value.detach() for name, value in means.items()}

    def _eager_means(
        self,
        batch: Batch,
        labels: Properties,
        request: Request,
        weights: Mapping[str, float],
        counts: Mapping[str, Tensor],
        *,
        create_graph: bool,
    ) -> dict[str, Tensor]:
        """The means of one microbatch; `weights` are those of the requested terms."""
        predictions = evaluate(self.potential, batch, request, create_graph=create_graph)
        entries = [self.loss.entries[term.name] for term in self.loss.active(labels, weights)]
        matched = matched_predictions(predictions, labels, entries)
        factors = self.loss.factors(labels, weights, counts, batch)
        return self.loss.means(matched, self.loss.targets(labels, weights, batch), factors)

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
        return self.compiled.unsupported_reason(request_for_loss(self.loss, labels, weights))

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters with `requires_grad`.

        Returns:
            The parameters, in the order of the potential.
        """
        return [parameter for parameter in self.potential.parameters() if parameter.requires_grad]

    def _sum_over_processes(self, values: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Scalars by name of the term, added up over processes; zero where no process has any."""
        zero = torch.zeros((), dtype=torch.float64, device=dtype_and_device(self.potential)[1])
        total = self.communicator.all_reduce_sum(torch.stack([values.get(name, zero).to(zero) for name in weights]))
        return dict(zip(weights, total.unbind(), strict=True))

    def _reduce(self, sums: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Add up means and gradients of all processes; returns the means that any process has."""
        parameters = self.trainable_parameters()
        has_gradient = [p.grad is not None for p in parameters]
        self._all_reduce_gradients(parameters)
        zero = torch.zeros((), dtype=torch.float64, device=parameters[0].device)
        flags = torch.tensor([*(name in sums for name in weights), *has_gradient]).to(zero)
        local = torch.stack([sums.get(name, zero).to(torch.float64) for name in weights])
        values, n_present = self.communicator.all_reduce_sum(torch.cat([local, flags])).split([len(local), len(flags)])
        present = [count > 0 for count in n_present.tolist()]
        # A gradient that no process has stays None, as with one process: the optimizer skips such parameters.
        for parameter, is_present in zip(parameters, present[len(weights) :], strict=True):
            if not is_present:
                parameter.grad = None
        return {name: value for name, value, flag in zip(weights, values.unbind(), present, strict=False) if flag}

    def _all_reduce_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Sum gradients over processes, in one message per dtype."""
        for dtype in sorted({p.dtype for p in parameters}, key=str):
            group = [p for p in parameters if p.dtype == dtype]
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in group]
            flat = self.communicator.all_reduce_sum(torch.cat([gradient.reshape(-1) for gradient in gradients]))
            for parameter, gradient in zip(group, flat.split([p.numel() for p in group]), strict=True):
                parameter.grad = gradient.view_as(parameter)
