"""Known saddle points. Four Morse atoms have one transition state up to permutations, the planar rhombus between two
tetrahedra; ammonia inverts through a plane."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

import closed_form_engines
import oracles
from hesse.engines import PotentialEngine, XtbEngine
from hesse.errors import ConfigError, EngineError, LabelShapeError, RequestError, UnknownOptionError
from hesse.harmonic.normal_modes import normal_modes
from hesse.pes import saddle
from hesse.pes.quasi_newton import bofill_update, limit_length, prfo_step, ts_bfgs_update
from hesse.structures import Structure


@pytest.mark.parametrize("seed", range(5))
def test_the_transition_state_of_four_morse_atoms_is_a_planar_rhombus(seed):
    engine = closed_form_engines.own_engine()
    result = saddle(oracles.rhombus(seed), engine, fmax=1e-4)
    assert result.converged, result.reason
    assert result.fmax < 1e-4
    assert result.history.fmax[-1] == result.fmax
    assert 1 < len(result.history) <= result.steps + 1  # rejected steps are not recorded
    assert (result.structure.id, result.structure.tag, result.structure.group) == ("rhombus", "guess", "g")
    x = result.structure.positions - result.structure.positions.mean(0)
    assert np.linalg.svd(x)[1][2] < 1e-3  # planar
    gaps = np.sort([np.linalg.norm(x[i] - x[j]) for i in range(4) for j in range(i)])
    assert np.ptp(gaps[:4]) < 1e-2  # a rhombus: four sides, and two diagonals
    assert gaps[4] - gaps[3] > 0.1
    assert gaps[4] ** 2 + gaps[5] ** 2 == pytest.approx(4 * gaps[0] ** 2, rel=1e-3)
    exact = oracles.Morse().exact(result.structure)
    assert np.abs(exact.gradient).max() < 1e-4
    assert normal_modes(result.structure, exact.hessian).n_imaginary == 1
    np.testing.assert_allclose(result.hessian, exact.hessian, atol=1e-3)
    assert result.modes.n_imaginary == 1
    # The path leads out of the plane.
    plane = np.linalg.svd(x)[2][2]
    assert np.abs(result.modes.vectors[0] @ plane).sum() > 0.99 * np.linalg.norm(result.modes.vectors[0], axis=1).sum()


def test_a_known_hessian_is_used_and_counted():
    engine = closed_form_engines.own_engine()
    start = oracles.rhombus(1)
    exact = oracles.Morse().exact(start).hessian
    with_it, without = saddle(start, engine, hessian=exact), saddle(start, engine)
    assert with_it.n_hessians == without.n_hessians - 1
    assert with_it.structure.positions == pytest.approx(without.structure.positions, abs=1e-3)
    assert without.n_gradients == without.steps + 1


def test_ammonia_inverts_through_a_plane():
    pytest.importorskip("tblite.interface", reason="tblite is not installed")
    angles = np.radians([3.0, 121.0, 243.0])
    ring = 1.02 * np.stack([np.cos(angles), np.sin(angles), 0.1 * np.ones(3)], 1)
    result = saddle(Structure([7, 1, 1, 1], [[0, 0, 0], *ring]), XtbEngine())
    assert result.converged, result.reason
    x = result.structure.positions - result.structure.positions.mean(0)
    assert np.linalg.svd(x)[1][2] < 0.01
    assert result.modes.frequencies[0] < -500  # the umbrella mode
    assert result.modes.frequencies[1] > 500


def test_a_potential_as_the_engine():
    result = saddle(oracles.rhombus(2), PotentialEngine(oracles.Morse(), "morse"), fmax=1e-3)
    assert result.converged


def test_sella_finds_the_same_saddle():
    pytest.importorskip("sella", reason="Sella is not installed")
    engine = closed_form_engines.own_engine()
    ours, theirs = (saddle(oracles.rhombus(3, jitter=0.02), engine, method=m, fmax=1e-3) for m in ("prfo", "sella"))
    assert theirs.converged, theirs.reason
    assert theirs.energy == pytest.approx(ours.energy, abs=1e-4)
    assert theirs.n_gradients > theirs.steps
    assert theirs.history.energies[-1] == pytest.approx(theirs.energy)


def test_not_converging_is_reported():
    engine = closed_form_engines.own_engine()
    short = saddle(oracles.rhombus(0), engine, steps=1, fmax=1e-5)
    assert not short.converged
    assert short.hessian is None
    assert short.modes is None
    assert "after 1 steps, limit 1e-05" in short.reason
    # Three atoms in a triangle are at a minimum; the path uphill stretches a bond until the molecule dissociates.
    far = saddle(oracles.molecule(3, 2, elements=(6,)), engine, steps=100)
    assert not far.converged
    assert far.reason


def test_a_stationary_point_with_two_negative_modes_is_not_accepted():
    """A stationary square of four equal atoms has several negative modes: it is not accepted, and the search continues
    where there are steps left."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])

    def outward(side: float) -> float:
        return oracles.Morse().exact(Structure([6] * 4, side * corners)).gradient[2, 0]

    square = Structure([6] * 4, brentq(outward, 0.8, 1.2, xtol=1e-12) * corners)
    engine = closed_form_engines.own_engine()
    result = saddle(square, engine, fmax=1e-4, steps=1)
    assert not result.converged
    assert result.fmax < 1e-4
    assert result.modes.n_imaginary == normal_modes(square, oracles.Morse().exact(square).hessian).n_imaginary > 1
    assert f"with {result.modes.n_imaginary} negative modes, not one" in result.reason
    onwards = saddle(square, engine, fmax=1e-4)
    assert onwards.converged
    assert onwards.energy < result.energy - 0.01


def test_invalid_arguments_get_a_reply():
    engine, start = closed_form_engines.own_engine(), oracles.rhombus()
    with pytest.raises(ConfigError, match="positive fmax"):
        saddle(start, engine, fmax=-1.0)
    with pytest.raises(UnknownOptionError, match="prfo"):
        saddle(start, engine, method="pfro")
    with pytest.raises(LabelShapeError, match=r"expected \(4, 3, 4, 3\)"):
        saddle(start, engine, hessian=np.zeros((12, 12)))
    with pytest.raises(RequestError, match="rigid"):
        saddle(oracles.atom(6), engine)
    with pytest.raises(EngineError, match="not finite"):
        saddle(start, closed_form_engines.ClosedForm(oracles.Morse(), noise=float("nan")))


@pytest.mark.parametrize("update", [bofill_update, ts_bfgs_update])
def test_updates_satisfy_the_secant_equation_and_symmetry(update):
    rng = np.random.default_rng(4)
    for _ in range(50):
        a = rng.normal(size=(7, 7))
        hessian, step, change = a + a.T, rng.normal(size=7), rng.normal(size=7)
        updated = update(hessian, step, change)
        np.testing.assert_allclose(updated @ step, change, atol=1e-9)
        np.testing.assert_allclose(updated, updated.T, atol=1e-12)
        np.testing.assert_array_equal(update(hessian, np.zeros(7), np.zeros(7)), hessian)
    # A Hessian that is right already stays as it is.
    np.testing.assert_allclose(update(hessian, step, hessian @ step), hessian, atol=1e-9)


def test_updates_converge_on_a_quadratic_surface():
    rng = np.random.default_rng(5)
    a = rng.normal(size=(6, 6))
    exact = a + a.T
    for update in (bofill_update, ts_bfgs_update):
        model = np.eye(6)
        for _ in range(400):
            step = rng.normal(size=6)
            model = update(model, step, exact @ step)
        np.testing.assert_allclose(model, exact, atol=1e-2)


def test_a_step_on_a_quadratic_surface_goes_up_one_mode_and_down_the_others():
    rng = np.random.default_rng(6)
    vectors = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    for values in (
        np.array([-2.0, 1.0, 3.0, 4.0, 9.0]),
        np.array([0.5, 1.0, 3.0, 4.0, 9.0]),
        np.array([-2.0, -1.0, 3, 4, 9]),
    ):
        gradient = vectors @ np.array([0.3, -0.2, 0.5, 0.1, -0.4])
        step = vectors.T @ prfo_step(gradient, values, vectors)
        along = vectors.T @ gradient
        assert step[0] * along[0] > 0
        assert (step[1:] * along[1:] < 0).all()
    # Close to the saddle it is Newton's step.
    values = np.array([-2.0, 1.0, 3.0, 4.0, 9.0])
    tiny = 1e-5 * vectors @ np.ones(5)
    np.testing.assert_allclose(vectors.T @ prfo_step(tiny, values, vectors), -1e-5 / values, rtol=1e-4)
    assert np.linalg.norm(limit_length(np.ones(9), 0.5)) == pytest.approx(0.5)
    np.testing.assert_array_equal(limit_length(np.ones(9), 4.0), np.ones(9))
