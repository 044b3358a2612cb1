"""Relaxation of many structures together, and of structures that stop on saddle points."""

from __future__ import annotations

import numpy as np
import pytest

import closed_form_engines
import hesse
import oracles
from hesse.engines import PotentialEngine
from hesse.errors import ConfigError, EngineError, GeometryError
from hesse.pes import MinimizationResult, minimize_each
from hesse.structures import Structure


class Counted(oracles.Morse):
    """How many structures each pass evaluates."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, batch):
        self.sizes.append(len(batch.n_atoms))
        return super().forward(batch)


@pytest.mark.parametrize("optimizer", ["bfgs", "lbfgs", "fire"])
def test_structures_that_move_together_end_where_they_end_alone(optimizer):
    starts = oracles.molecules([3, 5, 4, 3])
    options = {"fmax": 0.01, "optimizer": optimizer, "steps": 40}
    model = Counted()
    together = dict(minimize_each(starts, PotentialEngine(model, "morse"), **options))
    assert max(model.sizes) == 4
    for k, start in enumerate(starts):
        alone, found = hesse.minimize(start, closed_form_engines.own_engine(), **options), together[k]
        assert isinstance(found, MinimizationResult)
        assert (found.steps, found.converged) == (alone.steps, alone.converged)
        np.testing.assert_allclose(found.structure.positions, alone.structure.positions, atol=1e-6)
        np.testing.assert_allclose(found.history.energies, alone.history.energies, atol=1e-7)
        assert bool(found.reason) is not found.converged


def test_one_that_fails_does_not_stop_the_others():
    crowded = Structure([1, 1], [[0, 0, 0], [0, 0, 0.1]], id="crowded")
    results = dict(minimize_each([oracles.molecule(3, 1), crowded, oracles.molecule(4, 2)], oracles.Morse(), fmax=0.01))
    assert isinstance(results[1], GeometryError)
    assert "crowded" in str(results[1])
    assert all(isinstance(results[k], MinimizationResult) for k in (0, 2))
    failing = closed_form_engines.ClosedForm(oracles.Morse(), noise=float("nan"))
    assert isinstance(dict(minimize_each([oracles.molecule(3, 1)], failing))[0], EngineError)


def test_a_flat_square_leaves_its_saddle_points():
    square = Structure([6] * 4, 1.05 * np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]]), id="square")
    engine = closed_form_engines.own_engine()
    flat = hesse.minimize(square, engine)
    assert flat.converged
    assert flat.energy > 2.0  # by symmetry it stays in the plane
    found = hesse.remove_imaginary_modes(square, engine)
    assert found.converged, found.reason
    assert found.rounds >= 1
    assert found.modes.n_imaginary == 0
    assert found.minimization.energy == pytest.approx(0.0, abs=1e-3)
    assert found.n_hessians == found.rounds + 1
    again = hesse.remove_imaginary_modes(found.minimization.structure, engine)
    assert (again.rounds, again.n_hessians) == (0, 1)
    short = hesse.remove_imaginary_modes(square, engine, steps=1)
    assert not short.converged
    assert short.modes is None
    with pytest.raises(ConfigError, match="at least one round"):
        hesse.remove_imaginary_modes(square, engine, rounds=0)


def test_a_cell_that_is_a_placeholder_is_refused():
    placeholder = Structure([6, 6], [[0, 0, 0], [1.2, 0, 0]], cell=np.eye(3), pbc=(True,) * 3, id="placeholder")
    for engine in (closed_form_engines.own_engine(), oracles.Morse()):
        with pytest.raises(GeometryError, match="placeholder"):
            hesse.minimize(placeholder, engine)
