"""Suites of an evaluation: what they compute, what they refuse, and what they keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hesse
from hesse.datasets import Dataset
from hesse.engines import PotentialEngine
from hesse.errors import ConfigError, MissingLabelError, RequestError, UnknownOptionError
from hesse.evaluation import Evaluation, evaluate_model
from hesse.pes import ReplicaSettings, irc, minimize, saddle
from hesse.recipes import judging
from oracles import Morse, labeled, molecules, rhombus


@pytest.fixture(scope="module")
def flips() -> Dataset:
    """Two reactions of four atoms that turn inside out."""
    engine = PotentialEngine(Morse())
    top = saddle(rhombus(), engine, fmax=1e-4)
    path = irc(top.structure, engine, hessian=top.hessian)
    ends = [minimize(half[-1].structure, engine, fmax=1e-4).structure for half in (path.backward, path.forward)]
    structures = [
        replace(s, id=f"{name}/{tag}", tag=tag, group=name)
        for name in ("one", "two")
        for s, tag in zip((top.structure, *ends), ("ts", "reactant", "product"), strict=True)
    ]
    return labeled(Morse(), structures, hessian=True)


@pytest.fixture(autouse=True)
def short_dynamics(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ReplicaSettings(ramp="fast", interval=0.001, ceiling=900.0, stride=0)
    monkeypatch.setattr(judging, "DYNAMICS", settings)


def properties(evaluation: Evaluation) -> set[str]:
    return {row.property for row in evaluation.rows}


def test_basic_is_the_errors_of_labels_with_intervals(flips: Dataset) -> None:
    model = Morse(depth=4.2)
    result = hesse.evaluate(model, flips)
    assert result.rows == evaluate_model(model, flips, intervals=True).rows
    assert (result.records, result.notes) == ((), ())
    row = result.row("hessian", "mae")
    assert row is not None
    assert row.groups == 2
    assert row.ci_low is not None
    assert row.ci_low <= row.value <= row.ci_high


@pytest.mark.slow
def test_full_has_everything(flips: Dataset) -> None:
    result = hesse.evaluate(Morse(depth=4.2), flips, suite="full")
    expected = {"energy", "eigenvalues", "zpe", "barrier", "transition_states", "irc_ends", "dynamics"}
    assert expected <= properties(result)
    value = result.row("barrier", "mae")
    exact = flips.labels.energy
    assert value is not None
    assert value.value == pytest.approx(0.05 * float(exact[0] - exact[1]))
    assert [record["kind"] for record in result.records] == ["saddle"] * 2 + ["replica"] * 4
    assert result.row("transition_states", "fraction_found").value == 1.0
    assert result.row("hessian", "level_spread").value == 0.038
    assert "barrier" not in result.table()
    with pytest.raises(RequestError, match="irc_ends"):
        result.row("barriers")


@pytest.mark.parametrize(
    ("suite", "there", "missing"),
    [("curvature", "zpe", "barrier"), ("reactions", "barrier", "zpe"), ("dynamics", "dynamics", "barrier")],
)
def test_a_suite_computes_its_own_part(flips: Dataset, suite: Any, there: str, missing: str) -> None:
    found = properties(hesse.evaluate(Morse(), flips, suite=suite))
    assert there in found
    assert missing not in found


@pytest.mark.slow
def test_limits_are_told(flips: Dataset) -> None:
    result = hesse.evaluate(Morse(), flips, suite="full", limit=1, replicas=1)
    assert [(r["kind"], r.get("group") or r["structure"]) for r in result.records] == [
        ("saddle", "two"),
        ("replica", "two/reactant"),
    ]
    assert [note.split(":")[0] for note in result.notes] == [
        "1 of 2 transition states were searched",
        "dynamics of 1 of 2 molecules was run",
    ]
    assert len(hesse.evaluate(Morse(), flips, suite="reactions", limit=0).records) == 2


@pytest.mark.slow
def test_finished_searches_are_not_repeated(flips: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"suite": "full", "replicas": 1, "output": tmp_path / "errors.json"}
    first = hesse.evaluate(Morse(), flips, **options)

    def never(*arguments: object) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr(judging, "judge_saddle", never)
    again = hesse.evaluate(Morse(), flips, **options)
    assert again.rows == first.rows
    assert again.records == first.records
    assert not (tmp_path / "errors.json").exists()


@pytest.mark.slow
def test_another_potential_does_not_get_the_searches_of_the_first(flips: Dataset, tmp_path: Path) -> None:
    """Neither has weights: only what they predict tells them apart."""
    options: dict[str, Any] = {"suite": "full", "replicas": 1, "output": tmp_path / "errors.json"}
    frequencies = []
    for depth in (4.0, 8.0):
        result = hesse.evaluate(Morse(depth=depth), flips, **options)
        frequencies.append(result.records[0]["imaginary_frequency"])
    assert frequencies[1] == pytest.approx(2**0.5 * frequencies[0], rel=1e-3)
    assert len(list((tmp_path / "errors.json.replicas").glob("*.safetensors"))) == 4


def test_an_error_of_one_search_is_its_record(flips: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    original = judging.judge_saddle

    def sometimes(task: Any, *arguments: Any) -> dict[str, Any]:
        if task.name == "one":
            raise ZeroDivisionError("by chance")
        return original(task, *arguments)

    monkeypatch.setattr(judging, "judge_saddle", sometimes)
    result = hesse.evaluate(Morse(), flips, suite="reactions")
    assert [record["found"] for record in result.records] == [False, True]
    assert "by chance" in result.records[0]["reason"]
    assert result.row("transition_states", "fraction_found").value == 0.5


def test_data_that_do_not_fit_the_suite() -> None:
    plain = labeled(Morse(), molecules([3, 4]))
    with pytest.raises(MissingLabelError, match="hesse label --hessian"):
        hesse.evaluate(Morse(), plain, suite="curvature")
    with pytest.raises(MissingLabelError, match="reactant, ts and product"):
        hesse.evaluate(Morse(), plain, suite="reactions")
    result = hesse.evaluate(Morse(), plain, suite="full", replicas=1)
    assert [note.split(":")[0] for note in result.notes] == ["curvature", "reactions"]
    assert "dynamics" in properties(result)


def test_geometries_that_are_not_stationary_have_no_frequencies() -> None:
    result = hesse.evaluate(Morse(), labeled(Morse(), molecules([3, 4]), hessian=True), suite="curvature")
    assert "eigenvalues" in properties(result)
    assert "zpe" not in properties(result)
    assert "no structure is a stationary point" in result.notes[0]


def test_wrong_arguments(flips: Dataset) -> None:
    with pytest.raises(UnknownOptionError, match="curvature"):
        hesse.evaluate(Morse(), flips, suite="curvatures")
    with pytest.raises(ConfigError, match="limit"):
        hesse.evaluate(Morse(), flips, suite="full", limit=-1)
    with pytest.raises(ConfigError, match="replica"):
        hesse.evaluate(Morse(), flips, suite="full", replicas=0)
    with pytest.raises(RequestError, match="hessian"):
        hesse.evaluate(Morse(), flips, suite="curvature", hessian=False)
