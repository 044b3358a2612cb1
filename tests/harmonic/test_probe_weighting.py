"""Weighted probes: their covariance, and the error that they estimate without bias."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.data import atomic_masses

from hesse.harmonic.normal_modes import normal_modes
from hesse.harmonic.probe_weighting import probe_transform, probe_transforms
from hesse.structures import Properties, Structure
from oracles import Morse, atom, crystal, labeled, molecules

DATA = labeled(Morse(), [*molecules([4, 6, 3]), crystal(2)], hessian=True)


def parts(index: int) -> tuple[Structure, np.ndarray]:
    return DATA.structures[index], DATA.labels.hessian_of(index).numpy()


def weights_of(weighting: str, frequencies: np.ndarray) -> np.ndarray:
    if weighting == "mass":
        return np.ones(len(frequencies))
    if weighting == "soft-modes":
        return np.asarray(1 / (1 + (frequencies / 300.0) ** 2))
    raised = np.maximum(frequencies, 100.0)
    return np.asarray(1 / (raised * np.tanh(raised / (2 * 207.2238))))  # kT/hc at 298.15 K in cm⁻¹


@pytest.mark.parametrize("weighting", ["mass", "soft-modes", "free-energy"])
@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_the_covariance_is_that_of_the_formula(index: int, weighting: str) -> None:
    structure, hessian = parts(index)
    n = len(structure)
    transform = probe_transform(structure, hessian, weighting, soft_below=300.0).reshape(3 * n, 3 * n)  # type: ignore[arg-type]
    covariance = transform @ transform.T
    assert np.trace(covariance) == pytest.approx(3 * n)
    modes = normal_modes(structure, hessian)
    root_mass = np.repeat(np.sqrt(atomic_masses[structure.numbers]), 3)
    in_modes = modes.vectors.reshape(len(modes), -1) @ (root_mass[:, None] * covariance * root_mass)
    in_modes = in_modes @ modes.vectors.reshape(len(modes), -1).T
    weights = weights_of(weighting, modes.frequencies)
    np.testing.assert_allclose(in_modes / in_modes[0, 0], np.diag(weights / weights[0]), rtol=1e-5, atol=1e-9)


def test_soft_modes_are_favored() -> None:
    structure, hessian = parts(1)
    n = len(structure)
    modes = normal_modes(structure, hessian)
    soft, mass = (
        probe_transform(structure, hessian, w, soft_below=300.0).reshape(3 * n, 3 * n)  # type: ignore[arg-type]
        for w in ("soft-modes", "mass")
    )
    stiffest = modes.vectors[-1].reshape(-1) * np.repeat(np.sqrt(atomic_masses[structure.numbers]), 3)
    share = [np.square(p.T @ stiffest).sum() for p in (soft, mass)]
    assert share[0] < share[1]


def test_the_mean_over_probes_is_the_weighted_error() -> None:
    """E|ΔH P z|² = ‖ΔH P‖²: 20,000 draws, so that the mean is known to about 1 %; four standard errors of the sample
    are allowed (probability of a false alarm 6e-5, of missing a bias of 10 % below 1e-6)."""
    rng = np.random.default_rng(0)
    structure, hessian = parts(1)
    n = len(structure)
    error = rng.normal(size=(3 * n, 3 * n))
    error = error + error.T
    transform = probe_transform(structure, hessian, "soft-modes").reshape(3 * n, 3 * n)
    z = rng.choice([-1.0, 1.0], size=(20_000, 3 * n))
    squares = np.square(z @ transform.T @ error).sum(1)
    expected = np.square(error @ transform).sum()
    standard_error = squares.std() / np.sqrt(len(squares))
    assert standard_error < 0.02 * expected
    assert abs(squares.mean() - expected) < 4 * standard_error


def test_many_structures_in_the_layout_of_their_hessians() -> None:
    bare = Properties.single(2)
    structures = [DATA.structures[0], molecules([2])[0], DATA.structures[2]]
    labels = Properties.concatenate(
        [DATA.labels.select(torch.tensor([0])), bare, DATA.labels.select(torch.tensor([2]))]
    )
    assert labels.hessian is not None
    flat = probe_transforms(structures, labels.hessian, labels.mask("hessian"), "soft-modes")
    one = torch.from_numpy(probe_transform(*parts(0), "soft-modes")).reshape(-1)
    other = torch.from_numpy(probe_transform(*parts(2), "soft-modes")).reshape(-1)
    torch.testing.assert_close(flat, torch.cat([one, other]))


def test_a_single_atom_keeps_its_probes() -> None:
    np.testing.assert_array_equal(probe_transform(atom(), np.zeros((1, 3, 1, 3)), "mass").reshape(3, 3), np.eye(3))
