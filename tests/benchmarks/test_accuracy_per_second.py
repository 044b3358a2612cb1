"""Errors against seconds: results, continuation, refused settings. Cost and variance of further probes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(HERE))

import accuracy_per_second  # noqa: E402
import more_probes  # noqa: E402

from hesse.datasets import read_dataset  # noqa: E402
from hesse.models import HipnnConfig, build_model  # noqa: E402

pytestmark = pytest.mark.slow

BASE = (
    '{"model": {"kind": "hipnn", "features": 4, "sensitivities": 3, "blocks": 1, "onsite_layers": 0}, '
    '"batch": {"structures": 4}}'
)
TRAIN = HERE / "reactions" / "tiny" / "rtp-train.h5"


def arguments(folder: Path, *more: str) -> list[str]:
    settings = ["--setting", 'E-F={"weights": {"hvp": 0}}', "--setting", 'every 2={"curvature": {"every_n_steps": 2}}']
    test = ["--test", str(HERE / "reactions" / "tiny" / "rtp-test.h5"), "--judge", "3", "--repeats", "1"]
    return [str(folder), "--base", BASE, *settings, *test, *more]


def test_settings_get_the_steps_that_fit_and_the_script_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accuracy_per_second.main(arguments(tmp_path, "--only", "costs"))
    measured = json.loads((tmp_path / "costs.json").read_text(encoding="utf-8"))
    assert measured.keys() == {"E-F", "every 2"}
    costs = {"E-F": 0.01, "every 2": 0.02}  # so that the numbers of steps below are those of any machine
    (tmp_path / "costs.json").write_text(json.dumps(costs), encoding="utf-8")

    budgets = ["--budget", "0.02", "--budget", "0.06", "--seed", "0", "--seed", "1"]
    accuracy_per_second.main(arguments(tmp_path, *budgets))
    table = capsys.readouterr().out
    runs = {path: json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("*/errors.json")}
    assert sorted((r["name"], r["steps"], r["seed"]) for r in runs.values()) == [
        ("E-F", 2, 0), ("E-F", 2, 1), ("E-F", 6, 0), ("E-F", 6, 1),
        ("every 2", 1, 0), ("every 2", 1, 1), ("every 2", 3, 0), ("every 2", 3, 1),
    ]  # fmt: skip
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    row = next(r for r in rows if (r["name"], r["budget"], r["property"]) == ("every 2", 0.06, "hessian"))
    values = [
        number["value"]
        for run in runs.values()
        if run["steps"] == 3
        for number in run["rows"]
        if number["property"] == "hessian"
    ]
    assert row["rmse"] == pytest.approx(sum(values) / 2)
    assert row["spread"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert "| 0.06 | every 2 | 20 | 2.00 | 3 |" in table
    assert f"{row['rmse']:.3g} ± " in table
    assert (tmp_path / "accuracy-per-second.png").read_bytes().startswith(b"\x89PNG")

    before = {path: path.stat().st_mtime_ns for path in runs}
    accuracy_per_second.main(arguments(tmp_path, *budgets))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/errors.json")} == before


@pytest.mark.parametrize(
    "wrong", [["--base", "{"], ["--setting", "x"], ["--setting", 'x={"curvature": {"fraction": 2}}']]
)
def test_invalid_settings_are_refused(tmp_path: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        accuracy_per_second.main([str(tmp_path), *wrong])
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_three_ways_of_further_probes_agree(capsys: pytest.CaptureFixture[str]) -> None:
    more_probes.main(["--kind", "ani", "--structures", "2", "--probes", "2", "--repeats", "1", "--only", "costs"])
    *_, line = capsys.readouterr().out.splitlines()
    cells = [cell.strip() for cell in line.strip("| ").split("|")]
    assert (cells[:2], cells[4], len(cells)) == (["ani", "2"], "2", 8)


def test_variances_of_structures_and_of_probes() -> None:
    """Random numbers with both variances are estimated within four standard errors of 4,000 structures."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.tensor([3.0, -4.0, 0.0], dtype=torch.float64)  # of squared length 25
    structures = 2.0 * torch.randn(4000, 1, 3, generator=generator, dtype=torch.float64)
    probes = 5.0 * torch.randn(4000, 2, 3, generator=generator, dtype=torch.float64)
    between, within = more_probes.variances(mean + structures + probes)
    assert between == pytest.approx(3 * 4 / 25, rel=0.29)
    assert within == pytest.approx(3 * 25 / 25, rel=0.12)


def test_every_structure_has_two_gradients() -> None:
    data = read_dataset(TRAIN)
    model = build_model(HipnnConfig(features=4, sensitivities=3, blocks=1, onsite_layers=0), data.elements, None)
    pairs = more_probes.gradients_of_pairs(data, model.float(), 3)
    assert tuple(pairs.shape) == (3, 2, sum(p.numel() for p in model.parameters()))
    assert not torch.equal(pairs[:, 0], pairs[:, 1])
    assert all(bool(torch.isfinite(part).all()) for part in pairs)
