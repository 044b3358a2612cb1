"""The measurement of the data path runs and writes its rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import data_path

pytestmark = pytest.mark.slow


def test_rows_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_path.main(["--model", "hipnn", "--steps", "2", "--batch", "4", "--json", str(tmp_path / "rows.json")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["scheme"] for row in rows] == ["E-F", "E-F-HVP"]
    assert all(0 < row["share"] < 1 and row["step_ms"] > row["batch_ms"] > 0 for row in rows)
    assert capsys.readouterr().out.count("\n") == 4
