"""Geometries from dynamics: ids, reproducibility, labels, early ends."""

from __future__ import annotations

import numpy as np
import pytest

import closed_form_engines
import oracles
from hesse.errors import ConfigError, RequestError
from hesse.sampling import MDSampling, sample_md
from hesse.structures import Structure

QUICK = {"count": 3, "stride": 5, "equilibration": 10}


def sample(structures, **options):
    workers = options.pop("workers", 0)
    engine = options.pop("engine", closed_form_engines.own_engine())
    return sample_md(structures, engine, MDSampling(**{**QUICK, **options}), workers=workers, quiet=True)


@pytest.fixture(scope="module")
def trimers():
    return [
        Structure([6, 1, 1], [[0, 0, 0], [1.3, 0.1, 0], [0.5, 1.0, 0.2]], id="a"),
        Structure([8, 1, 1], [[0, 0, 0], [1.2, 0, 0.1], [0.4, 1.1, 0]], id="b", group="family"),
    ]


def test_names_tags_groups_and_labels(trimers):
    result = sample(trimers, temperatures=(300.0, 50.0), runs=2)
    samples = result.structures
    assert [s.id for s in samples[:5]] == [
        "a/relaxed",
        "a/md-300K/0/000015",
        "a/md-300K/0/000020",
        "a/md-300K/0/000025",
        "a/md-300K/1/000015",
    ]
    assert len(samples) == 2 * (1 + 2 * 2 * 3)
    assert {s.group for s in samples[:13]} == {"a"}
    assert {s.group for s in samples[13:]} == {"family"}
    assert not result.failures
    data = result.dataset(code_version="x")
    assert data.metadata == {"level": "closed form", "code_version": "x"}
    for i, s in enumerate(samples):
        exact = oracles.Morse().exact(s)
        assert float(data.labels.energy[i]) == pytest.approx(exact.energy, abs=1e-9)
        if s.tag == "relaxed":
            assert not bool(data.labels.mask("forces")[i])
        else:
            assert data.labels.forces[data.labels.atom_slice(i)].numpy() == pytest.approx(-exact.gradient, abs=1e-8)


@pytest.mark.slow
def test_a_run_is_reproducible_from_its_id(trimers):
    full = {s.id: s.positions for s in sample(trimers, temperatures=(300.0, 50.0), runs=2).structures}
    fewer = sample(trimers[1:], temperatures=(50.0,), engine="ase:closed_form_engines:morse", workers=1)
    for s in fewer.structures:
        assert s.positions == pytest.approx(full[s.id], abs=1e-12), s.id
    longer = {s.id: s.positions for s in sample(trimers[:1], count=5).structures}
    assert all(np.array_equal(longer[name], full[name]) for name in longer.keys() & full.keys())
    assert not np.allclose(sample(trimers[:1], seed=1).structures[1].positions, full["a/md-300K/0/000015"], atol=1e-6)


def test_runs_that_end_early_keep_their_samples_and_are_failures(trimers):
    result = sample(trimers[:1], temperatures=(40_000.0,), count=200, stride=2, equilibration=0, max_bond_stretch=1.3)
    assert 0 < len(result.structures) < 200
    (failure,) = result.failures
    assert failure.id == "a/md-40000K/0"
    assert "ended after" in failure.reason
    dead = sample([trimers[0], oracles.atom(6)], relax=False)
    assert [f.id for f in dead.failures] == ["atom-6"]
    assert {s.group for s in dead.structures} == {"a"}


def test_invalid_settings_get_a_reply(trimers):
    for options, words in (
        ({"temperatures": (0.0,)}, '"temperatures" = 0.0: expected more than 0'),
        ({"temperatures": ()}, "at least one"),
        ({"temperatures": 300.0}, "expected a list"),
        ({"temperatures": ["hot"]}, "\"temperatures\" = 'hot': expected a number"),
        ({"stride": 1.5}, "whole number"),
        ({"ensemble": "nvt"}, "ensemble"),
        ({"temperatures": (300.0, 300.0)}, "differ"),
        ({"count": 0}, '"count" = 0: expected 1 or more'),
        ({"time_step": -1.0}, "time step"),
        ({"max_bond_stretch": 0.9}, "stretch"),
        ({"fmax": 0.0}, "fmax"),
    ):
        with pytest.raises(ConfigError, match=words):
            MDSampling(**options)
    with pytest.raises(RequestError, match="same id"):
        sample([trimers[0], trimers[0]])
    with pytest.raises(RequestError, match="by its name"):
        sample(trimers, workers=1)


def test_each_run_tells_time_temperature_and_drift(trimers):
    settings = MDSampling(count=3, stride=5, equilibration=5, relax=False, ensemble="nve")
    result = sample_md(trimers, closed_form_engines.own_engine(), settings, workers=0, quiet=True)
    assert [run.id for run in result.runs] == [f"{s.id}/md-300K/0" for s in trimers]
    for run in result.runs:
        assert run.time == run.time_requested == pytest.approx(10.0)
        assert 10.0 < run.temperature < 3000.0
        assert abs(run.energy_drift) < 1.0
        assert str(run).startswith(f"{run.id}: 10 of 10 fs, mean temperature ")
