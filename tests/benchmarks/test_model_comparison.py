"""The comparison of networks: results, continuation, refused settings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2] / "benchmarks" / "models"
sys.path.insert(0, str(HERE))

import compare  # noqa: E402

pytestmark = pytest.mark.slow

SMALL = (
    'hip={"kind": "hipnn", "features": 4, "sensitivities": 3, "blocks": 1, "onsite_layers": 0}',
    'equi={"kind": "hessenet", "features": 4, "channels": 2, "radial": 3}',
)


def arguments(folder: Path, *more: str) -> list[str]:
    models = [part for text in SMALL for part in ("--model", text)]
    common = ["--steps", "3", "--repeats", "1", "--batch", "4", "--test", "rtp-test", "--quiet"]
    return [str(folder), *models, *common, *more]


def test_two_networks_and_two_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare.main(arguments(tmp_path, "--seed", "0", "--seed", "1", "--only", "train"))
    assert capsys.readouterr().out == ""
    trained = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/errors.json")}
    assert len(trained) == 4
    compare.main(arguments(tmp_path, "--seed", "0", "--seed", "1"))
    table = capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/errors.json")} == trained
    assert (tmp_path / "accuracy-time.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert {(row["name"], row["dataset"]) for row in rows} == {("hip", "rtp-test"), ("equi", "rtp-test")}
    for row in rows:
        values = [
            number["value"]
            for seed in (0, 1)
            for number in json.loads((tmp_path / f"{row['name']}-seed{seed}" / "errors.json").read_text())["rows"]
            if (number["property"], number["metric"]) == (row["property"], "rmse")
        ]
        assert row["rmse"] == pytest.approx(sum(values) / 2)
        assert row["spread"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
        assert row["times"]["E-F-HVP"]["processor"] > 0
    hessian = next(row for row in rows if (row["name"], row["property"]) == ("equi", "hessian"))
    line = next(line for line in table.splitlines() if line.startswith("| equi"))
    assert f"{hessian['rmse']:.3g} ± " in line


def test_runs_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    compare.main(arguments(tmp_path))
    file = tmp_path / "equi-seed0" / "errors.json"
    run = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**run, "config": {**run["config"], "radial": 4}}), encoding="utf-8")
    with pytest.raises(SystemExit, match="equi-seed0 is of other settings"):
        compare.main(arguments(tmp_path, "--only", "report"))


@pytest.mark.parametrize("text", ["hipnn", "=", 'x={"kind": "transformer"}', 'x={"kind": "hessenet", "width": 3}'])
def test_invalid_models_are_refused(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        compare.main([str(tmp_path), "--model", text])
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
