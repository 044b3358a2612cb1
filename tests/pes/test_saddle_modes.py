"""Saddle searches that follow a given mode, start on a band, or do without Hessians."""

from __future__ import annotations

import numpy as np
import pytest

import closed_form_engines
import hesse
import oracles
from hesse.engines import PotentialEngine
from hesse.errors import RequestError
from hesse.structures import Structure

TETRAHEDRON = np.array([[0.55, 0, -0.39], [-0.55, 0, -0.39], [0, 0.55, 0.39], [0, -0.55, 0.39]])


class NoHessians(closed_form_engines.ClosedForm):
    """Counts products, and refuses Hessians."""

    def __init__(self) -> None:
        super().__init__(oracles.Morse())
        self.products = 0

    def analytic_derivatives(self, structure, energy_function, request):
        assert not request.hessian
        self.products += 0 if request.probes is None else len(request.probes)
        return super().analytic_derivatives(structure, energy_function, request)


@pytest.fixture(scope="module")
def top() -> hesse.pes.SaddleResult:
    return hesse.saddle(oracles.rhombus(0), closed_form_engines.own_engine(), fmax=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_without_hessians_the_same_saddle_is_found(seed, top):
    engine = NoHessians()
    result = hesse.saddle(oracles.rhombus(seed), engine, method="davidson", fmax=1e-3)
    assert result.converged, result.reason
    assert result.energy == pytest.approx(top.energy, abs=1e-4)
    assert (result.hessian, result.n_hessians) == (None, 0)
    assert result.n_products == engine.products > 0
    assert result.imaginary_frequency == pytest.approx(top.imaginary_frequency, rel=0.02)
    assert (result.lowest_modes.eigenvalues > 0).tolist() == [False, True]
    assert len(result.mode_atoms) == 4


def test_a_model_needs_no_hessians_either(top):
    result = hesse.saddle(oracles.rhombus(1), PotentialEngine(oracles.Morse(), "morse"), method="davidson", fmax=1e-3)
    assert result.converged, result.reason
    assert result.energy == pytest.approx(top.energy, abs=1e-4)


def test_a_search_without_hessians_accepts_no_minimum():
    flat = hesse.saddle(oracles.rhombus(0), closed_form_engines.own_engine(), method="davidson", steps=1)
    assert not flat.converged
    assert flat.lowest_modes is None
    assert "after 1 steps" in flat.reason


def test_the_highest_image_of_a_band_is_a_start(top):
    engine = closed_form_engines.own_engine()
    band = hesse.neb(
        Structure([6] * 4, TETRAHEDRON), Structure([6] * 4, TETRAHEDRON * [1, 1, -1]), engine, images=5, fmax=0.5
    )
    found = hesse.saddle(band, engine)
    assert found.converged, found.reason
    assert found.energy == pytest.approx(top.energy, abs=1e-4)


def test_a_mode_is_followed_by_its_direction_or_number(top):
    """From a minimum, uphill along the mode that was asked for."""
    engine = closed_form_engines.own_engine()
    minimum = hesse.minimize(Structure([6] * 4, TETRAHEDRON), engine, fmax=1e-5).structure
    modes = hesse.normal_modes(minimum, oracles.Morse().exact(minimum).hessian, masses=np.ones(4))
    stiffest = modes.vectors[-1]
    displaced = minimum.with_positions(minimum.positions + 0.05 * stiffest)

    def moved(mode) -> float:
        step = hesse.saddle(displaced, engine, mode=mode, steps=1)
        return float(((step.structure.positions - displaced.positions) * stiffest).sum())

    assert abs(moved(None)) < 0.01  # along the lowest mode instead
    assert moved(stiffest) > 0.01
    assert moved(-stiffest) > 0.01
    assert moved(len(modes) - 1) > 0.01
    for wrong, reply in (
        (99, "modes 0 to 5, not 99"),
        (np.ones((4, 3)), "as a whole"),
        (np.ones(3), "a finite direction"),
    ):
        with pytest.raises(RequestError, match=reply):
            hesse.saddle(minimum, engine, mode=wrong)
    with pytest.raises(RequestError, match="takes no mode"):
        hesse.saddle(minimum, engine, mode=0, method="sella")
    with pytest.raises(RequestError, match="takes no Hessian"):
        hesse.saddle(minimum, engine, method="davidson", hessian=top.hessian)
