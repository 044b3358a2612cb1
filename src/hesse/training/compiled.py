"""A gradient step as one compiled function: energies, forces, Hessian-vector products, stress, their loss, and its
gradient in the trained parameters.

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
from hesse.curvature.strain import strained, stress_of
from hesse.errors import CompilationError, first_line
from hesse.losses import factors, references_of
from hesse.potential import Potential
from hesse.structures import Batch, Labels, Request
from hesse.training.companion import ATOMS, smallest_size, with_companion, with_zeros

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

    def why_not(self, request: Request) -> str:
        """Why this request cannot be compiled; empty where it can."""
        return "full Hessians are not compiled" if request.hessian else ""

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
            batch: structures, as for `hesse.evaluate`.
            labels: of its structures.
            request: what the loss needs.
            weights, counts: see `hesse.losses.weighted_loss`.

        Raises:
            CompilationError: the compiler fails, or this cannot be compiled (`why_not`).
            RequestError, LabelShapeError, GeometryError: see `hesse.evaluate`.
        """
        reason = self.why_not(request)
        if reason:
            raise CompilationError(reason)
        trained: Parameters = {f"potential.{n}": p for n, p in self.potential.named_parameters() if p.requires_grad}
        question = self._question(batch, labels, request, weights, counts)
        try:
            with _settings():
                slopes, terms = self._function(self._energies, trained, question)
        except Exception as error:  # the compiler's, about anything
            raise CompilationError(f"{type(error).__name__}: {first_line(error)[:160]}") from error
        total = torch.stack(list(terms.values())).sum() if terms else torch.zeros((), dtype=torch.float64)
        plain = {name: value / weights[name] for name, value in terms.items()}
        return total, plain, {name.removeprefix("potential."): slope for name, slope in slopes.items()}

    def _question(
        self,
        batch: Batch,
        labels: Labels,
        request: Request,
        weights: Mapping[str, float],
        counts: Mapping[str, Tensor],
    ) -> _Question:
        """A batch, admitted, and what its loss needs; with a companion where some size would be below two."""
        # A weighted label that nobody here holds is not asked for, and not computed.
        absent = {"hvp": request.probes is None, "stress": not request.stress}
        weights = {name: 0.0 if absent.get(name, False) else weight for name, weight in weights.items()}
        targets, scales = references_of(labels, weights), factors(labels, weights, counts)
        probes, ready = request.probes, None
        if smallest_size(batch) >= 2:
            ready = admitted(self.potential, batch, request, check_elements=False)
        if ready is None or smallest_size(ready) < 2:
            if probes is not None:
                probes = with_zeros(probes, ATOMS, dim=1)
            ready = admitted(
                self.potential, with_companion(batch), replace(request, probes=probes), check_elements=False
            )
            targets = {name: _for_companion(name, value) for name, value in targets.items()}
            scales = {name: _for_companion(name, value) for name, value in scales.items()}
        device = ready.positions.device
        plain = {name: _no_view(value) for name, value in vars(ready).items()}
        return _Question(
            Batch(**{**plain, "ids": ()}),  # the compiler would take ids for constants
            None if probes is None else _no_view(probes.to(ready.positions)),
            {name: _no_view(value.to(device)) for name, value in targets.items()},
            {name: _no_view(value.to(device)) for name, value in scales.items()},
        )


def _no_view(value: Any) -> Any:
    """Tensors of their own: what is a view in one batch and none in the next would be compiled for each."""
    if isinstance(value, Tensor):
        return value.clone() if value._is_view() else value
    if isinstance(value, tuple):
        parts = [_no_view(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _for_companion(name: str, values: Tensor) -> Tensor:
    """Labels, or what their errors are multiplied with, and zeros for the companion."""
    more = 1 if name in ("energy", "stress", "penalty") else ATOMS
    return with_zeros(values, more, dim=1 if name == "hvp" else 0)


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
    stress = "stress" in question.targets
    first = probes is not None or stress or "forces" in question.targets
    leaves, unstrained = (0, 1) if stress else (0,), torch.zeros_like(batch.cell)

    def loss(parameters: Parameters) -> tuple[Tensor, dict[str, Tensor]]:
        def total(x: Tensor, strain: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            moved = strained(batch, x, strain) if stress else batch.replace(positions=x)
            atomic, *penalty = torch.func.functional_call(energies, parameters, (moved,))
            energy = batch.sum_by_structure(atomic)
            return energy.sum(), (energy, atomic, *penalty)

        def slope(x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            (gradient, *by_strain), rest = torch.func.grad(total, argnums=leaves, has_aux=True)(x, unstrained)
            return gradient, (*(stress_of(batch, by) for by in by_strain), *rest)

        found: dict[str, Tensor] = {}
        if probes is not None:
            gradient, pull, rest = torch.func.vjp(slope, batch.positions, has_aux=True)  # type: ignore[misc]
            found["hvp"] = torch.stack([pull(probe)[0] for probe in probes.unbind(0)])
            found["forces"] = -gradient
        elif first:
            gradient, rest = slope(batch.positions)
            found["forces"] = -gradient
        else:
            rest = total(batch.positions, unstrained)[1]
        if stress:
            # NaN where it means nothing; that is no error where nobody asks.
            asked = question.factors["stress"] > 0
            found["stress"] = torch.where(asked, rest[0], 0.0)
            rest = rest[1:]
        found["energy"], found["atomic_energies"] = rest[0], rest[1]
        terms = {
            name: (question.factors[name] * (found[name] - target).square()).sum(dtype=torch.float64)
            for name, target in question.targets.items()
        }
        if "penalty" in question.factors and len(rest) > 2:
            terms["penalty"] = (question.factors["penalty"] * rest[2]).sum().to(torch.float64)
        value = torch.stack(list(terms.values())).sum()
        return value, terms

    return torch.func.grad(loss, has_aux=True)(parameters)


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
