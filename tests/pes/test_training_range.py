"""Searches, paths, relaxations and dynamics with a model say when they leave its training data."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import oracles
from hesse.engines import PotentialEngine, XtbEngine
from hesse.errors import ExtrapolationWarning
from hesse.models import Ensemble
from hesse.pes import describe_outside, extrapolation, irc, minimize, run_md, saddle
from hesse.potential import known_environments
from hesse.structures import Structure, TrainingEnvironments

TETRAHEDRON = 0.42 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])


def around(positions: np.ndarray) -> list[Structure]:
    rng = np.random.default_rng(0)
    shape = positions.shape
    return [Structure([6] * 4, positions + rng.normal(0, 0.03, shape), id=str(i)) for i in range(40)]


def engine(trained_on: list[Structure]) -> PotentialEngine:
    model = oracles.Morse()
    model.training_environments = TrainingEnvironments.from_structures(trained_on)
    return PotentialEngine(model)


@pytest.fixture(scope="module")
def top() -> Structure:
    found = saddle(oracles.rhombus(1), PotentialEngine(oracles.Morse()), fmax=1e-3)
    assert found.converged
    assert found.extrapolation is None
    return found.structure


@pytest.fixture(scope="module")
def bottom(top: Structure) -> np.ndarray:
    return minimize(Structure([6] * 4, TETRAHEDRON), PotentialEngine(oracles.Morse())).structure.positions


def test_a_model_of_minima_is_outside_at_the_saddle_and_on_the_path(top: Structure, bottom: np.ndarray) -> None:
    minima = engine(around(bottom))
    with pytest.warns(
        ExtrapolationWarning, match='structure "rhombus": the last geometry .* outside the training data'
    ):
        found = saddle(oracles.rhombus(1), minima)
    assert found.converged
    assert found.extrapolation is not None
    assert found.extrapolation.outside
    assert found.extrapolation == extrapolation(minima, found.structure)
    with pytest.warns(ExtrapolationWarning, match="a part of the path"):
        path = irc(found, minima, hessian=found.hessian)
    assert path.extrapolation == extrapolation(minima, *(point.structure for point in path.points))
    (line,) = describe_outside([found.structure, Structure([6] * 4, bottom, id="low")], minima).splitlines()
    assert line.startswith("1 of 2 structures are outside the training data of the model")
    assert "the farthest is rhombus" in line


def test_a_model_of_saddles_is_outside_at_the_minimum_only(top: Structure, bottom: np.ndarray) -> None:
    tops = engine(around(top.positions))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = saddle(oracles.rhombus(1), tops)
        cold = run_md(top, tops, temperature=1.0, steps=5, stride=1)
    assert found.extrapolation is not None
    assert not found.extrapolation.outside
    assert cold.extrapolation is not None
    with pytest.warns(ExtrapolationWarning, match="the relaxed geometry"):
        low = minimize(Structure([6] * 4, TETRAHEDRON), tops)
    assert low.extrapolation is not None
    assert low.extrapolation.outside
    with pytest.warns(ExtrapolationWarning, match="a snapshot"):
        run_md(Structure([6] * 4, bottom), tops, temperature=1.0, steps=2, stride=1)


def test_other_engines_and_models_without_a_summary_are_not_compared(top: Structure) -> None:
    assert extrapolation(PotentialEngine(oracles.Morse()), top) is None
    assert describe_outside([top], PotentialEngine(oracles.Morse())) == ""
    pytest.importorskip("tblite.interface", reason="tblite is not installed")
    assert extrapolation(XtbEngine(), top) is None


def test_an_ensemble_has_the_summary_of_its_members(bottom: np.ndarray) -> None:
    member = engine(around(bottom)).potential
    assert known_environments(Ensemble([oracles.Morse(), member])) is member.training_environments


def test_a_search_tells_how_far_it_went_and_what_moves(top: Structure) -> None:
    found = saddle(oracles.rhombus(1), PotentialEngine(oracles.Morse()))
    assert 0.01 < found.displacement.rmsd < 0.5
    assert found.energy_change == pytest.approx(found.energy - found.history.energies[0])
    assert set(found.mode_atoms) == {0, 1, 2, 3}  # all four leave the plane
