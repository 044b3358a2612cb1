"""Reaction paths against steepest descent integrated with the exact gradient and very small steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import closed_form_engines
import oracles
from hesse.engines import XtbEngine
from hesse.errors import ConfigError, LabelShapeError, RequestError, UnknownOptionError
from hesse.pes import irc, minimize, saddle
from hesse.structures import Structure

LIFT = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 0.0]])
"""Two atoms out of the plane of the rhombus."""


@pytest.fixture(scope="module")
def top():
    """The transition state of four Morse atoms of different masses."""
    result = saddle(oracles.rhombus(0, numbers=(6, 8, 1, 6)), closed_form_engines.own_engine(), fmax=1e-7)
    assert result.converged, result.reason
    return result.structure, oracles.Morse().exact(result.structure).hessian


def exact_descent(structure, hessian, lengths):
    """Mass-weighted positions along the path, by a high-order integrator on the closed form."""
    from ase.data import atomic_masses

    root = np.repeat(np.sqrt(atomic_masses[structure.numbers]), 3)
    _values, vectors = np.linalg.eigh(hessian.reshape(12, 12) / np.outer(root, root))
    mode = vectors[:, 0] * np.sign(vectors[np.abs(vectors[:, 0]).argmax(), 0])

    def downhill(s, q):
        gradient = (
            oracles.Morse().exact(structure.with_positions((q / root).reshape(-1, 3))).gradient.reshape(-1) / root
        )
        return -gradient / np.linalg.norm(gradient)

    near = 1e-3  # there the mode is the path to second order
    start = structure.positions.reshape(-1) * root + near * mode
    result = solve_ivp(downhill, (near, max(lengths)), start, method="DOP853", rtol=1e-9, atol=1e-10, t_eval=lengths)
    return result.y.T, root


def test_points_lie_on_the_path_and_errors_fall_with_the_step(top):
    structure, hessian = top
    steps = [0.2, 0.1, 0.05]
    reference, root = exact_descent(structure, hessian, [1.0])
    errors = []
    for step in steps:
        result = irc(structure, closed_form_engines.own_engine(), hessian=hessian, step=step, directions="forward")
        k = round(1.0 / step) - 1
        assert result.forward[k].path_length == pytest.approx(1.0)
        errors.append(np.linalg.norm(result.forward[k].structure.positions.reshape(-1) * root - reference[0]))
    assert errors[-1] < 2e-3
    slope, _ = np.polyfit(np.log(steps), np.log(errors), 1)
    assert slope > 1.7


def test_both_halves_end_in_tetrahedra_that_mirror_each_other(top):
    structure, hessian = top
    engine = closed_form_engines.own_engine()
    result = irc(structure, engine, hessian=hessian, step=0.05)
    assert result.converged
    assert result.points[len(result.backward)] is result.saddle
    energies = np.array([p.energy for p in result.points])
    top_at = len(result.backward)
    assert (np.diff(energies[: top_at + 1]) > 0).all()
    assert (np.diff(energies[top_at:]) < 0).all()
    arcs = np.array([p.path_length for p in result.points])
    np.testing.assert_allclose(np.diff(arcs), 0.05)
    # The plane of the rhombus is a mirror: both sides have the same energies.
    both = min(len(result.forward), len(result.backward))
    np.testing.assert_allclose(
        [p.energy for p in result.forward[:both]], [p.energy for p in result.backward[:both]], atol=1e-4
    )
    for end in (result.forward[-1], result.backward[-1]):
        relaxed = minimize(end.structure, engine, fmax=1e-3)
        assert relaxed.energy == pytest.approx(0.0, abs=1e-4)  # all six bonds at their minimum
    ids = [p.structure.id for p in result.points]
    assert len(set(ids)) == len(ids)
    assert not replace(result, forward=(), forward_end="energy rises").converged
    tiny = irc(structure, engine, hessian=hessian, step=1e-5, steps=3)
    assert len({p.structure.id for p in tiny.points}) == len(tiny.points)


def test_energies_and_forces_of_points_and_no_rotation(top):
    structure, hessian = top
    result = irc(structure, closed_form_engines.own_engine(), hessian=hessian, steps=8, fmax=1e-6)
    assert result.forward_end == result.backward_end == "steps"
    assert not result.converged
    for point in result.points:
        exact = oracles.Morse().exact(point.structure)
        assert point.energy == pytest.approx(exact.energy, abs=1e-9)
        np.testing.assert_allclose(point.forces, -exact.gradient, atol=1e-9)
        assert point.fmax == pytest.approx(np.linalg.norm(exact.gradient, axis=1).max())
    # Mass-weighted steepest descent keeps the center of mass and has no angular momentum.
    masses = np.array([12.011, 15.999, 1.008, 12.011])[:, None]
    for one, other in zip(result.points, result.points[1:], strict=False):
        moved = other.structure.positions - one.structure.positions
        middle = 0.5 * (other.structure.positions + one.structure.positions)
        assert np.abs((masses * moved).sum(0)).max() < 1e-6
        assert np.abs(np.cross(middle, masses * moved).sum(0)).max() < 2e-2  # of about 1 for a turning molecule


def test_isomerization_of_hydrogen_cyanide():
    """GFN2-xTB: the path from the triangular transition state ends in HCN on one side and in HNC on the other."""
    pytest.importorskip("tblite.interface", reason="tblite is not installed")
    engine = XtbEngine()
    guess = Structure([6, 7, 1], [[0, 0, 0], [1.19, 0, 0], [0.4, 1.15, 0]], id="hcn")
    result = saddle(guess, engine)
    assert result.converged, result.reason
    path = irc(result.structure, engine, hessian=result.hessian)
    assert path.converged
    ends = []
    for end in (path.forward[-1], path.backward[-1]):
        c, n, h = minimize(end.structure, engine).structure.positions
        ends.append("HCN" if np.linalg.norm(h - c) < np.linalg.norm(h - n) else "HNC")
    assert sorted(ends) == ["HCN", "HNC"]


def test_invalid_arguments_get_a_reply(top):
    structure, _hessian = top
    engine = closed_form_engines.own_engine()
    with pytest.raises(ConfigError, match="positive step"):
        irc(structure, engine, step=0.0)
    with pytest.raises(UnknownOptionError, match="forward"):
        irc(structure, engine, directions="foreward")
    with pytest.raises(LabelShapeError, match="expected"):
        irc(structure, engine, hessian=np.zeros((12, 12)))
    pushed = structure.with_positions(structure.positions + 0.1 * LIFT)
    with pytest.raises(RequestError, match="not stationary"):
        irc(pushed, engine)
    minimum = minimize(structure.with_positions(structure.positions + 0.4 * LIFT), engine)
    with pytest.raises(RequestError, match="no imaginary mode"):
        irc(minimum.structure, engine)
