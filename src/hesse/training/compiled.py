"""A gradient step as one compiled function: energies, forces, Hessian-vector products, their loss, and its gradient in
the trained parameters.

Everything is traced in one piece by nested `torch.func.grad`, the gradient in parameters included, so that nothing is
handed from a compiled forward to a compiled backward pass (where the compiler takes the strides of what it hands over
for constants). The order is reverse over reverse, as in `hesse.evaluate`: forward over reverse is miscompiled by some
versions of PyTorch, and reverse over forward crashed the compiler on one of Hesse's networks. One compilation serves
batches of all sizes. What is found in a batch (neighbours, triples, blocks) is found before, by `Potential.prepare`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.fx.experimental._config as shapes
from jaxtyping import Float
from torch import Tensor, nn

from hesse.curvature.evaluate import admitted
from hesse.errors import CompilationError, first_line
from hesse.losses import factors, references_of
from hesse.potential import Potential
from hesse.structures import Batch, Labels, Request

__all__ = ["CompiledGradient"]

Parameters = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class _Question:
    """What the compiled function is told of a batch: tensors only."""

    batch: Batch
    probes: Float[Tensor, "probes atoms 3"] | None
    targets: dict[str, Tensor]
    factors: dict[str, Tensor]


class CompiledGradient:
    """Loss and gradient of a potential, compiled.

    The first call of a kind (with or without products, periodic or not, ...) compiles: half a minute to minutes, less
    where PyTorch finds the result of an earlier run in its cache.

    Args:
        potential: any of Hesse's own, or one that `hesse check` calls compilable.
        backend: of `torch.compile`; "aot_eager" traces and makes no code (to see what is at fault).

    Raises:
        CompilationError: the potential draws random numbers, which compiled code would draw in another order.
    """

    def __init__(self, potential: Potential, *, backend: str = "inductor") -> None:
        drawing = next((m for m in potential.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p), None)
        if drawing is not None:
            raise CompilationError(
                f"it draws random numbers ({type(drawing).__name__}), in another order when compiled"
            )
        self.potential = potential
        self._energies = _Energies(potential)
        # Without a least size for parallel loops, which would make small batches another compilation.
        options: dict[str, str | int | bool | Any] | None = {"cpp.min_chunk_size": 1} if backend == "inductor" else None
        # In one piece: nothing may fall back unseen.
        self._function = torch.compile(_loss_and_slopes, dynamic=True, fullgraph=True, backend=backend, options=options)

    def why_not(self, batch: Batch, request: Request) -> str:
        """Why this request of an admitted batch cannot be compiled; empty where it can."""
        if request.hessian or request.stress:
            return "full Hessians and stress are not compiled"
        sizes = [size for tensor in _tensors(batch) for size in tensor.shape]
        if min(sizes, default=0) < 2:
            return "sizes of 0 and 1 (a single structure, say) would be compiled as constants"
        return ""

    def admitted(self, batch: Batch, request: Request) -> Batch:
        """The batch as the potential wants it, with its tables; raises what `evaluate` does."""
        return admitted(self.potential, batch, request, check_elements=False)

    def __call__(
        self,
        batch: Batch,
        labels: Labels,
        request: Request,
        weights: Mapping[str, float],
        counts: Mapping[str, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Loss, unweighted terms, and gradient by name of the trained parameters.

        Args:
            batch: admitted.
            labels: of its structures.
            request: what the loss needs.
            weights, counts: see `hesse.losses.weighted_loss`.

        Raises:
            CompilationError: the compiler fails, or this cannot be compiled (`why_not`).
        """
        reason = self.why_not(batch, request)
        if reason:
            raise CompilationError(reason)
        trained: Parameters = {f"potential.{n}": p for n, p in self.potential.named_parameters() if p.requires_grad}
        question = _Question(
            replace(batch, ids=()),  # the compiler would take ids for constants
            None if request.probes is None else request.probes.to(batch.positions),
            {name: value.to(batch.positions.device) for name, value in references_of(labels, weights).items()},
            factors(labels, weights, counts),
        )
        try:
            with _settings():
                slopes, terms = self._function(self._energies, trained, question)
        except Exception as error:  # the compiler's, about anything
            raise CompilationError(f"{type(error).__name__}: {first_line(error)[:160]}") from error
        total = torch.stack(list(terms.values())).sum() if terms else torch.zeros((), dtype=torch.float64)
        plain = {name: value / weights[name] for name, value in terms.items()}
        return total, plain, {name.removeprefix("potential."): slope for name, slope in slopes.items()}


class _Energies(nn.Module):
    """Energies of a potential as the forward of a module, whose parameters can be replaced."""

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        """Atomic energies, and the penalty where there is one."""
        atomic, penalty = self.potential.energies_and_penalty(batch)
        return (atomic,) if penalty is None else (atomic, penalty)


def _loss_and_slopes(
    energies: _Energies, parameters: Parameters, question: _Question
) -> tuple[Parameters, dict[str, Tensor]]:
    """One traceable function: gradient in parameters of the loss, and its weighted terms."""
    batch, probes = question.batch, question.probes
    first = probes is not None or "forces" in question.targets

    def loss(parameters: Parameters) -> tuple[Tensor, dict[str, Tensor]]:
        def total(x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            atomic, *penalty = torch.func.functional_call(energies, parameters, (batch.replace(positions=x),))
            energy = batch.sum_by_structure(atomic)
            return energy.sum(), (energy, atomic, *penalty)

        def slope(x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            return torch.func.grad(total, has_aux=True)(x)

        found: dict[str, Tensor] = {}
        if probes is not None:
            gradient, pull, rest = torch.func.vjp(slope, batch.positions, has_aux=True)  # type: ignore[misc]
            found["hvp"] = torch.stack([pull(probe)[0] for probe in probes.unbind(0)])
            found["forces"] = -gradient
        elif first:
            gradient, rest = slope(batch.positions)
            found["forces"] = -gradient
        else:
            rest = total(batch.positions)[1]
        found["energy"], found["atomic_energies"] = rest[0], rest[1]
        terms = {
            name: (question.factors[name] * (found[name] - target).square()).sum().to(torch.float64)
            for name, target in question.targets.items()
        }
        if "penalty" in question.factors and len(rest) > 2:
            terms["penalty"] = (question.factors["penalty"] * rest[2]).sum().to(torch.float64)
        value = torch.stack(list(terms.values())).sum()
        return value, terms

    return torch.func.grad(loss, has_aux=True)(parameters)


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of a batch whose sizes differ between batches, those of its tables included."""
    if isinstance(value, Batch):
        yield from (value.n_atoms, value.numbers, value.neighbours)
        yield from _tensors(value.tables)
    elif isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _tensors(part)


@contextmanager
def _settings() -> Iterator[None]:
    """Several networks and kinds of batches may be compiled in one process; sizes that happen to be equal in the first
    batch are not so in the next; and the graph of parameters is inside the function."""
    with (
        warnings.catch_warnings(),
        torch._dynamo.config.patch(recompile_limit=64),
        shapes.patch(use_duck_shape=False),  # type: ignore[attr-defined]
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")  # of the compiler, about itself
        yield
