"""Rates at which surroundings change: their invariances and their values in the simplest cases."""

from __future__ import annotations

import numpy as np
import pytest

import oracles
from hesse.engines.finite_differences import relative_motion
from hesse.structures import Structure


def test_stretching_and_turning_a_diatomic():
    pair = Structure([1, 1], [[0, 0, 0], [0, 0, 2.0]])
    assert relative_motion(pair, np.array([[0, 0, -1.0], [0, 0, 1.0]])) == pytest.approx([2.0, 2.0])
    # Across the bond: an angle, of 2 over 2 Å.
    assert relative_motion(pair, np.array([[0, -1.0, 0], [0, 1.0, 0]])) == pytest.approx([1.0, 1.0])


def test_shifts_change_nothing_and_lone_atoms_have_no_surroundings():
    structure = oracles.molecule(6, 1)
    assert relative_motion(structure, np.ones((6, 3))) == pytest.approx(np.zeros(6))
    assert relative_motion(Structure([2], [[0, 0, 0]]), np.ones((1, 3))) == pytest.approx([0.0])


def test_turned_structures_have_the_same_rates():
    structure = oracles.molecule(6, 1)
    direction = np.random.default_rng(0).normal(size=(6, 3))
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turned = relative_motion(structure.with_positions(structure.positions @ turn.T), direction @ turn.T)
    assert turned == pytest.approx(relative_motion(structure, direction))


def test_crystals_see_the_nearest_image():
    cell = 10.0 * np.eye(3)
    split = Structure([1, 1], [[0, 0, 0.5], [0, 0, 9.5]], cell=cell, pbc=(True, True, True))
    whole = Structure([1, 1], [[0, 0, 0.5], [0, 0, -0.5]])
    direction = np.array([[0, 0, 1.0], [0, 1.0, 0]])
    assert relative_motion(split, direction) == pytest.approx(relative_motion(whole, direction))
