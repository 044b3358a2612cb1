"""`hesse.lowest_modes` takes ASE atoms, names, calculators and potentials, and replies to wrong arguments."""

from __future__ import annotations

import numpy as np
import pytest
from ase.calculators.emt import EMT

import hesse
import oracles
from hesse.errors import RequestError
from hesse.structures import Structure, to_ase


def test_any_kind_of_structure_and_engine_gives_the_same_modes() -> None:
    structure: Structure = oracles.molecule(8, 0)
    morse = oracles.Morse()
    expected = hesse.lowest_modes(structure, morse, 2, tolerance=1e-6)
    hessian = morse.exact(structure).hessian
    for engine in (
        hesse.PotentialEngine(morse),
        hesse.HesseCalculator(morse),
        lambda v: np.einsum("iajb,kjb->kia", hessian, v),
    ):
        result = hesse.lowest_modes(to_ase(structure), engine, 2, tolerance=1e-6)
        np.testing.assert_allclose(result.eigenvalues, expected.eigenvalues, atol=1e-8)


def test_an_ase_calculator_is_an_engine() -> None:
    from ase.build import bulk

    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.02, seed=1)
    result = hesse.lowest_modes(atoms, EMT(), tolerance=0.05, masses=True)
    assert result.frequencies[0] > 50


def test_wrong_arguments_get_a_reply() -> None:
    structure = oracles.molecule(4, 0)
    with pytest.raises(RequestError, match="structure first"):
        hesse.lowest_modes(oracles.Morse(), structure)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="expected an engine"):
        hesse.lowest_modes(structure, 3)
    with pytest.raises(RequestError, match="expected one structure"):
        hesse.lowest_modes([structure, oracles.molecule(5, 1)], oracles.Morse())
