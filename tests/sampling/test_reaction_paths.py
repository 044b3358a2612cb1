"""Paths through the saddle point between HCN and HNC at GFN2-xTB, and failures."""

from __future__ import annotations

import numpy as np
import pytest

import closed_form_engines
import oracles
from hesse.engines import XtbEngine
from hesse.errors import ConfigError
from hesse.sampling import PathSampling, sample_paths
from hesse.structures import Structure


@pytest.fixture(scope="module")
def guess():
    return Structure([6, 7, 1], [[0, 0, 0], [1.2, 0, 0], [0.4, 1.2, 0.1]], id="hcn", group="isomerisation")


def test_a_path_connects_two_minima(guess):
    pytest.importorskip("tblite.interface", reason="tblite is not installed")
    engine = XtbEngine()

    def sample(**options):
        return sample_paths([guess], engine, PathSampling(step=0.15, **options), workers=0, quiet=True)

    result = sample()
    assert not result.failures
    names = [s.id for s in result.structures]
    saddle = names.index("hcn/ts")
    backward = [int(n.rsplit("/", 1)[1]) for n in names[:saddle]]
    forward = [int(n.rsplit("/", 1)[1]) for n in names[saddle + 1 :]]
    assert backward == list(range(-len(backward), 0))
    assert forward == list(range(1, len(forward) + 1))
    assert {s.tag for s in result.structures} == {"irc", "ts"}
    assert {s.group for s in result.structures} == {"isomerisation"}
    energy = result.labels.energy.numpy()
    assert np.all(np.diff(energy[: saddle + 1]) > 0)
    assert np.all(np.diff(energy[saddle:]) < 0)
    ends = [result.structures[k].positions for k in (0, -1)]
    with_carbon = [np.linalg.norm(x[2] - x[0]) < np.linalg.norm(x[2] - x[1]) for x in ends]
    assert sorted(with_carbon) == [False, True]

    few = sample(count=3)
    kept = [s.id for s in few.structures]
    assert len(kept) == 7
    assert {kept[0], kept[-1], "hcn/ts"} == {names[0], names[-1], "hcn/ts"}
    assert set(kept) < set(names)

    short = sample(steps=2)
    assert [f.id for f in short.failures] == ["hcn/forward", "hcn/backward"]
    assert len(short.structures) == 5


def test_a_search_that_fails_is_a_failure():
    three = oracles.molecule(3, 1, name="three")
    engine = closed_form_engines.own_engine()
    unfound = sample_paths([three], engine, PathSampling(saddle_steps=1), workers=0, quiet=True)
    assert not unfound.structures
    assert "no saddle point" in unfound.failures[0].reason
    minimum = Structure([6, 6], [[0, 0, 0], [1.1, 0, 0]], id="pair")
    downhill = sample_paths([minimum], engine, PathSampling(search=False), workers=0, quiet=True)
    assert "no imaginary mode" in downhill.failures[0].reason


def test_invalid_settings_get_a_reply():
    for options, words in (({"step": 0.0}, "step"), ({"fmax": -1.0}, "fmax"), ({"count": 0}, "1 or more")):
        with pytest.raises(ConfigError, match=words):
            PathSampling(**options)
