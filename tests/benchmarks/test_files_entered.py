"""The count of files that a call enters runs; one training step stays within a bound."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import files_entered

pytestmark = pytest.mark.slow


def test_counts(capsys: pytest.CaptureFixture[str]) -> None:
    walks = files_entered.measure(files_entered.TINY)
    step = {Path(file).relative_to(files_entered.SOURCE).as_posix() for file in walks["a training step"].files}
    assert {"training/trainer.py", "training/loader.py", "datasets/packed.py", "models/hipnn.py"} <= step
    assert len(step) <= 17, f"a training step enters more files than before: {sorted(step)}"
    assert walks["train, 3 steps"].files > walks["a training step"].files
    files_entered.main(["--list"])
    shown = capsys.readouterr().out
    assert f"a training step{len(step):>20}" in shown
    assert "    training/trainer.py\n" in shown
