"""Normal-mode samples: ids, reproducibility, temperature, replies to invalid arguments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import closed_form_engines
import oracles
from hesse.datasets import Dataset
from hesse.errors import ConfigError, RequestError, UnknownOptionError
from hesse.harmonic.normal_modes import normal_modes
from hesse.pes import minimize
from hesse.sampling import NormalModeSampling, has_collision, sample_normal_modes
from hesse.structures import Properties, Structure
from hesse.units import BOLTZMANN, HBAR

MORSE = "ase:closed_form_engines:own_engine"


def sample(structures, **options):
    workers = options.pop("workers", 0)
    engine = options.pop("engine", closed_form_engines.own_engine())
    return sample_normal_modes(structures, engine, NormalModeSampling(**options), workers=workers, quiet=True)


@pytest.fixture(scope="module")
def trimers():
    return [
        Structure([6, 1, 1], [[0, 0, 0], [1.3, 0.1, 0], [0.5, 1.0, 0.2]], id="a"),
        Structure(
            [8, 1, 1], [[0, 0, 0], [1.2, 0, 0.1], [0.4, 1.1, 0]], id="b", group="family", charge=1, multiplicity=2
        ),
    ]


def test_names_tags_and_groups(trimers):
    samples = sample(trimers, temperatures=(300.0, 1500.5), count=3).structures
    assert [s.id for s in samples[:5]] == [
        "a/relaxed",
        "a/nms-300K/0000",
        "a/nms-300K/0001",
        "a/nms-300K/0002",
        "a/nms-1500.5K/0000",
    ]
    assert [s.tag for s in samples[:5]] == ["relaxed", *["nms-300K"] * 3, "nms-1500.5K"]
    assert {s.group for s in samples[:7]} == {"a"}
    assert {s.group for s in samples[7:]} == {"family"}
    assert {(s.charge, s.multiplicity) for s in samples[7:]} == {(1, 2)}


@pytest.mark.slow
def test_a_sample_is_reproducible_from_its_id(trimers):
    """Number of samples, other molecules, temperatures and worker processes do not change it; the seed does."""
    options = {"temperatures": (300.0, 800.0), "count": 4}
    full = {s.id: s.positions for s in sample(trimers, **options).structures}
    others = {
        "fewer": sample(trimers[1:], **{**options, "count": 2, "temperatures": (800.0,)}),
        "another process": sample(trimers, **options, engine=MORSE, workers=1),
    }
    for case, result in others.items():
        for s in result.structures:
            assert np.array_equal(s.positions, full[s.id]), (case, s.id)
    reseeded = sample(trimers, **options, seed=1).structures
    assert np.array_equal(reseeded[0].positions, full["a/relaxed"])
    assert not np.allclose(reseeded[1].positions, full["a/nms-300K/0000"])


def test_samples_have_the_requested_temperature(trimers):
    """Three modes, 400 samples: the mean energy has a standard error of √(2/1200) = 4 %; the surface's own
    anharmonicity adds to it, so it is kept cold."""
    temperature = 20.0
    samples = sample(trimers[:1], temperatures=(temperature,), count=400, min_frequency=1.0).structures
    energies = [oracles.Morse().exact(s).energy for s in samples if s.tag != "relaxed"]
    assert np.mean(energies) == pytest.approx(1.5 * BOLTZMANN * temperature, rel=0.16)


def test_without_relaxation_the_input_geometry_is_the_center(trimers):
    samples = sample(trimers[:1], relax=False, temperatures=(1.0,), count=2).structures
    assert [s.tag for s in samples] == ["nms-1K", "nms-1K"]
    assert np.abs(samples[0].positions - trimers[0].positions).max() < 0.05


def test_collisions_are_drawn_again_or_recorded(trimers):
    hot = sample(trimers[:1], temperatures=(30_000.0,), count=30)
    assert hot.structures
    assert not any(has_collision(s) for s in hot.structures)
    hopeless = sample(trimers[:1], temperatures=(1e9,), count=2)
    names = {f.id for f in hopeless.failures}
    assert len(hopeless.structures) + len(names) == 3
    assert all("collide in each of 100 draws" in f.reason for f in hopeless.failures)


def test_collisions_are_defined_by_covalent_radii():
    def pair(z, distance, **options):
        return Structure([z, z], [[0, 0, 0], [0, 0, distance]], **options)

    assert not has_collision(pair(1, 0.5))
    assert has_collision(pair(1, 0.3))
    assert has_collision(pair(6, 0.85))
    assert not has_collision(pair(6, 1.0))
    assert has_collision(pair(6, 2.0, cell=2.8 * np.eye(3), pbc=(True, True, True)))


@pytest.mark.slow
def test_failures_are_records(trimers):
    neon = Structure([10, 1], [[0, 0, 0], [0, 0, 1.3]], id="neon")
    sodium = Structure([11, 1], [[0, 0, 0], [0, 0, 1.3]], id="sodium")
    lone = oracles.atom(6)
    result = sample([trimers[0], neon, sodium, lone], engine="ase:closed_form_engines:killer", workers=1, count=2)
    assert [s.id for s in result.structures] == ["a/relaxed", "a/nms-300K/0000", "a/nms-300K/0001", "atom-6/relaxed"]
    reasons = {f.id: f.reason for f in result.failures}
    assert "exit code 3" in reasons["neon"]
    assert "no convergence" in reasons["sodium"]
    assert "single atom" in reasons["atom-6"]


def test_unfinished_relaxation_is_a_failure(trimers):
    result = sample(trimers[:1], steps=1)
    assert not result.structures
    assert "not relaxed after 1 steps" in result.failures[0].reason


def test_saddle_points_are_listed():
    """Three Morse atoms on a line: symmetric, without forces perpendicular to it, and not a minimum."""
    line = Structure([6, 6, 6], [[0, 0, 0], [1.12, 0, 0], [2.24, 0, 0]], id="row")
    result = sample([line], count=1)
    assert result.saddles == ("row",)


def test_stored_hessians_are_used_where_no_atom_moves(trimers):
    engine = closed_form_engines.own_engine()
    fresh = sample(trimers, relax=False, count=3)
    assert fresh.n_reused == 0
    labeled = oracles.labeled(oracles.Morse(), trimers, hessian=True)
    named = replace(labeled, metadata={"level": "Closed Form"})
    engine.calls = 0
    options = NormalModeSampling(relax=False, count=3)
    reused = sample_normal_modes(named, engine, options, workers=0, quiet=True)
    assert reused.n_reused == 2
    assert engine.calls == 0
    for one, other in zip(fresh.structures, reused.structures, strict=True):
        assert one.positions == pytest.approx(other.positions, abs=1e-4)
    moved = sample_normal_modes(named, engine, NormalModeSampling(count=1), workers=0, quiet=True)
    assert moved.n_reused == 0
    assert sample_normal_modes(named, engine, options, reuse=False, workers=0, quiet=True).n_reused == 0
    doubtful = replace(named, labels=named.labels.replace(suspect=torch.tensor([True, False])))
    assert sample_normal_modes(doubtful, engine, options, workers=0, quiet=True).n_reused == 1
    for held, words in (("GFN2-xTB", "holds Hessians of GFN2-xTB"), ("", "does not name")):
        with pytest.raises(RequestError, match=words):
            sample_normal_modes(replace(named, metadata={"level": held}), engine, options, workers=0)


def test_the_reaction_path_is_projected_out(trimers):
    """No sample moves along the mass-weighted gradient or, at a stationary point, along the imaginary mode."""
    start, surface = trimers[0], oracles.Morse()
    roots = np.sqrt(normal_modes(start, np.zeros((3, 3, 3, 3))).masses)[:, None]
    along = surface.exact(start).gradient / roots
    options = {"relax": False, "temperatures": (300.0,), "count": 5}
    for exclude in (True, False):
        samples = sample([start], project_out_path=exclude, **options).structures
        shares = [abs(np.sum(along / np.linalg.norm(along) * (s.positions - start.positions) * roots)) for s in samples]
        assert (max(shares) < 1e-8) == exclude

    relaxed = minimize(Structure([6, 6, 6], [[0, 0, 0], [1.12, 0, 0], [2.24, 0, 0]]), closed_form_engines.own_engine())
    center = Structure(relaxed.structure.numbers, relaxed.structure.positions, id="row")  # two degenerate bends
    modes = normal_modes(center, surface.exact(center).hessian)
    assert modes.n_imaginary == 2
    samples = sample([center], project_out_path=True, imaginary="freeze", **options).structures
    for s in samples:
        amounts = modes.vectors.reshape(4, 9) @ ((s.positions - center.positions) * np.sqrt(12.011)).ravel()
        assert amounts[:2] == pytest.approx(0.0, abs=1e-3)
        assert np.abs(amounts[2:]).max() > 1e-2
    with pytest.raises(ConfigError, match="no-relax"):
        NormalModeSampling(project_out_path=True)


def test_invalid_arguments_get_a_reply(trimers):
    with pytest.raises(ConfigError, match="temperatures"):
        NormalModeSampling(temperatures=(-3.0,))
    with pytest.raises(ConfigError, match="differ"):
        NormalModeSampling(temperatures=(300.0, 300.0))
    with pytest.raises(ConfigError, match="expected 1 or more"):
        NormalModeSampling(count=0)
    with pytest.raises(UnknownOptionError, match="gfn2"):
        sample(trimers, engine="gfm2")
    with pytest.raises(RequestError, match="same id"):
        sample([trimers[0], trimers[0]])
    with pytest.raises(RequestError, match="by its name"):
        sample(trimers, workers=1)


def test_quantum_displacements_of_any_hessian_without_an_engine():
    """Hessians of one geometry at 0 K: the covariance in mass-weighted coordinates is ħ/2 times the inverse square root
    of the Hessian, computed here without modes. 1500 draws: relative error of a variance √(2/1500) = 3.7 %, held to 4
    of it."""
    from scipy.linalg import eigh

    well = Structure([6, 1, 1], [[0, 0, 0], [1.1, 0.1, 0], [-0.5, 1.0, 0.2]], id="well")
    h = oracles.Morse(depth=4.0, r0=1.1).exact(well).hessian.reshape(9, 9)
    h = h @ h.T / 20.0  # positive, of any origin
    data = Dataset.from_pairs([(well, Properties.single(3, hessian=h.reshape(3, 3, 3, 3)))], level="somebody's")
    result = sample_normal_modes(
        data, "stored", temperatures=(0.0,), statistics="quantum", count=1500, min_frequency=1.0, quiet=True
    )
    assert not result.failures
    assert result.n_reused == 1
    assert result.structures[0].id == "well/nms-0K/0000"
    moved = np.stack([s.positions - well.positions for s in result.structures]).reshape(-1, 9)
    modes = normal_modes(well, h.reshape(3, 3, 3, 3))
    stiff = modes.frequencies > 500
    assert stiff.any()
    weights = np.repeat(np.sqrt(modes.masses), 3)
    q = (moved * weights) @ modes.vectors.reshape(len(modes), 9).T
    values, _ = eigh(h / np.outer(weights, weights))
    expected = 0.5 * HBAR / np.sqrt(np.sort(values)[::-1][: stiff.sum()][::-1])
    np.testing.assert_allclose(q.var(axis=0)[stiff], expected, rtol=4 * np.sqrt(2 / 1500) + 0.02)


def test_without_an_engine_and_without_a_hessian(trimers):
    result = sample_normal_modes(trimers, "stored", quiet=True)
    assert not result.structures
    assert all("has no Hessian that can be used; choose an engine" in f.reason for f in result.failures)
    with pytest.raises(RequestError, match="leave out reuse=False"):
        sample_normal_modes(trimers, "stored", reuse=False)
    with pytest.raises(ConfigError, match="at 0 K nothing moves"):
        NormalModeSampling(temperatures=(0.0,))
    with pytest.raises(ConfigError, match="temperatures"):
        NormalModeSampling(temperatures=(-1.0,), statistics="quantum")
    with pytest.raises(UnknownOptionError, match="statistics"):
        NormalModeSampling(statistics="quantom")
