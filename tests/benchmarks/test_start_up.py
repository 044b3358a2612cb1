"""The benchmark of start-up runs, and short commands import no heavy package that they do not use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import start_up

pytestmark = pytest.mark.slow


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    start_up.main(["--turns", "1", "--verbs", "help"])
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == ["command", "python", "import", "help"]


def test_info_imports_neither_scipy_nor_plots() -> None:
    costs = start_up.measure(["info"], {"this": Path(start_up.hesse.__file__).parents[1]}, 1)
    assert not {"matplotlib", "ase.io", "ase.spacegroup"} & set(costs["info", "this"].imports)
    assert "torch" in costs["info", "this"].imports, "the list of imports is empty"
