"""Smooth functions: values, and derivatives up to third order at singular points."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hesse.smooth import bump_cutoff, cosine_cutoff, masked_norm, norm, smooth_cutoff, softened_sqrt

CUTOFF = 5.0


def derivatives(function: Callable[[Tensor], Tensor], at: float, order: int) -> list[float]:
    """Value and derivatives up to `order`, by repeated reverse mode."""
    x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    value = function(x)
    result = [value.item()]
    for _ in range(order):
        (value,) = torch.autograd.grad(value, x, create_graph=True, materialize_grads=True)
        result.append(value.item())
    return result


def test_smooth_cutoff_has_three_vanishing_derivatives_at_both_ends() -> None:
    for at, value in (
        (0.0, 1.0),
        (CUTOFF, 0.0),
        (np.nextafter(CUTOFF, 0), 0.0),
        (CUTOFF + 1e-9, 0.0),
        (2 * CUTOFF, 0.0),
    ):
        result = derivatives(lambda r: smooth_cutoff(r, CUTOFF), float(at), 3)
        assert result == pytest.approx([value, 0.0, 0.0, 0.0], abs=1e-12)
    fourth = derivatives(lambda r: smooth_cutoff(r, CUTOFF), CUTOFF * (1 - 1e-9), 4)[4]
    assert fourth == pytest.approx(840 / CUTOFF**4, rel=1e-6)  # the first one that jumps


@given(r=st.floats(0.0, 2 * CUTOFF))
def test_smooth_cutoff_is_the_integral_of_its_slope(r: float) -> None:
    """The slope of the lowest such step is -140 x³(1-x)³/R; the step is symmetric about the middle."""
    x = min(r / CUTOFF, 1.0)
    value, derivative = derivatives(lambda d: smooth_cutoff(d, CUTOFF), r, 1)
    assert derivative == pytest.approx(-140 * x**3 * (1 - x) ** 3 / CUTOFF, abs=1e-11)
    mirrored = smooth_cutoff(torch.tensor((1 - x) * CUTOFF, dtype=torch.float64), CUTOFF)
    assert value + float(mirrored) == pytest.approx(1.0, abs=1e-12)
    assert -1e-12 <= value <= 1 + 1e-12


def test_cosine_cutoff_is_the_published_one() -> None:
    r = torch.linspace(0, 2 * CUTOFF, 41, dtype=torch.float64)
    expected = np.where(r < CUTOFF, np.cos(np.pi * r.numpy() / (2 * CUTOFF)) ** 2, 0.0)
    np.testing.assert_allclose(cosine_cutoff(r, CUTOFF), expected, atol=1e-15)
    inside = derivatives(lambda d: cosine_cutoff(d, CUTOFF), CUTOFF * (1 - 1e-9), 2)
    assert inside[1] == pytest.approx(0.0, abs=1e-8)
    assert inside[2] == pytest.approx(math.pi**2 / (2 * CUTOFF**2), rel=1e-6)  # this jumps to zero outside
    assert derivatives(lambda d: cosine_cutoff(d, CUTOFF), CUTOFF + 1e-9, 2)[1:] == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bump_cutoff_has_finite_derivatives_up_to_third_order(dtype: torch.dtype) -> None:
    r = torch.cat([torch.linspace(0, 2 * CUTOFF, 4001), CUTOFF * (1 + torch.tensor([-1e-7, 0.0, 1e-7]))]).to(dtype)
    inside = r < 0.99 * CUTOFF
    expected = torch.exp(1 - 1 / (1 - (r[inside] / CUTOFF) ** 2))
    torch.testing.assert_close(bump_cutoff(r, CUTOFF)[inside], expected, rtol=2e-5, atol=0)
    r.requires_grad_(True)
    value = bump_cutoff(r, CUTOFF)
    for _ in range(4):
        assert torch.isfinite(value).all()
        assert float(value.detach()[r >= 0.995 * CUTOFF].abs().max()) < 1e-19
        (value,) = torch.autograd.grad(value.sum(), r, create_graph=True)


def third_derivatives(function: Callable[[Tensor], Tensor], vectors: Tensor) -> list[Tensor]:
    """Gradient, and two directional derivatives of it."""
    x = vectors.clone().requires_grad_(True)
    (derivative,) = torch.autograd.grad(function(x).sum(), x, create_graph=True, materialize_grads=True)
    result = [derivative]
    for _ in range(2):
        (derivative,) = torch.autograd.grad(derivative.sum(), x, create_graph=True, materialize_grads=True)
        result.append(derivative)
    return result


def test_norm_is_the_length_and_zero_with_all_derivatives_at_zero() -> None:
    vectors = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0], [1e-3, 0, 0]], dtype=torch.float64)
    assert norm(vectors).tolist() == pytest.approx([5.0, 0.0, 1e-3])
    for order, slopes in enumerate(third_derivatives(norm, vectors)):
        assert torch.isfinite(slopes).all()
        assert torch.equal(slopes[1], torch.zeros(3, dtype=torch.float64)), order
    assert third_derivatives(norm, vectors)[0][0].tolist() == pytest.approx([0.6, 0.8, 0.0])


def test_masked_norm_fills_without_derivatives() -> None:
    vectors = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0], [7.0, 1, 0]], dtype=torch.float64)
    mask = torch.tensor([True, False, False])
    assert masked_norm(vectors, mask, fill=2.5).tolist() == pytest.approx([5.0, 2.5, 2.5])
    for slopes in third_derivatives(lambda v: masked_norm(v, mask, fill=2.5), vectors):
        assert torch.isfinite(slopes).all()
        assert torch.equal(slopes[1:], torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("epsilon", [1e-2, 1e-4])
def test_softened_sqrt_softens_the_absolute_value(epsilon: float) -> None:
    """`f(t) = √(t² + ε)`: f''(0) = 1/√ε, and its third derivatives stay below 1/ε, as the docstring warns."""
    at_zero = derivatives(lambda t: softened_sqrt(t * t, epsilon), 0.0, 3)
    assert at_zero == pytest.approx([epsilon**0.5, 0.0, epsilon**-0.5, 0.0])
    thirds = [
        abs(derivatives(lambda t: softened_sqrt(t * t, epsilon), t, 3)[3]) for t in np.linspace(0, 3, 61) * epsilon**0.5
    ]
    assert 0.5 / epsilon < max(thirds) < 1.0 / epsilon
    assert derivatives(lambda t: softened_sqrt(t * t, epsilon), 10.0, 1) == pytest.approx([10.0, 1.0], rel=epsilon)


def test_smooth_cutoff_keeps_its_digits_in_float32() -> None:
    """Small values near the cutoff are computed without cancellation."""
    r = torch.linspace(0.9, 1.0, 501, dtype=torch.float32)[:-1] * CUTOFF
    result = smooth_cutoff(r, CUTOFF).double()
    exact = smooth_cutoff(r.double(), CUTOFF)
    u = 1.0 - r.double() / CUTOFF
    torch.testing.assert_close(exact, u**4 * (35.0 - 84.0 * u + 70.0 * u**2 - 20.0 * u**3), rtol=1e-9, atol=0.0)
    assert bool((result > 0).all())
    assert float((result - exact).abs().max()) < 1e-8
