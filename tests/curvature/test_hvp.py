"""Vectorized and sequential Hessian-vector products are equal; potentials that cannot be vectorized."""

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
    """`x³` as a chain of custom autograd functions, like message passing kernels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return slopes[0] * InPlaceSquare.apply(x)


class InPlaceSquare(torch.autograd.Function):
    """`3x²` with an in-place addition in the backward pass, which cannot be vectorized."""

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
def test_sequential_products_equal_vectorized_ones(create_graph: bool) -> None:
    batch = collate(molecules([4, 2]), 0.0)
    request = Request(forces=True, probes=torch.randn(3, 6, 3, dtype=torch.float64), hessian=True)
    plain, unvectorized = Cubes(in_place=False), Cubes(in_place=True)
    expected = evaluate(plain, batch, request, create_graph=create_graph)
    got = evaluate(unvectorized, batch, request, create_graph=create_graph)
    assert request.probes is not None
    torch.testing.assert_close(got.hvp, 6 * 0.7 * batch.positions * request.probes)
    for name in ("energy", "forces", "hvp", "hessian"):
        torch.testing.assert_close(getattr(got, name), getattr(expected, name), rtol=0, atol=1e-12)
    if create_graph:
        assert got.hvp is not None
        assert expected.hvp is not None
        for potential, labels in ((plain, expected), (unvectorized, got)):
            assert labels.hvp is not None
            labels.hvp.square().sum().backward()
            assert potential.theta.grad is not None
        torch.testing.assert_close(unvectorized.theta.grad, plain.theta.grad)


def test_supports_vmap_is_needed_and_inherited_by_sums() -> None:
    batch = collate(molecules([3]), 0.0)
    request = Request(probes=torch.randn(2, 3, 3, dtype=torch.float64))
    total = SumPotential([Cubes(in_place=False), Cubes(in_place=True)])
    assert not total.supports_vmap
    assert evaluate(total, batch, request).hvp is not None
    total.supports_vmap = True
    with pytest.raises(RuntimeError, match="vmap"):
        evaluate(total, batch, request)


@pytest.mark.parametrize("create_graph", [False, True])
def test_large_batches_use_sequential_products_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch, create_graph: bool
) -> None:
    """On a CPU the vectorized pass is slower for batches of several hundred atoms."""
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
    result = []
    for least in (9, 10):  # threshold at and above the size of this batch
        monkeypatch.setattr(derivatives, "SEQUENTIAL_ABOVE_ATOMS", {"cpu": least})
        passes.clear()
        hvp = evaluate(model, batch, request, create_graph=create_graph).hvp
        assert hvp is not None
        assert passes == ([False] * 4 if least == 9 else [False, True])
        slopes = original(hvp.square().sum(), list(model.parameters()), allow_unused=True) if create_graph else ()
        result.append((hvp, *(derivative for derivative in slopes if derivative is not None)))
    for in_turn, at_once in zip(*result, strict=True):
        torch.testing.assert_close(in_turn, at_once, rtol=1e-10, atol=1e-12)
