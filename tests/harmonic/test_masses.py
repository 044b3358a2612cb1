"""Masses of isotopes, and replies to those that do not exist."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from hesse.errors import RequestError
from hesse.harmonic.masses import atom_masses, isotope_mass
from hesse.structures import Structure, from_ase

CHLOROFORM = Structure([6, 1, 17, 17, 17], np.diag([0.0, 1.1, 1.7])[[0, 1, 2, 2, 2]] + np.arange(5)[:, None] * 0.7)


def test_average_and_principal_masses() -> None:
    assert atom_masses(CHLOROFORM) == pytest.approx([12.011, 1.008, 35.45, 35.45, 35.45], abs=0.01)
    assert atom_masses(CHLOROFORM, "principal") == pytest.approx([12.0, 1.007825, *[34.968853] * 3], abs=1e-5)


def test_isotopes_replace_single_atoms() -> None:
    masses = atom_masses(CHLOROFORM, "principal", {0: "13C", 1: "D", 2: 36.966, 3: "Cl37", 4: "36.9"})
    assert masses == pytest.approx([13.003355, 2.014102, 36.966, 36.965903, 36.9], abs=1e-5)
    assert isotope_mass(1, "3H") == isotope_mass(1, "t") == pytest.approx(3.016049, abs=1e-6)


def test_masses_of_the_structure_stay() -> None:
    heavy = from_ase(Atoms("OHH", [[0, 0, 0], [1, 0, 0], [0, 1, 0]], masses=[15.999, 2.014, 1.008]))
    assert atom_masses(heavy) == pytest.approx([15.999, 2.014, 1.008])
    assert atom_masses(heavy, "principal") == pytest.approx([15.994915, 2.014, 1.007825], abs=1e-5)


@pytest.mark.parametrize(
    ("masses", "isotopes", "message"),
    [
        ("heavy", None, 'or one of average, principal; got "heavy"'),
        ([12.0], None, "expected 5 positive masses"),
        ([12.0, 0.0, 35.0, 35.0, 35.0], None, "expected 5 positive masses"),
        (["a"] * 5, None, "expected 5 positive masses"),
        (None, {7: "D"}, "no atom 7; its atoms are 0 to 4"),
        (None, 3, "isotopes: expected atoms and their isotopes"),
        (None, {"a": "D"}, "isotopes: expected a whole number"),
        (None, {0: "D"}, '"2H"|"D"'),
        (None, {0: "37Cl"}, "is an isotope of Cl, but the atom is C"),
        (None, {0: "19C"}, "not in the table; give it in u"),
        (None, {0: "13Xx"}, "no element Xx"),
        (None, {0: "heavy"}, "no isotope of C; expected its mass in u, or one of 12C, 13C, 14C"),
        (None, {0: 0.0}, "no isotope of C has a mass of 0 u"),
        (None, {1: -2.0}, "no isotope of H has a mass of -2 u"),
        (None, {0: 130.0}, "no isotope of C has a mass of 130 u"),
    ],
)
def test_replies(masses: object, isotopes: dict[int, str | float] | None, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        atom_masses(CHLOROFORM, masses, isotopes)  # type: ignore[arg-type]
