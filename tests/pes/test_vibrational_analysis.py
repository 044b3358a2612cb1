"""Frequencies and zero-point energies against closed forms and against ASE."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule
from ase.vibrations import VibrationsData

import closed_form_engines
import hesse
import oracles
from hesse.errors import EngineError, LabelShapeError, RequestError
from hesse.structures import Structure

PAIR = Structure([6, 8], [[0, 0, 0], [1.2, 0, 0]], id="pair")


def test_a_diatomic_has_the_frequency_of_its_force_constant():
    """From ω = √(k/μ) with CODATA constants, independent of the units of Hesse."""
    result = hesse.vibrations(PAIR, closed_form_engines.own_engine(), minimize=True, fmax=1e-6)
    force_constant = oracles.Morse().exact(result.structure).hessian[0, 0, 0, 0]
    reduced = 12.011 * 15.999 / (12.011 + 15.999) * 1.66053906660e-27
    omega = np.sqrt(force_constant * 1.602176634e-19 * 1e20 / reduced)
    assert result.frequencies == pytest.approx([omega / (2 * np.pi * 2.99792458e10)], rel=1e-5)
    assert result.zpe == pytest.approx(0.5 * 1.054571817e-34 * omega / 1.602176634e-19, rel=1e-5)
    assert result.linear
    assert result.n_imaginary == 0
    assert result.fmax < 1e-6
    assert result.level == "closed form"
    assert "zero-point energy" in result.table()


def test_a_saddle_point_has_an_imaginary_mode():
    engine = closed_form_engines.own_engine()
    result = hesse.vibrations(hesse.saddle(oracles.rhombus(0), engine), engine)
    assert result.n_imaginary == 1
    assert result.frequencies[0] < 0
    assert not result.linear
    assert f"{-result.frequencies[0]:.1f}i" in result.table()
    real = result.frequencies[1:]
    assert result.zpe == pytest.approx(real.sum() / 2 / 8065.544, rel=1e-5)


def test_water_agrees_with_ase():
    pytest.importorskip("tblite.interface", reason="tblite is not installed")
    result = hesse.vibrations(molecule("H2O"), "gfn2", minimize=True, fmax=1e-3)
    data = VibrationsData(result.to_ase(), result.hessian)
    assert result.frequencies == pytest.approx(data.get_frequencies().real[-3:], abs=0.5)
    assert result.to_ase().get_potential_energy() == result.energy


def test_a_relaxation_that_does_not_converge_is_an_error():
    with pytest.raises(EngineError, match=r'"pair": not relaxed after 1 steps.*more steps'):
        hesse.vibrations(PAIR, closed_form_engines.own_engine(), minimize=True, steps=1)


def test_a_known_hessian_is_used() -> None:
    engine = closed_form_engines.HessianFails()
    top = oracles.rhombus(1)
    exact = oracles.Morse().exact(top).hessian
    given = hesse.vibrations(top, engine, hessian=exact)
    np.testing.assert_allclose(given.frequencies, hesse.vibrations(top, engine.engine).frequencies, atol=0.5)
    np.testing.assert_array_equal(given.hessian, exact)
    with pytest.raises(LabelShapeError, match=r"Use .reshape\(4, 3, 4, 3\)"):
        hesse.vibrations(top, engine, hessian=exact.reshape(12, 12))
    with pytest.raises(RequestError, match="relaxed"):
        hesse.vibrations(top, engine, hessian=exact, minimize=True)
