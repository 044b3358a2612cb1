"""Active learning, small: a surface in closed form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hesse.datasets import Dataset, read_dataset
from hesse.engines import as_potential
from hesse.engines.compute import compute
from hesse.errors import ConfigError, HesseError, MissingLabelError, RequestError, UnknownElementError
from hesse.probes import ProbeSeed, Rademacher
from hesse.recipes.protocols import plan_recipe, run_recipe
from hesse.structures import Properties, collate
from oracles import Morse, labeled, molecules

SURFACE = Morse(depth=1.0, width=1.2)
TRAINING: dict[str, Any] = {
    "steps": 2,
    "model": {"kind": "hipnn", "features": 4, "sensitivities": 4, "blocks": 1, "onsite_layers": 1},
    "batch": {"structures": 3},
    "compile": "never",
    "validate_every": 2,
    "dtype": "float64",
}


def data(sizes: list[int], seed: int, name: str, *, hessian: bool = True, **options: Any) -> Dataset:
    structures = [
        replace(s, id=f"{name}-{i}", group=f"{name}-g{i % 4}")
        for i, s in enumerate(molecules(sizes, seed=seed, **options))
    ]
    return replace(labeled(SURFACE, structures, probes=0, hessian=hessian), metadata={"level": "GFN2-xTB"})


START, POOL = data([3, 4, 5], 1, "start"), data([3, 4, 5] * 3, 2, "pool")
TEST = data([4, 3, 5, 4], 3, "test")


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "start": START, "pool": POOL, "validation": data([4, 3], 5, "validation"), "test": {"far": TEST}, "members": 2,
        "rounds": 2, "per_round": 2, "training": TRAINING, "output": folder / "out", **changes,
    }  # fmt: skip


@pytest.mark.slow
def test_rounds_from_end_to_end(tmp_path: Path) -> None:
    config = options(tmp_path, pick_by=["random", "curvature"])
    result = run_recipe("active", config, quiet=True)
    assert result.stopped == ""
    first, second = (result.file(f"curvature/seed-0/round-{k}/pick", "request.h5") for k in (0, 1))
    picked = [*read_dataset(first, check=False).ids, *read_dataset(second, check=False).ids]
    assert len(set(picked)) == 4
    labels = read_dataset(result.file("curvature/seed-0/round-1/labels", "labels.h5"))
    assert labels.ids == tuple(picked[2:])
    assert labels.has("hessian")
    used = json.loads((tmp_path / "out/curvature/seed-0/round-2/member-1/data.json").read_text())
    assert used["parts"]["train"]["structures"] == len(START) + 4
    models = {row["model"] for row in result.records["results"].results["rows"]}
    assert models == {f"{by}/{n}/seed-0" for by in ("random", "curvature") for n in (3, 5, 7)}
    points = json.loads(result.file("calibration", "points.json").read_text())
    assert {point["property"] for point in points} == {"energy", "forces", "hvp"}
    assert "disagreement" in result.summary
    again = run_recipe("active", config, quiet=True)
    assert again.records["calibration"].results == result.records["calibration"].results


def test_the_structures_of_largest_disagreement_are_picked(tmp_path: Path) -> None:
    """The standard deviation of H v of two members along the same probes, computed one by one."""
    result = run_recipe("active", options(tmp_path, rounds=1, per_round=3, test={}), quiet=True)
    members = [as_potential(result.file(f"start/seed-0/member-{k}", "model.hesse")) for k in range(2)]
    spreads = {}
    for structure in POOL.structures:
        probes = Rademacher(2).draw(collate([structure], 0.1), ProbeSeed(0))
        one, two = (compute(structure, member, probes=probes).hvp for member in members)
        assert one is not None
        assert two is not None
        spreads[structure.id] = float(((one - two) / np.sqrt(2)).square().mean().sqrt())
    rows = json.loads(result.file("curvature/seed-0/round-0/pick", "picks.json").read_text())
    expected = sorted(spreads, key=lambda name: -spreads[name])[:3]
    assert [row["id"] for row in rows] == expected
    for row in rows:
        assert row["curvature"] == pytest.approx(spreads[row["id"]], rel=1e-6)


@pytest.mark.slow
def test_a_branch_ends_when_the_calibrated_error_is_small(tmp_path: Path) -> None:
    config = options(tmp_path, curvature_error=1e4, pick_by=["curvature", "forces"])
    result = run_recipe("active", config, quiet=True)
    factor = result.records["curvature/seed-0/round-0/calibration"].results["factor"]
    second = result.records["curvature/seed-0/round-1/pick"].results
    assert second["curvature_error"] == pytest.approx(factor * second["curvature_spread"])
    assert "curvature/seed-0: calibrated error of H v" in result.stopped
    assert "forces/seed-0: calibrated error" in result.stopped
    assert "curvature/seed-0/round-1/labels" not in result.records
    assert {row["model"] for row in result.records["results"].results["rows"]} == {
        f"{by}/{n}/seed-0" for by in ("curvature", "forces") for n in (3, 5)
    }
    states = plan_recipe("active", config).states
    assert states["curvature/seed-0/round-1/labels"] == "not needed"
    assert states["curvature/seed-0/round-1/pick"] == "done"


def test_the_budget_limits_the_rounds(tmp_path: Path) -> None:
    plan = plan_recipe("active", options(tmp_path, rounds=5, budget=3))
    assert [name for name in plan.stages if name.endswith("/pick")] == [
        "curvature/seed-0/round-0/pick", "curvature/seed-0/round-1/pick",
    ]  # fmt: skip
    assert plan.stages["curvature/seed-0/round-1/pick"].startswith("pick 1 structures")


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        {"source": "dynamics", "dynamics": {"count": 2, "stride": 5, "equilibration": 0, "temperatures": [300.0]}},
        {"source": "transition-states", "search": {"steps": 2}},
    ],
)
def test_structures_from_dynamics_and_searches_of_the_committee(tmp_path: Path, source: dict[str, Any]) -> None:
    from ase.build import molecule

    from hesse.structures import from_ase

    pool = [replace(from_ase(molecule("H2O")), id=f"water-{k}") for k in range(2)]
    start = replace(data([3, 4] * 5, 1, "s", elements=(1, 8)), metadata={"level": "GFN2-xTB"})
    config = options(tmp_path, start=start, pool=Dataset.from_ase([_atoms(s) for s in pool]), engine="gfn2",
                     rounds=1, per_round=2, test={}, validation=None, tolerance=1e-6, explore=2, **source)  # fmt: skip
    config |= {"validation": None, "validation_fraction": 0.3}
    config["training"] = {**TRAINING, "steps": 1}
    result = run_recipe("active", config, quiet=True)
    explored = result.records["curvature/seed-0/round-0/explore"].results
    assert explored["candidates"] >= 2
    labels = read_dataset(result.file("curvature/seed-0/round-0/labels", "labels.h5"))
    assert labels.metadata["level"] == "GFN2-xTB"
    assert all(name.startswith("curvature/seed-0/round-0/water-") for name in labels.ids)
    assert (tmp_path / "out/curvature/seed-0/round-1/member-1/model.hesse").exists()


@pytest.mark.slow
def test_minima_and_transition_states_with_a_trained_committee(tmp_path: Path) -> None:
    """Guesses by tag; a committee that is given; weights of new labels; options of later rounds."""
    from ase.build import molecule

    from hesse.structures import from_ase

    water = from_ase(molecule("H2O"))
    wide = water.with_positions(1.1 * water.positions, id="bottom-1")
    guesses = [replace(water, id="top", tag="ts"), replace(water, id="bottom-0", tag="reactant"), wide]
    pool = Dataset.from_pairs((s, Properties.single(len(s), structure_id=s.id)) for s in guesses)
    start = replace(data([3, 4] * 5, 1, "s", elements=(1, 8)), metadata={"level": "GFN2-xTB"})
    config = options(tmp_path, start=start, pool=pool, engine="gfn2", rounds=1, per_round=3, test={}, tolerance=1e-9)
    config |= {"validation": None, "validation_fraction": 0.3, "source": "stationary-points", "begin": "previous",
               "search": {"steps": 2}, "relaxation": {"steps": 3}}  # fmt: skip
    config["training"] = {**TRAINING, "steps": 1}
    first = run_recipe("active", config, quiet=True)
    members = [first.file(f"start/seed-0/member-{k}", "model.hesse") for k in range(2)]

    config |= {"pretrained": members, "label_weight": 8.0, "updates": {"steps": 3}, "output": tmp_path / "second",
               "rounds": 2, "include_starts": True, "per_round": 6, "seeds": 0}  # fmt: skip
    plan = plan_recipe("active", config)
    assert not any("start/seed-0/member" in name for name in plan.stages)
    second = run_recipe("active", config, quiet=True)
    labels, later = (read_dataset(second.file(f"curvature/seed-0/round-{k}/labels", "labels.h5")) for k in range(2))
    assert sorted(s.tag == "failed" for s in labels.structures) == [False, False, True, True, True]
    starts = {s.id for s in labels.structures if s.tag != "failed"}
    assert starts in ({"top", "bottom-1"}, {"bottom-0", "bottom-1"})  # two of them are one geometry
    assert len(labels) == 5
    assert not set(later.ids) & starts
    assert labels.labels.weight is not None
    assert labels.labels.weight.tolist() == [8.0] * 5
    (top,) = (s for s in labels.structures if s.id.endswith("/top"))
    (bottom,) = (s for s in labels.structures if s.id.endswith("/bottom-0"))
    assert np.abs(top.positions - bottom.positions).max() > 1e-3
    assert second.summary.startswith("curvature/seed-0/round-0: forces at 5 ends of searches differ from those of gfn2")
    run = second.file("curvature/seed-0/round-1/member-0", "model.hesse").parent
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 3


def _atoms(structure: Any) -> Any:
    from hesse.structures import to_ase

    atoms = to_ase(structure)
    atoms.info["structure_id"] = structure.id
    return atoms


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"pool": START}, RequestError, "every structure of the pool is labeled already"),
        ({"pool": data([3, 4], 2, "p", hessian=False)}, RequestError, "has no curvature label: give an engine"),
        ({"per_round": 5}, ConfigError, "10 labels in 2 rounds, and the pool has 9 structures"),
        ({"validation": None}, RequestError, "3 structures in 3 groups .* too few to hold out"),
        ({"members": 1}, ConfigError, "expected 2 or more"),
        ({"pick_by": "hessian"}, HesseError, "hessian"),
        ({"source": "dynamics"}, ConfigError, "give an engine"),
        ({"dynamics": {"count": 2}}, ConfigError, "dynamics are options of source: dynamics"),
        ({"source": "dynamics", "engine": "gfn2", "dynamics": {"counts": 2}}, HesseError, "counts"),
        ({"start": data([3, 4], 1, "s", hessian=False)}, MissingLabelError, "no structure has products or a Hessian"),
        ({"pool": data([3, 3], 2, "p", elements=(9,))}, UnknownElementError, "the pool holds elements \\[9\\]"),
        ({"source": "stationary-points", "engine": "gfn2"}, RequestError, "has a tag of a transition state"),
        ({"include_starts": True}, ConfigError, "include_starts is for dynamics and searches"),
        ({"relaxation": {"steps": 5}}, ConfigError, "relaxation holds options of source: stationary-points"),
        ({"pretrained": ["a.hesse"]}, ConfigError, "pretrained names 1 models, and members is 2"),
        ({"pretrained": ["a.hesse", "b.hesse"]}, HesseError, "a.hesse"),
        ({"label_weight": 0}, ConfigError, "label_weight"),
        ({"engine": "gfn1"}, RequestError, "engine: labels of GFN1-xTB, and those to begin with are of GFN2-xTB"),
    ],
)
def test_wrong_requests_have_replies_before_any_work(
    tmp_path: Path, changes: dict[str, Any], error: type[HesseError], text: str
) -> None:
    with pytest.raises(error, match=text):
        run_recipe("active", options(tmp_path, **changes), quiet=True)
    assert not (tmp_path / "out" / "start").exists()


def test_mixed_levels_can_be_allowed(tmp_path: Path) -> None:
    assert plan_recipe("active", options(tmp_path, engine="gfn1", allow_mixed_levels=True)).stages
