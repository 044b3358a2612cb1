"""Cost of labels: geometries of alkanes, counted gradients, fitted exponents, the time limit."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from typer.testing import CliRunner

import hesse.cli.bench_command
import hesse.cli.sample_command  # noqa: F401  (a second verb: with one alone the command line has no verbs)
from hesse.bench import LabelCost, LabelCostPlan, alkane, fitted_exponents, measure_label_costs
from hesse.cli.app import app
from hesse.engines import XtbEngine
from hesse.errors import ConfigError, ExecutionError, HesseError, UnknownOptionError
from hesse.pes import minimize
from hesse.structures import bonded_pairs, closest_collision

ENGINE = "ase:closed_form_engines:own_engine"


@pytest.mark.parametrize("carbons", [1, 2, 3, 8, 33])
def test_alkanes_have_the_bonds_of_alkanes(carbons):
    structure = alkane(carbons)
    assert structure.id == f"C{carbons}H{2 * carbons + 2}"
    assert len(structure) == 3 * carbons + 2
    bonds = bonded_pairs(structure)
    degree = np.bincount(bonds.ravel(), minlength=len(structure))
    assert set(degree[structure.numbers == 6]) == {4}
    assert set(degree[structure.numbers == 1]) == {1}
    for i, j in bonds:
        length = np.linalg.norm(structure.positions[i] - structure.positions[j])
        assert length == pytest.approx(1.53 if structure.numbers[i] == structure.numbers[j] else 1.09)
    assert closest_collision(structure, 1.0) is None or closest_collision(structure, 0.95) is None


def test_an_alkane_is_near_its_minimum():
    pytest.importorskip("tblite.interface", reason="tblite is not installed")
    start = alkane(4)
    result = minimize(start, XtbEngine(), fmax=0.02)
    assert np.linalg.norm(result.structure.positions - start.positions, axis=1).max() < 0.15


def test_gradients_are_counted_and_ratios_are_those_of_times():
    rows = measure_label_costs(
        LabelCostPlan(engines=(ENGINE,), carbons=(2, 1), repeats=2, seconds=60.0), workers=0, quiet=True
    )
    assert [(r.atoms, r.label) for r in rows] == [
        (n, label) for n in (5, 8) for label in ("energy", "gradient", "hvp", "hessian")
    ]
    for r in rows:
        assert r.level == "closed form"
        assert r.seconds > 0
    assert {r.label: r.gradients for r in rows[:4]} == {"energy": 1, "gradient": 1, "hvp": 2, "hessian": 30}
    assert [r.repeats for r in rows[:4]] == [2, 2, 2, 1]
    assert rows[1].ratio == 1.0
    assert rows[7].ratio > 4 * rows[6].ratio


def test_the_time_limit_is_kept():
    plan = LabelCostPlan(engines=(ENGINE,), carbons=(1, 2, 16, 32), repeats=1, seconds=0.5)
    start = time.monotonic()
    rows = measure_label_costs(plan, workers=0, quiet=True)
    assert time.monotonic() - start < 60.0
    assert max(r.atoms for r in rows) < 98
    assert "gradient" in {r.label for r in rows}


def test_exponents_are_fitted():
    def row(label, atoms, seconds):
        return LabelCost("e", "E", label, atoms, seconds, seconds, 1, None, 1.0)

    rows = [row("hvp", n, 3e-4 * n**2.5 + (0.5 if n < 20 else 0.0)) for n in (5, 8, 20, 40, 80)]
    rows += [row("hessian", n, 1e-3 * n**3.5) for n in (5, 8, 11)]
    rows += [row("gradient", n, 1.0) for n in (5, 8)]
    result = fitted_exponents(rows)
    assert result == {("e", "hvp"): pytest.approx(2.5), ("e", "hessian"): pytest.approx(3.5)}


def test_bad_requests(tmp_path, monkeypatch):
    for options in ({"engines": ()}, {"carbons": ()}, {"carbons": (0,)}, {"repeats": 0}, {"seconds": 0.0}):
        with pytest.raises(ConfigError):
            LabelCostPlan(**options)
    with pytest.raises(ConfigError, match="once"):
        LabelCostPlan(engines=("gfn2", "gfn2"))
    with pytest.raises(ConfigError, match="carbon"):
        alkane(0)
    with pytest.raises(UnknownOptionError, match="gfn2"):
        measure_label_costs(LabelCostPlan(engines=("gnf2",)), quiet=True)
    with pytest.raises(ConfigError, match="one worker"):
        measure_label_costs(workers=2)
    (tmp_path / "unwilling.py").write_text(
        "import closed_form_engines as c\n\n\ndef carbon(atoms):\n    raise ValueError('no carbon, please')\n\n\n"
        "def make():\n    return c.MorseCalculator(carbon)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ExecutionError, match=r"could not be timed.*no carbon"):
        measure_label_costs(LabelCostPlan(engines=("ase:unwilling:make",)), workers=0, quiet=True)


@pytest.mark.slow
def test_the_command_writes_rows_and_a_figure(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["bench", "labels", "--engine", ENGINE, "--carbons", "1", "--carbons", "2", "--repeats", "1"]
    done = CliRunner().invoke(app, [*command, "--json", "rows.json", "--picture", "costs.png", "--quiet"])
    assert done.exit_code == 0, done.output
    assert "closed form" in done.stdout
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {"engine", "level", "label", "atoms", "seconds", "wall_seconds", "gradients", "ratio"} <= rows[0].keys()
    assert (tmp_path / "costs.png").read_bytes()[:4] == b"\x89PNG"
    for wrong, words in (
        (["--picture", "costs.pdf"], ".png"),
        (["--json", "nowhere/rows.json"], "no folder"),
        (["--seconds", "-1"], "positive"),
    ):
        refused = CliRunner().invoke(app, [*command, *wrong])
        assert isinstance(refused.exception, HesseError)
        assert refused.exception.exit_code == 2
        assert words in str(refused.exception)
