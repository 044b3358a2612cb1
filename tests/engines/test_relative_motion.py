"""Motion of neighbors relative to each atom: invariances, and values in simple cases."""

from __future__ import annotations

import numpy as np
import pytest

import oracles
from hesse.engines.finite_differences import relative_motion
from hesse.structures import Structure


def test_stretching_and_rotating_a_diatomic():
    pair = Structure([1, 1], [[0, 0, 0], [0, 0, 2.0]])
    assert relative_motion(pair, np.array([[0, 0, -1.0], [0, 0, 1.0]])) == pytest.approx([2.0, 2.0])
    # Across the bond: an angle, of 2 over 2 Å.
    assert relative_motion(pair, np.array([[0, -1.0, 0], [0, 1.0, 0]])) == pytest.approx([1.0, 1.0])


def test_translations_and_single_atoms_have_no_relative_motion():
    structure = oracles.molecule(6, 1)
    assert relative_motion(structure, np.ones((6, 3))) == pytest.approx(np.zeros(6))
    assert relative_motion(Structure([2], [[0, 0, 0]]), np.ones((1, 3))) == pytest.approx([0.0])


def test_rotated_structures_have_the_same_relative_motion():
    structure = oracles.molecule(6, 1)
    direction = np.random.default_rng(0).normal(size=(6, 3))
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    rotated = relative_motion(structure.with_positions(structure.positions @ rotation.T), direction @ rotation.T)
    assert rotated == pytest.approx(relative_motion(structure, direction))


def test_the_nearest_image_counts_in_crystals():
    cell = 10.0 * np.eye(3)
    split = Structure([1, 1], [[0, 0, 0.5], [0, 0, 9.5]], cell=cell, pbc=(True, True, True))
    molecule = Structure([1, 1], [[0, 0, 0.5], [0, 0, -0.5]])
    direction = np.array([[0, 0, 1.0], [0, 1.0, 0]])
    assert relative_motion(split, direction) == pytest.approx(relative_motion(molecule, direction))
