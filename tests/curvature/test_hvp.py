"""Potentials whose operations cannot be vectorized: the same derivatives, one direction at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hesse.curvature import evaluate
from hesse.curvature import hvp as derivatives
from hesse.models import Hipnn, HipnnConfig, SumPotential
from hesse.potential import Potential
from hesse.structures import Batch, Request, collate
from oracles import molecules


class InPlaceCube(torch.autograd.Function):
    """`x³` in a chain of functions of its own, as message passing kernels are written."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return slopes[0] * InPlaceSquare.apply(x)


class InPlaceSquare(torch.autograd.Function):
    """`3x²`, whose backward pass adds to a tensor in place: that cannot be vectorized."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return 3 * x**2

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.zeros_like(x).add_(6 * x * slopes[0])


class Cubes(Potential):
    """`θ Σ x³` over all coordinates: its Hessian is diagonal, 6 θ x."""

    cutoff = 0.0

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.in_place = in_place
        self.supports_vmap = not in_place

    def forward(self, batch: Batch) -> Tensor:
        cubes: Tensor = InPlaceCube.apply(batch.positions) if self.in_place else batch.positions**3
        return self.theta * cubes.sum(-1)


@pytest.mark.parametrize("create_graph", [False, True])
def test_several_directions_equal_those_of_a_potential_that_can_be_vectorized(create_graph: bool) -> None:
    batch = collate(molecules([4, 2]), 0.0)
    request = Request(forces=True, probes=torch.randn(3, 6, 3, dtype=torch.float64), hessian=True)
    plain, turn = Cubes(in_place=False), Cubes(in_place=True)
    expected = evaluate(plain, batch, request, create_graph=create_graph)
    got = evaluate(turn, batch, request, create_graph=create_graph)
    assert request.probes is not None
    torch.testing.assert_close(got.hvp, 6 * 0.7 * batch.positions * request.probes)
    for name in ("energy", "forces", "hvp", "hessian"):
        torch.testing.assert_close(getattr(got, name), getattr(expected, name), rtol=0, atol=1e-12)
    if create_graph:
        assert got.hvp is not None
        assert expected.hvp is not None
        for potential, labels in ((plain, expected), (turn, got)):
            assert labels.hvp is not None
            labels.hvp.square().sum().backward()
            assert potential.theta.grad is not None
        torch.testing.assert_close(turn.theta.grad, plain.theta.grad)


def test_without_the_mark_such_a_potential_fails_and_a_sum_inherits_it() -> None:
    batch = collate(molecules([3]), 0.0)
    request = Request(probes=torch.randn(2, 3, 3, dtype=torch.float64))
    total = SumPotential([Cubes(in_place=False), Cubes(in_place=True)])
    assert not total.supports_vmap
    assert evaluate(total, batch, request).hvp is not None
    total.supports_vmap = True
    with pytest.raises(RuntimeError, match="vmap"):
        evaluate(total, batch, request)


@pytest.mark.parametrize("create_graph", [False, True])
def test_large_batches_take_directions_in_turn_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch, create_graph: bool
) -> None:
    """On a CPU, from some hundred atoms, the vectorized pass is the slower one."""
    batch = collate(molecules([4, 2, 3]), 4.0)
    torch.manual_seed(0)
    model = Hipnn(HipnnConfig(features=4, sensitivities=4, cutoff=4.0, longest=3.5), (1, 6, 7, 8)).double()
    request = Request(forces=True, probes=torch.randn(3, 9, 3, dtype=torch.float64))
    passes: list[bool] = []
    original = torch.autograd.grad

    def watched(*arguments: Any, **options: Any) -> Any:
        passes.append(options.get("is_grads_batched", False))
        return original(*arguments, **options)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    found = []
    for least in (9, 10):  # in turn from the size of this batch on, or not yet
        monkeypatch.setattr(derivatives, "SEQUENTIAL_ABOVE_ATOMS", {"cpu": least})
        passes.clear()
        hvp = evaluate(model, batch, request, create_graph=create_graph).hvp
        assert hvp is not None
        assert passes == ([False] * 4 if least == 9 else [False, True])
        slopes = original(hvp.square().sum(), list(model.parameters()), allow_unused=True) if create_graph else ()
        found.append((hvp, *(slope for slope in slopes if slope is not None)))
    for in_turn, at_once in zip(*found, strict=True):
        torch.testing.assert_close(in_turn, at_once, rtol=1e-10, atol=1e-12)
