"""Replicas of several molecules from Python: rows, snapshots, continuation, and what is not lost."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from ase import Atoms

import closed_form_engines
import oracles
from hesse.datasets import read_dataset, write_dataset
from hesse.errors import ConfigError, InterruptedRunError, RequestError, WriteError
from hesse.pes import ReplicaSettings
from hesse.sampling import run_replicas
from hesse.sampling.replica_store import ReplicaStore, store_path
from hesse.structures import Structure, TrainingEnvironments
from loopback_cluster import cluster

SHORT = {"temperature": 60.0, "time": 0.15, "time_step": 0.5, "stride": 100, "quiet": True}


def tetrahedron(name="four", scale=1.0):
    x = scale * 1.1 / np.sqrt(8) * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    return Structure([6] * 4, x, id=name)


def test_rows_and_snapshots(tmp_path) -> None:
    apart = Structure([6, 6], [[0, 0, 0], [2.4, 0, 0]], id="apart")
    close = Structure([6, 6], [[0, 0, 0], [0.4, 0, 0]], id="close")
    result = run_replicas([tetrahedron(scale=1.02), apart, close], oracles.Morse(), seeds=2, **SHORT)
    assert [row["id"] for row in result.rows] == [f"{n}/seed-{k}" for n in ("four", "apart", "close") for k in (0, 1)]
    assert [row["reason"] for row in result.rows] == [None] * 2 + ["bonds changed in relaxation"] * 2 + [
        "not started"
    ] * 2
    assert [row["time"] for row in result.rows] == [0.15] * 2 + [0.0] * 2 + [None] * 2
    assert {row["protocol"] for row in result.rows} == {"langevin"}
    assert result.dataset is not None
    assert [s.id for s in result.dataset.structures] == [
        f"four/seed-{k}/{n:07d}" for k in (0, 1) for n in (0, 100, 200, 300)
    ]
    assert {s.group for s in result.dataset.structures} == {"four"}
    for structure, atoms in zip(result.dataset.structures, result.to_ase(), strict=True):
        exact = oracles.Morse().exact(structure)
        assert atoms.get_potential_energy() == pytest.approx(exact.energy)
        np.testing.assert_allclose(atoms.get_forces(), -exact.gradient, atol=1e-8)
    curve = result.survival()
    assert curve is not None
    assert (curve.n, curve.n_failed, curve.fraction[-1]) == (4, 2, 0.5)
    write_dataset(tmp_path / "md.extxyz", result.dataset)
    assert len(read_dataset(tmp_path / "md.extxyz")) == 8


def test_ase_atoms_and_an_ase_calculator() -> None:
    four = tetrahedron()
    result = run_replicas(
        Atoms("C4", four.positions), closed_form_engines.morse(), seeds=[7], **{**SHORT, "time": 0.01}
    )
    (row,) = result.rows
    assert (row["seed"], row["survived"], row["steps"]) == (7, True, 20)


@pytest.mark.slow
def test_an_interrupted_call_continues(tmp_path, monkeypatch) -> None:
    """SIGTERM after the first block: states are kept, and the result is that of a call without interruption."""
    options = {**SHORT, "time": 0.35}
    whole = run_replicas([tetrahedron()], oracles.Morse(), tmp_path / "whole.h5", seeds=2, **options)
    from hesse.pes import md_replicas

    advance = md_replicas._Group.advance

    def once(self, stop):
        advance(self, stop)
        os.kill(os.getpid(), signal.SIGTERM)
        return True

    monkeypatch.setattr(md_replicas._Group, "advance", once)
    with pytest.raises(InterruptedRunError, match=r"0 of 2 replicas, kept in .*md\.h5\.replicas"):
        run_replicas([tetrahedron()], oracles.Morse(), tmp_path / "md.h5", seeds=2, **options)
    monkeypatch.setattr(md_replicas._Group, "advance", advance)
    blocks = []
    monkeypatch.setattr(md_replicas._Group, "advance", lambda self, stop: blocks.append(1) or advance(self, stop))
    continued = run_replicas([tetrahedron()], oracles.Morse(), tmp_path / "md.h5", seeds=2, **options)
    assert len(blocks) == 3  # of four
    assert continued.n_reused == 0
    for one, other in zip(whole.rows, continued.rows, strict=True):
        assert one == pytest.approx(other, abs=1e-9) or {**one, "energy_drift": 0} == {**other, "energy_drift": 0}
    assert whole.dataset is not None
    assert continued.dataset is not None
    for one, other in zip(whole.dataset.structures, continued.dataset.structures, strict=True):
        assert one.id == other.id
        np.testing.assert_allclose(one.positions, other.positions, atol=1e-9)
    again = run_replicas([tetrahedron()], oracles.Morse(), tmp_path / "md.h5", seeds=3, **options)
    assert again.n_reused == 2
    assert len(blocks) == 3 + 4
    other = run_replicas([tetrahedron()], oracles.Morse(), tmp_path / "md.h5", seeds=2, **{**options, "time": 0.1})
    assert other.n_reused == 0


def test_an_engine_object_is_interrupted_at_the_next_step_and_continues(tmp_path) -> None:
    """A block of 200 steps of a slow engine is not waited for; it is done again from its beginning."""
    calculator, calls = closed_form_engines.morse(), []

    def before(atoms):
        calls.append(1)
        if len(calls) == 250:
            os.kill(os.getpid(), signal.SIGINT)

    calculator.before = before
    options = {**SHORT, "relax": False, "time": 0.2}
    with pytest.raises(InterruptedRunError, match="0 of 1 replicas"):
        run_replicas([tetrahedron()], calculator, tmp_path / "md.h5", seeds=1, **options)
    assert len(calls) < 255
    calls.clear()
    result = run_replicas([tetrahedron()], calculator, tmp_path / "md.h5", seeds=1, **options)
    here = run_replicas([tetrahedron()], closed_form_engines.morse(), seeds=1, **options)
    assert result.rows[0]["steps"] == 400
    assert 200 <= len(calls) < 210
    assert result.rows[0]["energy_drift"] == pytest.approx(here.rows[0]["energy_drift"])


def test_damaged_states_count_as_missing_and_two_calls_do_not_share_a_folder(tmp_path) -> None:
    output = tmp_path / "md.h5"
    run_replicas([tetrahedron()], oracles.Morse(), output, seeds=2, **SHORT)
    first, second = sorted(store_path(output).glob("*.safetensors"))
    content = bytearray(first.read_bytes())
    content[-5] ^= 1
    first.write_bytes(bytes(content))
    second.write_bytes(b"")
    assert run_replicas([tetrahedron()], oracles.Morse(), output, seeds=2, **SHORT).n_reused == 0
    assert run_replicas([tetrahedron()], oracles.Morse(), output, seeds=2, **SHORT).n_reused == 2
    store_path(tmp_path / "taken.h5").touch()
    with pytest.raises(WriteError, match="Move what is in its place"):
        run_replicas([tetrahedron()], oracles.Morse(), tmp_path / "taken.h5", seeds=2, **SHORT)
    with ReplicaStore.open(store_path(output)), pytest.raises(RequestError, match="another run writes"):
        run_replicas([tetrahedron()], oracles.Morse(), output, seeds=2, **SHORT)


def test_rows_tell_what_is_outside_the_training_data_of_a_model() -> None:
    model, rng = oracles.Morse(), np.random.default_rng(0)
    near = [tetrahedron().positions + rng.normal(0, 0.02, (4, 3)) for _ in range(40)]
    model.training_environments = TrainingEnvironments.from_structures(
        [Structure([6] * 4, x, id=str(k)) for k, x in enumerate(near)]
    )
    result = run_replicas(tetrahedron(), model, seeds=1, **SHORT)
    assert result.rows[0]["outside_training"] in (True, False)
    assert result.rows[0]["extrapolation_grade"] > 0


@pytest.mark.slow
def test_replicas_in_worker_processes_one_of_which_dies(tmp_path) -> None:
    """The engine `killer` ends its process for fluorine."""
    deadly = Structure([9, 6], [[0, 0, 0], [1.1, 0, 0]], id="deadly")
    options = {**SHORT, "relax": False, "time": 0.02}
    name = "ase:closed_form_engines:killer"
    result = run_replicas([tetrahedron(), deadly], name, tmp_path / "md.h5", seeds=1, workers=2, **options)
    assert [row["reason"] for row in result.rows] == [None, "engine failed"]
    here = run_replicas(tetrahedron(), closed_form_engines.morse(), seeds=1, **options)
    assert result.rows[0]["energy_drift"] == pytest.approx(here.rows[0]["energy_drift"])
    again = run_replicas([tetrahedron(), deadly], name, tmp_path / "md.h5", seeds=1, workers=2, **options)
    assert again.n_reused == 1  # the other one is tried again


@pytest.mark.slow
def test_replicas_on_a_cluster(tmp_path) -> None:
    pytest.importorskip("distributed")
    options = {**SHORT, "relax": False, "time": 0.02}
    with cluster(tmp_path) as made:
        made.start_worker()
        arguments = ([tetrahedron()], "ase:closed_form_engines:morse", tmp_path / "md.h5")
        result = run_replicas(*arguments, seeds=2, scheduler=made.address, **options)
        assert [row["survived"] for row in result.rows] == [True, True]
        with pytest.raises(RequestError, match="needs an output"):
            run_replicas(*arguments[:2], scheduler=made.address, **options)
    here = run_replicas(tetrahedron(), closed_form_engines.morse(), seeds=2, **options)
    assert [row["energy_drift"] for row in result.rows] == pytest.approx([row["energy_drift"] for row in here.rows])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"seeds": 0}, RequestError, "seeds: expected how many"),
        ({"seeds": [1, 1]}, RequestError, "given twice"),
        ({"seeds": [-1]}, RequestError, "zero or more"),
        ({"seeds": "3"}, RequestError, "seeds: expected how many"),
        ({"seeds": [0.5]}, ConfigError, "seeds"),
        ({"workers": 2}, RequestError, "by its name"),
        ({"scheduler": "tcp://127.0.0.1:1"}, RequestError, "by its name"),
        ({"temperature": -5.0}, ConfigError, "temperature"),
        ({"settings": ReplicaSettings(), "time": 1.0}, RequestError, "got both"),
    ],
)
def test_wrong_arguments_get_a_reply(arguments, error, words) -> None:
    with pytest.raises(error, match=words):
        run_replicas(tetrahedron(), oracles.Morse(), quiet=True, **arguments)


def test_two_structures_of_the_same_id() -> None:
    with pytest.raises(RequestError, match="same id"):
        run_replicas([tetrahedron(), tetrahedron()], oracles.Morse(), quiet=True)


def test_only_models_are_compiled() -> None:
    with pytest.raises(ConfigError, match=r"compile is for models, and .* is not one"):
        run_replicas([tetrahedron()], closed_form_engines.morse(), compile=True, **SHORT)
