"""Hessian-informed training, small: a cheap and an expensive surface in closed form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import hesse
from hesse.cli.app import app
from hesse.datasets import Dataset, read_dataset, write_dataset
from hesse.errors import ConfigError, HesseError, MissingLabelError, RequestError, UnknownOptionError
from hesse.labelling import label
from hesse.recipes.protocols import plan_recipe, run_recipe
from hesse.recipes.protocols.hint_settings import RUNGS
from hesse.training import read_log
from oracles import Morse, labeled, molecules

CHEAP, EXPENSIVE = Morse(depth=0.9, width=1.25), Morse(depth=1.0, width=1.2)
TRAINING: dict[str, Any] = {
    "steps": 6,
    "model": {"kind": "hipnn", "features": 4, "sensitivities": 4, "blocks": 1, "onsite_layers": 1},
    "batch": {"structures": 3},
    "compile": "never",
    "validate_every": 3,
    "dtype": "float64",
}


def geometries(count: int = 12, seed: int = 0) -> list[Any]:
    sizes = [3, 4, 5] * (count // 3)
    return [replace(s, group=f"g{i % 6}") for i, s in enumerate(molecules(sizes, seed=seed))]


def surface(oracle: Morse, structures: list[Any], level: str, *, hessian: bool = True) -> Dataset:
    data = labeled(oracle, structures, probes=0, hessian=hessian)
    return replace(data, metadata={"level": level})


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "pretraining_data": surface(CHEAP, geometries(seed=5), "cheap"),
        "candidates": surface(EXPENSIVE, geometries(), "expensive"),
        "validation": surface(EXPENSIVE, geometries(3, seed=7), "expensive"),
        "test": {"far": surface(EXPENSIVE, geometries(3, seed=8), "expensive")},
        "count": 3,
        "per_group": 1,
        "training": TRAINING,
        "output": folder / "out",
        **changes,
    }


@pytest.mark.slow
def test_the_ladder_from_end_to_end(tmp_path: Path) -> None:
    config = options(tmp_path, rungs=[*RUNGS])
    plan = plan_recipe("hint", config)
    assert [name.split("/")[0] for name in plan.stages].count("tune") == 7
    result = run_recipe("hint", config, quiet=True)
    assert result.stopped == ""
    out = tmp_path / "out"
    request = read_dataset(result.file("choice/selection-3-seed-0", "request.h5"), check=False)
    assert len(request) == 3
    assert len({s.group for s in request.structures}) == 3  # at most one of a group
    curved = read_dataset(result.file("data/selection-3-seed-0", "curved.h5"))
    ordinary = read_dataset(result.file("data/selection-3-seed-0", "ordinary.h5"))
    assert curved.ids == request.ids
    assert (curved.has("hessian"), ordinary.has("hessian"), ordinary.has("hvp")) == (True, False, False)
    assert len(curved) + len(ordinary) == 12
    assert curved.metadata["level"] == "expensive"
    rungs = {
        rung: read_log(out / f"tune/{rung}-3-seed-0" / "metrics.jsonl") for rung in ("random", "curriculum", "replay")
    }
    steps = {rung: [row for row in rows if row["kind"] == "train"] for rung, rows in rungs.items()}
    assert "hvp" not in steps["curriculum"][0]  # its weight is zero at the start
    assert ["hvp" in row for row in steps["replay"]] == [False] * 5 + [True]  # one of five steps has curvature
    models = {row["model"] for row in result.records["results"].results["rows"]}
    assert models == {f"{rung}/3/seed-0" for rung in RUNGS[:-1]} | {"all-labels/12/seed-0", "pretrained/seed-0"}
    assert "replay" in result.summary
    assert "hessian" in result.summary
    assert run_recipe("hint", config, quiet=True).records["results"].results == result.records["results"].results
    assert set(plan_recipe("hint", config).states.values()) == {"done"}


def test_the_curvature_of_the_pretrained_model_is_kept(tmp_path: Path) -> None:
    result = run_recipe("hint", options(tmp_path, rungs="kept-curvature"), quiet=True)
    kept = read_dataset(result.file("kept/selection-3-chosen-0-seed-0", "kept.h5"))
    ordinary = read_dataset(result.file("data/selection-3-seed-0", "ordinary.h5"))
    assert kept.ids == ordinary.ids
    assert kept.metadata["level"] == "expensive"
    assert torch.equal(kept.labels.forces, ordinary.labels.forces)  # of the expensive method
    model = hesse.load_model(result.file("pretrain/seed-0", "model.hesse"))
    expected = hesse.compute(kept.structures, model, hessian=True).hessian
    torch.testing.assert_close(kept.labels.hessian, expected.to(kept.labels.hessian.dtype))
    run = tmp_path / "out/tune/kept-curvature-3-seed-0"
    assert json.loads((run / "data.json").read_text())["parts"]["train"]["structures"] == 12
    steps = [row for row in read_log(run / "metrics.jsonl") if row["kind"] == "train"]
    assert all("hvp" in row for row in steps)


def test_a_count_of_all_candidates_takes_nothing_from_smaller_ones(tmp_path: Path) -> None:
    """Its data have no ordinary structures; those of smaller numbers of labels do."""
    counts = {"count": [3, 12], "per_group": None, "rungs": ["kept-curvature"]}
    plan = plan_recipe("hint", options(tmp_path, **counts))
    kept = [name for name in plan.stages if name.startswith("kept/")]
    assert kept == ["kept/selection-3-chosen-0-seed-0"]


def test_a_pretrained_start_is_the_pretrained_model(tmp_path: Path) -> None:
    """Fine-tuning begins with the pre-trained parameters, and with energies per element of the expensive labels."""
    config = options(tmp_path, rungs="pre-training", tuning={"optimizer": {"learning_rate": 1e-12}, "steps": 1})
    result = run_recipe("hint", config, quiet=True)
    from hesse.models import load_model

    before = load_model(result.file("pretrain/seed-0", "model.hesse")).state_dict()
    after = load_model(result.file("tune/pre-training-3-seed-0", "model.hesse")).state_dict()
    changed = {name for name in before if float((before[name] - after[name]).abs().max()) > 1e-6}
    assert changed
    assert all("reference" in name for name in changed)


def test_labels_of_an_engine_and_labels_made_elsewhere(tmp_path: Path) -> None:
    pool = Dataset(tuple(geometries()), surface(CHEAP, geometries(), "cheap").labels, metadata={"level": "cheap"})
    write_dataset(tmp_path / "pool.h5", pool)
    waiting = options(tmp_path, candidates=tmp_path / "pool.h5", validation=None, test={})
    del waiting["validation"]
    result = run_recipe("hint", waiting, quiet=True)
    request = tmp_path / "out/choice/selection-3-seed-0/request.h5"
    assert f"hesse label {request}" in result.stopped
    assert "data/selection-3-seed-0" not in result.records
    label(request, EXPENSIVE, tmp_path / "labels.h5", hessian=True, probes=0, workers=0, quiet=True)
    done = run_recipe("hint", {**waiting, "labels": tmp_path / "labels.h5"}, quiet=True)
    assert done.stopped == ""
    assert any("no replay" in text for text in done.remarks)  # the candidates have cheap energies only
    assert done.records["data/selection-3-seed-0"].results == {"chosen": 3, "curved": 3}
    run = tmp_path / "out/tune/replay-3-seed-0"
    assert json.loads((run / "data.json").read_text())["parts"]["train"]["structures"] == 3


def wrong(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return options(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"count": 13}, ConfigError, "count: 13 of 12 candidates, of which 6 can be chosen with at most 1 per group"),
        ({"count": 0}, ConfigError, "numbers of 1 or more"),
        ({"engine": "gfn2", "labels": "x.h5"}, ConfigError, "give one of the two"),
        ({"pretrained": "x.hesse"}, ConfigError, "leave out pretraining_data"),
        ({"pretraining_data": None}, ConfigError, "give pretraining_data"),
        ({"rungs": ["rando"]}, UnknownOptionError, "rando"),
        ({"score": {"energy": False, "sparsity": False, "curvature": "none"}}, ConfigError, "a score needs"),
        ({"training": {"stepps": 3}}, UnknownOptionError, "stepps"),
        ({"validation": surface(CHEAP, geometries(3, seed=7), "cheap")}, RequestError, "validation: labels of cheap"),
        (
            {"candidates": surface(EXPENSIVE, geometries(), "expensive; cheap")},
            RequestError,
            "candidates: labels of several levels of theory: expensive; cheap",
        ),
        (
            {"pretraining_data": surface(CHEAP, geometries(seed=5), "cheap", hessian=False)},
            MissingLabelError,
            "pre-training needs products or Hessians",
        ),
        ({"validation_fraction": 0.01}, RequestError, "12 structures in 6 groups .* too few to hold out"),
        (
            {"rungs": "kept-curvature", "candidates": surface(CHEAP, geometries(), "cheap"), "engine": "gfn2"},
            ConfigError,
            "needs candidates with energies and forces of the expensive level",
        ),
        ({"rungs": "all-labels", "engine": "gfn2"}, ConfigError, "needs candidates with expensive curvature"),
    ],
)
def test_wrong_requests_have_replies_before_any_work(
    tmp_path: Path, changes: dict[str, Any], error: type[HesseError], text: str
) -> None:
    with pytest.raises(error, match=text):
        run_recipe("hint", options(tmp_path, **changes), quiet=True)
    assert not list((tmp_path / "out").glob("*/*/metrics.jsonl"))


def test_candidates_that_are_labeled_already_have_a_reply(tmp_path: Path) -> None:
    candidates = surface(EXPENSIVE, geometries(), "GFN2-xTB")
    with pytest.raises(RequestError, match="all 12 candidates have curvature of GFN2-xTB already"):
        run_recipe(
            "hint", options(tmp_path, candidates=candidates, engine="gfn2", validation=None, test={}), quiet=True
        )


def test_mixed_levels_can_be_allowed(tmp_path: Path) -> None:
    validation = surface(CHEAP, geometries(3, seed=7), "cheap")
    plan_recipe("hint", options(tmp_path, validation=validation, allow_mixed_levels=True))


def test_the_command_line(tmp_path: Path) -> None:
    for name in ("pretraining_data", "candidates"):
        write_dataset(tmp_path / f"{name}.h5", options(tmp_path)[name])
    (tmp_path / "hint.yaml").write_text(
        "pretraining_data: pretraining_data.h5\ncandidates: candidates.h5\ncount: 30\noutput: out\n"
    )
    refused = CliRunner().invoke(app, ["recipe", "hint", str(tmp_path / "hint.yaml"), "--dry-run"])
    assert isinstance(refused.exception, ConfigError)
    assert "count: 30" in str(refused.exception)
    text = (tmp_path / "hint.yaml").read_text().replace("30", "2")
    (tmp_path / "hint.yaml").write_text(text)
    planned = CliRunner().invoke(app, ["recipe", "hint", str(tmp_path / "hint.yaml"), "--dry-run"])
    assert planned.exit_code == 0
    assert "tune/replay-2-seed-0" in planned.stdout
