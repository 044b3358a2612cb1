"""Curvature labels of crystals: pairs are products of the supercell, images too, checks tell of what is broken."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import hesse
import oracles
from hesse.curvature import HessianOperator
from hesse.errors import ConfigError, HarmonicWarning
from hesse.lattice import Phonons, crystal_labels, phonons, read_phonons

sys.path.insert(0, str(Path(__file__).parent))
from closed_forms import argon_like, rock_salt

pytest.importorskip("phonopy", reason="needs phonopy")


def salt(oracle: oracles.PairPotential, **options: object) -> Phonons:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HarmonicWarning)
        return phonons(rock_salt(), oracle, supercell=2, **options)  # type: ignore[arg-type]


def deviation(dataset: hesse.Dataset, oracle: oracles.PairPotential) -> float:
    """Largest relative difference between stored products and those of the potential."""
    assert dataset.labels.probes is not None
    assert dataset.labels.hvp is not None
    exact = HessianOperator(oracle, dataset.structures[0])(dataset.labels.probes)
    return float((dataset.labels.hvp - exact).abs().max() / exact.abs().max())


def test_pairs_and_their_images_are_products_of_the_supercell(tmp_path: Path) -> None:
    oracle = argon_like()
    labels = crystal_labels(salt(oracle), images=6)
    probes = labels.dataset.labels.probes
    assert probes is not None
    assert (labels.n_measured, len(probes)) == (2, 14)
    assert labels.sum_rule < 1e-10
    assert labels.asymmetry < 1e-10
    assert deviation(labels.dataset, oracle) < 1e-10
    np.testing.assert_allclose(probes.square().sum((1, 2)), 3 * 16)  # E[v vᵀ] = 1
    flat = probes.reshape(14, -1)
    overlaps = (flat @ flat.T).abs() / 48 - torch.eye(14)
    assert overlaps.max() < 1 - 1e-6  # no image is another one, or its negative
    again = crystal_labels(salt(oracle), images=6).dataset.labels.probes
    assert torch.equal(probes, again)
    hesse.write_dataset(tmp_path / "labels.h5", labels.dataset)
    back = hesse.read_dataset(tmp_path / "labels.h5")
    assert deviation(back, oracle) < 1e-10
    assert json.loads(back.metadata["hvp_displacement"]) == [0.0] * 14


def test_opposite_displacements_cancel_even_terms() -> None:
    # Atoms of rock salt have inversion; those of zinc blende do not, so that phonopy displaces them both ways.
    oracle = argon_like()
    for length, limit in ((0.04, 1e-2), (0.02, 2.5e-3)):
        labels = crystal_labels(salt(oracle, displacement=length), images=2)
        assert labels.without_opposite == 0
        assert labels.odd_part is not None
        assert labels.odd_part > 1e-4
        assert deviation(labels.dataset, oracle) < limit
        assert labels.displacements == pytest.approx(length)


def test_force_constants_alone_become_columns(tmp_path: Path) -> None:
    oracle = argon_like()
    result = salt(oracle)
    result.record.save(tmp_path / "phonopy_disp.yaml", settings={"force_sets": False, "force_constants": False})
    result.save(tmp_path / "FORCE_CONSTANTS", "text")
    labels = crystal_labels(read_phonons(tmp_path), images=1)
    assert labels.n_measured == 6
    assert len(labels.displacements) == 12
    assert deviation(labels.dataset, oracle) < 1e-6


def test_broken_labels_are_told(tmp_path: Path) -> None:
    result = salt(argon_like())
    forces = result.record.dataset["first_atoms"][0]["forces"]
    forces[5] += [0.01, 0.0, 0.02]
    labels = crystal_labels(result)
    assert labels.sum_rule > 1e-3
    assert labels.asymmetry > 1e-3
    assert "broken by" in str(labels)
    for images in (-1, 10**6):
        with pytest.raises(ConfigError, match="images"):
            crystal_labels(result, images=images)


def test_labels_of_displaced_supercells_of_a_program(shared_data: Path) -> None:
    folder = shared_data / "phonopy" / "NaCl"
    if not folder.is_dir():
        pytest.skip("no reference data: shared/data/phonopy")
    result = read_phonons(folder)
    labels = crystal_labels(result, images=4)
    assert labels.n_measured == 2
    assert labels.displacements == pytest.approx(0.01)
    assert labels.sum_rule < 1e-4
    # Against the force constants that phonopy fits to the same forces.
    probe, product = labels.dataset.labels.probes, labels.dataset.labels.hvp
    assert probe is not None
    assert product is not None
    hessian = hesse.read_dataset(folder).labels.hessian_of(0)
    expected = torch.einsum("iajb,kjb->kia", hessian, probe)
    assert (product - expected).square().mean().sqrt() < 5e-3 * expected.square().mean().sqrt()
