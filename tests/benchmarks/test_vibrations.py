"""The benchmarks of vibrations run on small inputs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import frequency_error_bars
import vibrations_of_many

pytestmark = pytest.mark.slow


def test_batches_give_the_same_frequencies(capsys: pytest.CaptureFixture[str]) -> None:
    vibrations_of_many.main(["--molecules", "6", "--repeats", "1", "--double"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["hessenet", "hipnn", "ani"]
    assert all(float(row[-1]) < 1e-3 for row in rows)


def test_error_bars(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tblite.interface", reason="tblite is not installed")
    frequency_error_bars.main(["H2O2"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(rows) == 2
    assert all(0.3 < float(row[-2]) < 2.0 for row in rows)
