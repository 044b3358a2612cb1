"""To ASE and back."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule

from hesse.errors import GeometryError
from hesse.structures import Structure, from_ase, to_ase
from oracles import crystal


def test_there_and_back() -> None:
    s = Structure(
        [6, 8],
        [[0, 0, 0], [0, 0, 1.13]],
        id="co",
        charge=1,
        multiplicity=2,
        tag="relaxed",
        group="CO",
        cell=9 * np.eye(3),
    )
    for original in (s, crystal()):
        back = from_ase(to_ase(original))
        np.testing.assert_array_equal(back.positions, original.positions)
        np.testing.assert_array_equal(back.numbers, original.numbers)
        np.testing.assert_array_equal(back.cell, original.cell)
        for name in ("id", "pbc", "charge", "multiplicity", "tag", "group"):
            assert getattr(back, name) == getattr(original, name)


def test_from_ase_objects() -> None:
    assert from_ase(molecule("H2O")).id == from_ase(molecule("H2O")).id
    assert from_ase(molecule("H2O"), id="w").id == "w"
    assert from_ase(bulk("Si")).pbc == (True, True, True)


def test_charge_must_be_a_number() -> None:
    atoms = molecule("H2O")
    atoms.info["charge"] = "plus one"
    with pytest.raises(GeometryError, match="whole numbers"):
        from_ase(atoms)
