"""Rigid-body motions: the same space as from numpy's SVD, with and without masses, for all kinds of structures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.data import atomic_masses

from hesse.structures import Structure
from hesse.structures.rigid_body import RigidBodyModes, rigid_body_modes
from oracles import atom, crystal, linear, molecule

STRUCTURES = [molecule(5, seed=2), linear(3), atom(6), crystal(1), molecule(4, seed=6), linear(2)]
COUNTS = [6, 5, 3, 3, 6, 5]


def modes_of(structures: list[Structure], *, masses: bool = False, tolerance: float = 1e-3) -> RigidBodyModes:
    weights = torch.tensor(atomic_masses[np.concatenate([s.numbers for s in structures])])
    return rigid_body_modes(
        torch.tensor(np.concatenate([s.positions for s in structures])),
        torch.tensor([len(s) for s in structures]),
        torch.tensor([s.periodic for s in structures]),
        masses=weights if masses else None,
        linear_tolerance=tolerance,
    )


@pytest.mark.parametrize("masses", [False, True])
def test_motions_are_orthonormal_and_span_translations_and_rotations(masses: bool) -> None:
    modes = modes_of(STRUCTURES, masses=masses)
    assert modes.present.sum(0).tolist() == COUNTS
    for k, structure in enumerate(STRUCTURES):
        n = len(structure)
        rows = modes.motions[:, modes.structure_index == k].reshape(6, -1)
        torch.testing.assert_close(rows @ rows.T, torch.diag(modes.present[:, k].double()), rtol=0, atol=1e-12)
        roots = np.sqrt(atomic_masses[structure.numbers])[:, None] if masses else np.ones((n, 1))
        expected = [np.tile(e, (n, 1)) * roots for e in np.eye(3)]
        if not structure.periodic:
            expected += [np.cross(e, structure.positions) * roots for e in np.eye(3)]
        for motion in expected:
            flat = torch.from_numpy(motion.ravel())
            torch.testing.assert_close(rows.T @ (rows @ flat), flat, rtol=0, atol=1e-10)


def test_rotations_are_about_the_given_axes() -> None:
    structure = molecule(4, seed=6)
    modes = modes_of([structure])
    centered = structure.positions - structure.positions.mean(axis=0)
    for axis, arm, motion in zip(modes.axes[0], modes.lever_arms[:, 0], modes.motions[3:], strict=True):
        np.testing.assert_allclose(motion * arm, np.cross(axis, centered), atol=1e-12)
    gradient = torch.randn(4, 3, dtype=torch.float64)
    for axis, arm, change in zip(modes.axes[0], modes.lever_arms[:, 0], modes.rotated_gradient(gradient), strict=True):
        np.testing.assert_allclose(change * arm, np.cross(axis, gradient), atol=1e-12)


@pytest.mark.parametrize(("bend", "count"), [(0.0, 5), (5e-4, 5), (3e-3, 6)])
def test_the_tolerance_is_a_fraction_of_the_extent_along_the_axis(bend: float, count: int) -> None:
    # The root mean square perpendicular to the axis is √(2/9) of the height, along the axis √(2/3) Å.
    bent = Structure([6, 6, 6], [[-1.0, 0, 0], [0, bend * np.sqrt(3.0), 0], [1.0, 0, 0]])
    assert int(modes_of([bent]).present.sum()) == count


def test_atoms_that_are_not_single_by_rounding_alone_do_not_rotate() -> None:
    single = Structure([26], [[1e3 / 3, -1e3 / 7, 0.1]])
    assert int(modes_of([single], masses=True).present.sum()) == 3


def test_projected_directions_hold_no_rigid_body_motion_and_keep_the_rest() -> None:
    modes = modes_of(STRUCTURES)
    directions = torch.randn(2, len(modes.structure_index), 3, dtype=torch.float64)
    projected = modes.project_out(directions)
    torch.testing.assert_close(modes.project_out(projected), projected, rtol=0, atol=1e-13)
    removed = directions - projected
    for k in range(len(STRUCTURES)):
        atoms = modes.structure_index == k
        rows = modes.motions[:, atoms].reshape(6, -1)
        for p in range(2):
            assert float((rows @ projected[p, atoms].reshape(-1)).abs().max()) < 1e-13
            flat = removed[p, atoms].reshape(-1)
            torch.testing.assert_close(rows.T @ (rows @ flat), flat, rtol=0, atol=1e-13)
