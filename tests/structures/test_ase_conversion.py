"""Conversion of structures to and from ASE atoms."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule

from hesse.errors import GeometryError, LabelValueError
from hesse.structures import Request, Structure, from_ase, to_ase
from oracles import crystal


def test_conversion_to_ase_and_back_keeps_everything() -> None:
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
    with pytest.raises(LabelValueError, match="charge must be a whole number"):
        from_ase(atoms)


def test_methods_of_structures_convert_too() -> None:
    atoms = molecule("H2O")
    structure = Structure.from_ase(atoms, id="water")
    assert structure.id == "water"
    assert structure.to_ase() == to_ase(structure)


def test_objects_that_are_not_atoms_get_a_reply() -> None:
    with pytest.raises(GeometryError, match=r"expected ase\.Atoms, got list.*as_structures"):
        from_ase([molecule("H2O")])  # type: ignore[arg-type]


def test_requests_take_keywords_only() -> None:
    with pytest.raises(TypeError, match="positional"):
        Request(True, True)  # type: ignore[misc]
