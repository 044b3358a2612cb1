"""Order of finite differences, and accuracy of their error estimates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracles
from closed_form_engines import ClosedForm
from hesse.engines import FiniteDifferences
from hesse.engines.finite_differences import central_difference, choose_step, estimate_gradient_noise, richardson
from hesse.structures import Request

ORACLES = {"morse": oracles.Morse(cutoff=50.0), "lennard-jones": oracles.LennardJones(cutoff=50.0)}


def error_of(oracle, structure, probe, differences, noise=0.0):
    """True root-mean-square error of an HVP, and the estimate."""
    engine = ClosedForm(oracle, differences, noise)
    labels = engine.compute(structure, Request(probes=torch.from_numpy(probe[None])))
    exact = np.einsum("iajb,jb->ia", oracle.exact(structure).hessian, probe)
    return np.sqrt(np.mean((labels.hvp[0].numpy() - exact) ** 2)), float(labels.hvp_error[0, 0])


@pytest.mark.parametrize("oracle", ORACLES.values(), ids=ORACLES)
@pytest.mark.parametrize(("is_richardson", "order"), [(False, 2), (True, 4)], ids=["central", "richardson"])
def test_order_of_convergence(oracle, is_richardson, order):
    structure = oracles.molecule(5, 2)
    probe = np.random.default_rng(0).normal(size=(5, 3))
    steps = np.logspace(-2.0, -1.2, 6)
    errors = [error_of(oracle, structure, probe, FiniteDifferences(step=h, richardson=is_richardson))[0] for h in steps]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order - 0.15 < slope < order + 0.25


@pytest.mark.parametrize("is_richardson", [False, True], ids=["central", "richardson"])
@pytest.mark.parametrize("step", [3e-3, 1e-2])
def test_truncation_is_estimated_within_a_factor_of_three(is_richardson, step):
    ratios = []
    for seed in range(30):
        structure = oracles.molecule(3 + seed % 6, seed)
        probe = np.random.default_rng(seed).choice([-1.0, 1.0], size=(len(structure), 3))
        true, estimate = error_of(
            ORACLES["morse"], structure, probe, FiniteDifferences(step=step, richardson=is_richardson)
        )
        ratios.append(estimate / true)
    inside = np.mean([1 / 3 < r < 3 for r in ratios])
    assert inside >= 0.9, np.round(np.sort(ratios), 2)
    assert min(ratios) > 0.1


@pytest.mark.parametrize("noise", [1e-6, 1e-4])
def test_noise_is_estimated_within_a_factor_of_three(noise):
    """The gradient's noise of standard deviation δ leaves 0.95 δ/h in Richardson's value."""
    ratios, true_errors = [], []
    for seed in range(30):
        structure = oracles.molecule(3 + seed % 6, seed)
        probe = np.random.default_rng(seed).choice([-1.0, 1.0], size=(len(structure), 3))
        differences = FiniteDifferences(step=1e-3, richardson=True)
        true, estimate = error_of(ORACLES["morse"], structure, probe, differences, noise=noise)
        ratios.append(estimate / true)
        true_errors.append(true)
    assert np.sqrt(np.mean(np.square(true_errors))) == pytest.approx(0.95 * noise / 1e-3, rel=0.2)
    assert np.mean([1 / 3 < r < 3 for r in ratios]) >= 0.9, np.round(np.sort(ratios), 2)


@given(
    coefficients=st.lists(st.floats(-5, 5), min_size=6, max_size=6),
    epsilon=st.floats(1e-3, 0.1),
)
def test_polynomials_up_to_their_order_are_exact(coefficients, epsilon):
    """The gradient is a polynomial of s: Richardson's value is exact up to s⁴, the plain one up to s²."""

    def gradient(degree):
        return lambda s: np.full((1, 3), sum(c * s**k for k, c in enumerate(coefficients[: degree + 1])))

    scale = max(1.0, *map(abs, coefficients)) / epsilon
    fourth, second = gradient(4), gradient(2)
    assert richardson(fourth, fourth(0.0), epsilon, np.ones(1)).value == pytest.approx(
        coefficients[1], abs=1e-13 * scale
    )
    plain = central_difference(second, second(0.0), epsilon, np.ones(1))
    assert plain.value == pytest.approx(coefficients[1], abs=1e-13 * scale)


def test_errors_along_directions_of_zero_curvature_are_estimated():
    """Rotation of a relaxed diatomic: H v = 0, and the gradient is an even function of the step up to its cube."""
    pair = oracles.Structure([7, 7], [[0, 0, 0], [1.1, 0, 0]], id="pair")
    probe = np.array([[0.0, 1.0, 1.0], [0.0, -1.0, -1.0]])
    for is_richardson, largest in ((True, 1e-4), (False, 1e-3)):
        differences = FiniteDifferences(step=1e-3, richardson=is_richardson)
        true, estimate = error_of(ORACLES["morse"], pair, probe, differences)
        assert true / 3 < estimate < largest


def test_a_kink_is_part_of_the_error_estimate():
    """Where a surface has a kink (another electronic state) no step is right; the estimate must be large."""
    result = richardson(lambda s: np.array([[abs(s - 5e-4), 0.0, 0.0]]), np.array([[5e-4, 0.0, 0.0]]), 1e-3, np.ones(1))
    assert result.noise > 0.05


@given(st.floats(1e-12, 1e-3))
def test_at_the_chosen_step_noise_is_a_fifth_of_the_truncation(noise):
    step = choose_step(noise, False)
    assert noise / np.sqrt(2) / step == pytest.approx(0.2 * 800 * step**2, rel=0.2)
    assert choose_step(noise, True) >= step or noise > 1e-5
    assert choose_step(2 * noise, False) >= step


def test_gradient_noise_is_estimated():
    rng = np.random.default_rng(0)
    s = np.arange(9)[:, None, None] * 1e-4
    smooth = np.sin(s + np.arange(15).reshape(5, 3))
    assert estimate_gradient_noise(smooth + 1e-7 * rng.normal(size=(9, 5, 3))) == pytest.approx(1e-7, rel=0.3)
    with pytest.raises(ValueError, match="5 points"):
        estimate_gradient_noise(smooth[:4])
