"""Cost of inference: the function that is timed, the rows, and calculations that are left out."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from typer.testing import CliRunner

import hesse.cli.bench_command
import hesse.cli.sample_command  # noqa: F401  (a second verb: with one alone the command line has no verbs)
from hesse.bench import InferencePlan, measure_inference_costs, untrained_network
from hesse.bench.inference_costs import _make_call
from hesse.bench.workloads import random_molecules_in_range
from hesse.cli.app import app
from hesse.curvature import evaluate
from hesse.errors import ConfigError, HesseError
from hesse.structures import Request, collate

TINY = "hipnn?features=4,sensitivities=4,blocks=1,onsite_layers=1"
KEYS = {"subject", "scheme", "mode", "dtype", "device", "structures", "atoms", "seconds", "peak_mib", "ratio_to_ef"}


def test_the_timed_function_computes_the_properties():
    structures = random_molecules_in_range(3, 5, 4)
    potential = untrained_network(TINY, (1, 6, 7, 8)).double()
    batch = collate(structures, potential.cutoff)
    expected = evaluate(potential, batch, Request(forces=True, hessian=True))
    results = {scheme: _make_call(potential, structures, scheme, None)() for scheme in ("e", "ef", "hvp", "hessian")}
    for labels in results.values():
        torch.testing.assert_close(labels.energy, expected.energy)
    assert results["e"].forces is None
    torch.testing.assert_close(results["ef"].forces, expected.forces)
    torch.testing.assert_close(results["hessian"].hessian, expected.hessian)
    probes = results["hvp"].probes
    torch.testing.assert_close(results["hvp"].hvp, expected.hessian_matvec(probes))


def test_rows_and_calculations_that_take_too_long():
    structures = random_molecules_in_range(3, 4, 3)
    potentials = {"tiny": untrained_network(TINY, (1, 6, 7, 8))}
    rows, left_out = measure_inference_costs(potentials, structures, InferencePlan(repeats=2), quiet=True)
    assert [row.scheme for row in rows] == ["e", "ef", "hvp", "hessian"]
    assert left_out == []
    for row in rows:
        assert asdict(row).keys() >= KEYS
        assert (row.structures, row.atoms, row.repeats) == (3, sum(map(len, structures)), 2)
        assert min(row.seconds, row.peak_mib) > 0
    hasty = InferencePlan(schemes=("hessian",), time_budget=1e-9, repeats=1)
    rows, left_out = measure_inference_costs(potentials, structures, hasty, quiet=True)
    assert rows == []
    assert "would take about" in left_out[0]
    assert next(potentials["tiny"].parameters()).dtype == torch.float32


@pytest.mark.slow
def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["bench", "inference", "--kind", TINY, "--quick", "--quiet", "--repeats", "1"]
    done = CliRunner().invoke(app, [*words, "--structures", "2", "--atoms", "3-4", "--json", "rows.json"])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "structures per second" in done.stdout
    assert len(json.loads((tmp_path / "rows.json").read_text())) == 4
    done = CliRunner().invoke(app, [*words, "--periodic", "8,16", "--scheme", "hvp"])
    assert done.exit_code == 0, (done.output, done.exception)
    for wrong, message in (
        (["--atoms", "few"], "--atoms"),
        (["--scheme", "everything"], "no scheme"),
        (["--periodic", "8", "--data", "a.h5"], "leave out"),
        (["--kind", "hippn"], "Did you mean"),
        (["--json", "no/where.json"], "no folder"),
        (["missing.hesse"], "missing.hesse"),
    ):
        refused = CliRunner().invoke(app, [*words, *wrong])
        assert isinstance(refused.exception, HesseError), (wrong, refused.output, refused.exception)
        assert refused.exception.exit_code == 2
        assert message in str(refused.exception)


def test_bad_plans():
    for options in ({"schemes": ()}, {"repeats": 0}, {"time_budget": -1.0}, {"threads": 0}):
        with pytest.raises(ConfigError):
            InferencePlan(**options)
    with pytest.raises(ConfigError, match="needs a potential"):
        measure_inference_costs({}, [])
