"""Saddle searches and reaction paths of several structures from Python; the commands are tested in tests/cli."""

from __future__ import annotations

import numpy as np
import pytest

import closed_form_engines
import oracles
from hesse.engines import PotentialEngine
from hesse.errors import RequestError
from hesse.sampling import follow_paths, search_saddles
from hesse.structures import Structure, TrainingEnvironments


def test_saddles_and_the_paths_through_them_with_an_engine_of_this_process() -> None:
    engine = closed_form_engines.morse()
    hopeless = Structure([6, 6, 6], [[0, 0, 0], [1.1, 0, 0], [0.55, 0.95, 0]], id="hopeless")
    found = search_saddles([oracles.rhombus(1), hopeless], engine, steps=60, quiet=True)
    assert [row["converged"] for row in found.rows] == [True, False]
    assert [failure.id for failure in found.failures] == ["hopeless"]
    assert found.failures[0].reason == found.rows[1]["reason"]
    assert found.dataset is not None
    assert found.dataset.metadata["level"].startswith("MorseCalculator@")
    assert found.dataset.labels.hessian is not None

    paths = follow_paths(found.dataset, engine, relax_ends=True, quiet=True)
    (row,) = paths.rows
    assert row["converged"]
    assert paths.dataset is not None
    assert not paths.failures
    assert {s.group for s in paths.dataset.structures} == {"g"}
    assert paths.dataset.labels.energy is not None
    energies = paths.dataset.labels.energy.numpy()
    np.testing.assert_allclose(energies[-2:] - energies.max(), row["relaxed_ends"], atol=1e-9)


def test_nothing_found_is_no_data_set() -> None:
    hopeless = Structure([6, 6, 6], [[0, 0, 0], [1.1, 0, 0], [0.55, 0.95, 0]], id="hopeless")
    result = search_saddles(hopeless, closed_form_engines.morse(), steps=1, quiet=True)
    assert result.dataset is None
    assert len(result.failures) == len(result.rows) == 1


def test_objects_do_not_go_to_worker_processes() -> None:
    with pytest.raises(RequestError, match="by its name"):
        search_saddles(oracles.rhombus(1), closed_form_engines.morse(), workers=2)


def test_rows_tell_what_is_outside_the_training_data_of_a_model() -> None:
    model = oracles.Morse()
    positions = oracles.rhombus().positions
    rng = np.random.default_rng(0)
    for scale, outside in ((1.0, False), (1.6, True)):
        near = [scale * positions + rng.normal(0, 0.03, (4, 3)) for _ in range(40)]
        data = [Structure([6] * 4, x, id=str(k)) for k, x in enumerate(near)]
        model.training_environments = TrainingEnvironments.from_structures(data)
        found = search_saddles(oracles.rhombus(1), PotentialEngine(model), quiet=True)
        assert found.dataset is not None
        (row,) = found.rows
        assert row["converged"]
        assert row["outside_training"] == outside
        assert (row["extrapolation_grade"] > 1.0) == outside
        (row,) = follow_paths(found.dataset, PotentialEngine(model), reuse=False, quiet=True).rows
        assert row["outside_training"]  # the path ends at a minimum, which is in neither data set
