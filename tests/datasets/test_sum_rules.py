"""Sum rules: exact labels obey them, and white noise gives violations of the same variance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hesse.datasets import Dataset, find_issues, principal_rigid_body_modes, sum_rule_errors
from hesse.structures import Properties, Structure
from oracles import LennardJones, Morse, Polynomial, atom, crystal, labeled, linear, molecule, molecules, rotation

STRUCTURES = [*molecules([4, 9, 2, 6]), linear(), atom(), crystal(1)]
NAMES = ("forces", "hvp", "hessian")


@pytest.fixture(scope="module")
def exact() -> Dataset:
    return labeled(Morse(), STRUCTURES, probes=2, hessian=True)


def test_motions_are_orthonormal_and_complete() -> None:
    basis = principal_rigid_body_modes(STRUCTURES)
    assert basis.present.sum(0).tolist() == [6, 6, 5, 6, 5, 3, 3]
    labels = Properties.concatenate([Properties.single(len(s)) for s in STRUCTURES])
    for i in range(len(STRUCTURES)):
        motions = basis.motions[:, labels.atom_slice(i)].reshape(6, -1)
        torch.testing.assert_close(motions @ motions.T, torch.diag(basis.present[:, i].double()))


def test_exact_labels_have_no_violation(exact: Dataset) -> None:
    defects = sum_rule_errors(exact.structures, exact.labels)
    for name in NAMES:
        assert float(defects.noise(name).nan_to_num(0.0).max()) < 1e-11
    # No rotation of single atoms and of crystals.
    assert defects.hessian_rotation.isnan().tolist() == [False] * 5 + [True] * 2
    assert float(defects.hessian_asymmetry.max()) < 1e-12


def test_an_energy_that_is_not_invariant_violates_all_rules() -> None:
    defects = sum_rule_errors(STRUCTURES, labeled(Polynomial(), STRUCTURES, hessian=True).labels)
    for name in NAMES:
        assert float(defects.noise(name).min()) > 1e-3


@pytest.mark.parametrize("sigma", [1e-3, 0.2])
@pytest.mark.parametrize("name", NAMES)
def test_every_rule_measures_white_noise(name: str, sigma: float) -> None:
    clean = labeled(Morse(), molecules([7] * 150), probes=2, hessian=True)
    value = getattr(clean.labels, name)
    noise = sigma * torch.randn(value.shape, dtype=value.dtype, generator=torch.Generator().manual_seed(1))
    defects = sum_rule_errors(clean.structures, clean.labels.replace(**{name: value + noise}))
    kinds = ["translation", "rotation"] + (["asymmetry"] if name == "hessian" else [])
    for kind in kinds:
        measured = float(getattr(defects, f"{name}_{kind}").square().mean().sqrt())
        # At least 450 independent numbers: four standard deviations.
        assert measured == pytest.approx(sigma, rel=4 / np.sqrt(2 * 450))
    assert defects.noise_floor(name) == pytest.approx(sigma, rel=4 / np.sqrt(2 * 900))


def test_missing_labels_and_other_structures_do_not_matter(exact: Dataset) -> None:
    parts = [exact.labels.select(torch.tensor([i])) for i in range(len(exact))]
    parts[1] = parts[1].replace(forces=None)
    parts[3] = parts[3].replace(hessian=None)
    parts[4] = parts[4].replace(hvp=None, probes=None)
    mixed = sum_rule_errors(STRUCTURES, Properties.concatenate(parts))
    for i, (structure, part) in enumerate(zip(STRUCTURES, parts, strict=True)):
        alone = sum_rule_errors([structure], part)
        for name in ("forces_translation", "forces_rotation", "hessian_translation", "hessian_rotation"):
            torch.testing.assert_close(getattr(mixed, name)[i], getattr(alone, name)[0], equal_nan=True)
        for name in NAMES:
            torch.testing.assert_close(mixed.noise(name)[i], alone.noise(name)[0], equal_nan=True)
    # Without forces Hessians have to respond to rotations as some gradient does; products are not enough for that.
    assert float(mixed.hessian_rotation[1]) < 1e-9
    assert mixed.hvp_rotation[:, 1].isnan().all()
    assert not mixed.hessian_translation[1].isnan()


def test_violations_are_invariant_to_translation_and_rotation() -> None:
    s, turn = molecule(6, 4), rotation(3)
    data = labeled(LennardJones(), [s], probes=1, hessian=True)
    labels = data.labels.map_tensors(lambda x: x)
    assert labels.hessian is not None
    assert labels.forces is not None
    noisy = labels.hessian + 0.1 * torch.randn(labels.hessian.shape, dtype=torch.float64)
    r = torch.from_numpy(turn)
    hessian = torch.einsum("xy,aybz,wz->axbw", r, noisy.reshape(6, 3, 6, 3), r).reshape(-1)
    original = sum_rule_errors([s], labels.replace(hessian=noisy))
    rotated = sum_rule_errors(
        [Structure(s.numbers, s.positions @ turn.T + 50.0)],
        labels.replace(hessian=hessian, forces=labels.forces @ r.T, hvp=None, probes=None),
    )
    for name in ("hessian_translation", "hessian_rotation", "hessian_asymmetry"):
        torch.testing.assert_close(getattr(original, name), getattr(rotated, name), rtol=1e-9, atol=1e-11)


def test_published_dft_hessians(shared_data: object) -> None:
    """wB97X Hessians: the noise floor agrees with independent measurements (sum rule 0.07 to 0.45 eV/Å² unscaled)."""
    from pathlib import Path

    from hesse.datasets import read_dataset

    file = Path(str(shared_data)) / "horm_sample" / "horm_sample_dev.npz"
    if not file.is_file():
        pytest.skip("no HORM sample")
    data = read_dataset(file, energy_unit="eV", length_unit="angstrom")
    defects = sum_rule_errors(data.structures, data.labels)
    assert 0.002 < defects.noise_floor("hessian") < 0.01
    assert defects.noise_floor("forces") < 1e-3


def test_a_hessian_of_another_geometry_is_found_without_forces() -> None:
    """The response to rotations must be e × g for one gradient g: also away from minima, and whatever g is."""
    rng = np.random.default_rng(3)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    for seed in range(3):
        structure = molecules([5 + seed], seed=seed)[0]
        labels = labeled(Morse(), [structure], probes=0, hessian=True).labels
        bare = labels.replace(forces=None)
        size = float(labels.hessian.square().mean().sqrt())  # type: ignore[union-attr]
        assert float(sum_rule_errors([structure], bare).hessian_rotation[0]) < 1e-9 * size
        for positions in (structure.positions @ turn.T, structure.positions[::-1]):
            wrong = structure.with_positions(np.array(positions))
            assert float(sum_rule_errors([wrong], bare).hessian_rotation[0]) > 0.1 * size
            assert "hessian" in {issue.label for issue in find_issues([wrong], bare)[0]}


def test_noise_without_forces_has_its_size() -> None:
    """White noise of 0.01 eV/Å² in the Hessians of 200 molecules: within 10 %, four standard errors."""
    rng = np.random.default_rng(8)
    structures = molecules([6] * 200, seed=1)
    parts = [
        Properties.single(6, hessian=labeled(Morse(), [s], probes=0, hessian=True).labels.hessian_of(0).numpy() + noise)
        for s, noise in zip(structures, 0.01 * rng.normal(size=(200, 6, 3, 6, 3)), strict=True)
    ]
    found = sum_rule_errors(structures, Properties.concatenate(parts)).hessian_rotation
    assert float(found.square().mean().sqrt()) == pytest.approx(0.01, rel=0.1)
