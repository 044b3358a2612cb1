"""Rattled geometries: displacements, strain, no collisions."""

from __future__ import annotations

import numpy as np
import pytest

import oracles
from hesse.errors import ConfigError, RequestError
from hesse.sampling import RattleSampling, has_collision, sample_rattled


def sample(structures, **options):
    return sample_rattled(structures, RattleSampling(**options), quiet=True)


def test_displacements_have_the_requested_size():
    """6 atoms, 200 samples: 3600 Gaussians, standard error of their deviation 1.2 %; tolerance: four times that."""
    start = oracles.molecule(6, 1, name="m", group="family")
    result = sample([start], sizes=(0.02, 0.05), count=200)
    assert [s.id for s in result.structures[:2]] == ["m/rattle-0.02/0000", "m/rattle-0.02/0001"]
    assert {s.group for s in result.structures} == {"family"}
    for size in (0.02, 0.05):
        moved = np.array([s.positions - start.positions for s in result.structures if s.tag == f"rattle-{size}"])
        assert moved.std() == pytest.approx(size, rel=0.05)
        assert abs(moved.mean()) < 4 * size / np.sqrt(moved.size)


def test_a_sample_is_reproducible_from_its_id():
    one, two = oracles.molecule(4, 1, name="one"), oracles.molecule(5, 2, name="two")
    full = {s.id: s.positions for s in sample([one, two], sizes=(0.05, 0.1), count=4).structures}
    for s in sample([two], sizes=(0.1,), count=2).structures:
        assert np.array_equal(s.positions, full[s.id])
    assert not np.allclose(sample([two], seed=1).structures[0].positions, full["two/rattle-0.05/0000"])


def test_strain_is_symmetric_and_moves_the_atoms():
    crystal = oracles.crystal(1)
    result = sample([crystal], sizes=(0.0,), strain=0.03, count=300)
    strains = np.array([np.linalg.solve(crystal.cell, s.cell) - np.eye(3) for s in result.structures])
    assert strains == pytest.approx(strains.transpose(0, 2, 1), abs=1e-12)
    upper = strains[:, *np.triu_indices(3)]
    assert upper.std(0) == pytest.approx(np.full(6, 0.03), rel=0.2)
    fractional = np.linalg.solve(crystal.cell.T, crystal.positions.T).T
    for s in result.structures:
        assert pytest.approx(fractional, abs=1e-10) == np.linalg.solve(s.cell.T, s.positions.T).T
    plain = sample([crystal], sizes=(0.01,), count=1).structures[0]
    assert np.array_equal(plain.cell, crystal.cell)


def test_collisions_are_drawn_again_or_recorded():
    pair = oracles.molecule(6, 1)
    wild = sample([pair], sizes=(0.4,), count=30)
    assert wild.structures
    assert not any(has_collision(s) for s in wild.structures)
    hopeless = sample([pair], min_contact=3.0, count=2)
    assert not hopeless.structures
    assert all("collide in each of 100" in f.reason for f in hopeless.failures)


def test_invalid_settings_get_a_reply():
    for options, words in (
        ({"sizes": ()}, "sizes"),
        ({"sizes": (-0.1,)}, "sizes"),
        ({"sizes": (0.1, 0.1)}, "differ"),
        ({"sizes": (0.0,)}, "moves nothing"),
        ({"strain": 0.7}, "strain"),
        ({"count": 0}, '"count" = 0: expected 1 or more'),
    ):
        with pytest.raises(ConfigError, match=words):
            RattleSampling(**options)
    with pytest.raises(RequestError, match="no cell in all three directions"):
        sample([oracles.molecule(3, 1)], strain=0.01)
