"""Distances after superposition, and bonds that form or break."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule

from hesse.pes import bond_name, displacement
from hesse.structures import Structure, from_ase


def test_a_rotated_copy_has_not_moved() -> None:
    rng = np.random.default_rng(0)
    s = from_ase(molecule("CH3CH2OH"))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    moved = displacement(s, s.with_positions(s.positions @ turn + 5.0))
    assert moved.rmsd == pytest.approx(0.0, abs=1e-7)
    assert (moved.formed, moved.broken) == ((), ())
    mirror = displacement(s, s.with_positions(s.positions * [1.0, 1.0, -1.0] + rng.normal(0, 0.05, s.positions.shape)))
    assert mirror.rmsd > 0.03


def test_the_mirror_image_of_a_chiral_molecule_is_not_superposed() -> None:
    s = Structure([6, 1, 9, 17, 35], [[0, 0, 0], [0, 0, 1.1], [1.3, 0, -0.4], [-0.8, 1.5, -0.5], [-0.9, -1.6, -0.5]])
    assert displacement(s, s.with_positions(s.positions * [1.0, -1.0, 1.0])).rmsd > 0.3


def test_one_atom_of_many_that_moves_is_another_geometry() -> None:
    """The mean over 512 atoms hardly notices a hop of 1 Å; images in other cells are no motion."""
    s = from_ase(bulk("Cu", cubic=True) * (4, 4, 8))
    hop = s.positions.copy()
    hop[7, 0] += 1.0
    moved = displacement(s, s.with_positions(hop))
    assert moved.rmsd < 0.05
    assert moved.largest == pytest.approx(1.0, abs=0.01)
    assert not moved.is_below(0.05)
    wrapped = s.positions + 0.4 + np.random.default_rng(0).integers(-2, 3, s.positions.shape) @ s.cell
    assert displacement(s, s.with_positions(wrapped)).is_below(1e-6)


def test_a_hydrogen_that_moves_over_breaks_one_bond_and_forms_another() -> None:
    # Hydrogen cyanide and isocyanide.
    hcn = Structure([6, 7, 1], [[0, 0, 0], [1.15, 0, 0], [-1.07, 0, 0]])
    hnc = hcn.with_positions(np.array([[0, 0, 0], [1.17, 0, 0], [2.17, 0, 0]]))
    moved = displacement(hcn, hnc)
    assert [bond_name(hcn, bond) for bond in moved.broken] == ["C0-H2"]
    assert [bond_name(hcn, bond) for bond in moved.formed] == ["N1-H2"]
    assert displacement(hnc, hcn).formed == moved.broken


def test_a_length_near_the_limit_is_no_change() -> None:
    limit = 1.3 * (0.76 + 0.31)
    pair = [Structure([6, 1], [[0, 0, 0], [limit + shift, 0, 0]]) for shift in (-0.02, 0.02)]
    assert displacement(*pair) == displacement(pair[0], pair[1])
    assert (displacement(*pair).formed, displacement(*pair).broken) == ((), ())


def test_bonds_of_crystals_cross_the_boundary() -> None:
    silicon = from_ase(bulk("Si", "diamond", 5.43))
    pulled = silicon.with_positions(silicon.positions + np.array([[0.0], [0.9]]))
    moved = displacement(silicon, pulled)
    assert moved.broken == ((0, 1),)
    assert moved.rmsd == pytest.approx(0.9 * 3**0.5 / 2)
