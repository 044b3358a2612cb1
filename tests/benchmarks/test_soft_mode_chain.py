"""The force field of the chain, and its self-consistent phonons against those of python-sscha."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("phonopy", reason="needs phonopy")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "lattice"))

import soft_mode_chain as chain
from closed_forms import argon_like, rock_salt

import hesse
from hesse.errors import HarmonicWarning
from hesse.lattice import anharmonic, read_phonons
from hesse.structures import Request

pytestmark = pytest.mark.filterwarnings("ignore::hesse.errors.HarmonicWarning")


def test_derivatives_of_the_springs() -> None:
    harmonic = hesse.phonons(rock_salt(), argon_like(), supercell=2)
    engine, rest = chain.SpringsOfRockSalt(harmonic), harmonic.supercell
    rng = np.random.default_rng(0)
    moved = rest.with_positions(rest.positions + rng.normal(0, 0.2, rest.positions.shape))
    direction, step = rng.normal(size=rest.positions.shape), 1e-4
    found = engine.compute(moved, Request(probes=torch.as_tensor(direction[None]), forces=True))
    ahead, behind = (engine.compute(moved.with_positions(moved.positions + s * direction)) for s in (step, -step))
    slope = float((ahead.energy - behind.energy) / (2 * step))
    assert slope == pytest.approx(-float((found.forces.numpy() * direction).sum()), rel=1e-6)
    products = (behind.forces - ahead.forces).numpy() / (2 * step)
    np.testing.assert_allclose(found.hvp.numpy()[0], products, atol=1e-5)
    assert np.abs(found.forces.numpy().sum(axis=0)).max() < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [100.0, 300.0])
def test_self_consistent_phonons_of_python_sscha(shared_data: Path, temperature: float) -> None:
    """A crystal whose harmonic phonons are imaginary; both results have statistical errors."""
    folder = shared_data / "sscha" / "SnTe_ToyModel"
    if not folder.is_dir():
        pytest.skip("no reference data: shared/data/sscha")
    harmonic = read_phonons(folder / "ffield_dynq1").symmetrized()
    assert harmonic.imaginary_modes()[0].frequency < -1.5
    result = anharmonic(harmonic, chain.SpringsOfRockSalt(harmonic), temperature, snapshots=200, mesh=(4, 4, 4))
    assert result.converged
    expected = read_phonons(folder / f"final_sscha_T{temperature:.0f}_1")
    assert chain.difference(result.phonons, expected) < 0.05
    assert result.phonons.gamma[-1] == pytest.approx(expected.gamma[-1], abs=3 * result.frequency_errors.max())


def test_couplings_follow_the_frequencies() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HarmonicWarning)
        soft = hesse.phonons(rock_salt(), argon_like(), supercell=2)
    spectrum, scale = chain.spectrum(soft)
    assert spectrum.coupling == pytest.approx(1.0)
    record = soft.to_phonopy()
    record.force_constants = 4 * np.array(record.force_constants)
    from dataclasses import replace

    harder, same = chain.spectrum(replace(soft, record=record), scale)
    assert same == scale
    assert harder.coupling == pytest.approx(0.25, rel=0.02)
