"""Modes of some atoms of a structure, the others being frozen."""

from __future__ import annotations

import numpy as np
import pytest
from ase.vibrations import VibrationsData

import oracles
from hesse.errors import LabelShapeError, RequestError
from hesse.harmonic.normal_modes import normal_modes
from hesse.structures import Structure, to_ase


def test_frequencies_agree_with_ase_and_frozen_atoms_do_not_move() -> None:
    structure = oracles.molecule(7, 2)
    hessian = oracles.Morse().exact(structure).hessian
    moving = [1, 4, 6]
    modes = normal_modes(structure, hessian, atoms=moving)
    reference = VibrationsData(to_ase(structure), hessian[moving][:, :, moving], indices=moving).get_frequencies()
    signed = np.where(np.abs(reference.imag) > 0, -reference.imag, reference.real)
    assert modes.frequencies == pytest.approx(np.sort(signed), rel=1e-6)
    assert modes.n_rigid == 0
    assert modes.vectors.shape == (9, 7, 3)
    assert not modes.vectors[:, [0, 2, 3, 5]].any()
    flat = modes.vectors.reshape(9, -1)
    assert flat @ flat.T == pytest.approx(np.eye(9), abs=1e-10)


def test_the_block_of_the_moving_atoms_is_enough_in_any_order() -> None:
    structure = oracles.molecule(5, 1)
    hessian = oracles.Morse().exact(structure).hessian
    whole = normal_modes(structure, hessian, atoms=[3, 0])
    part = normal_modes(structure, hessian[[0, 3]][:, :, [0, 3]], atoms=[0, 3])
    np.testing.assert_allclose(part.frequencies, whole.frequencies)
    with pytest.raises(LabelShapeError, match=r"expected \(2, 3, 2, 3\)"):
        normal_modes(structure, np.zeros((3, 3, 3, 3)), atoms=[0, 3])


def test_all_atoms_are_no_partial_hessian() -> None:
    structure = oracles.molecule(4, 1)
    hessian = oracles.Morse().exact(structure).hessian
    whole = normal_modes(structure, hessian, atoms=range(4))
    assert whole.atoms is None
    assert whole.n_rigid == 6


@pytest.mark.parametrize(("frozen", "n_rigid"), [(1, 3), (2, 1), (3, 0)])
def test_rotations_about_frozen_atoms_are_left_out(frozen: int, n_rigid: int) -> None:
    """At a minimum they have no restoring force: without the projection their frequencies would be zero."""
    import closed_form_engines
    import hesse

    relaxed = hesse.minimize(oracles.molecule(6, 3), closed_form_engines.own_engine(), fmax=1e-7, steps=2000)
    assert relaxed.converged
    structure = relaxed.structure
    hessian = oracles.Morse().exact(structure).hessian
    moving = list(range(frozen, 6))
    modes = normal_modes(structure, hessian, atoms=moving)
    assert modes.n_rigid == n_rigid
    assert len(modes) == 3 * len(moving) - n_rigid
    unprojected = VibrationsData(to_ase(structure), hessian[moving][:, :, moving], indices=moving).get_frequencies()
    assert np.sort(np.abs(unprojected))[n_rigid:] == pytest.approx(np.sort(np.abs(modes.frequencies)), abs=0.1)
    assert np.sort(np.abs(unprojected))[:n_rigid] == pytest.approx(np.zeros(n_rigid), abs=2.0)


@pytest.mark.parametrize("atoms", [[], [5], [-1], "0-2", [0.5], [[0, 1]]])
def test_wrong_atoms_get_a_reply(atoms: object) -> None:
    structure = Structure([6, 8, 1], [[0, 0, 0], [1.2, 0, 0], [-0.7, 0.9, 0]])
    with pytest.raises(RequestError, match="atoms"):
        normal_modes(structure, np.zeros((3, 3, 3, 3)), atoms=atoms)  # type: ignore[arg-type]
