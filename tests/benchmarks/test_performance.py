"""The benchmark of epochs on a few structures; counting of operations that make the host wait."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parents[2] / "benchmarks" / "performance"
sys.path.insert(0, str(HERE))

import epochs  # noqa: E402
import syncs  # noqa: E402

pytestmark = pytest.mark.slow

TINY = "hipnn?features=4,sensitivities=4,blocks=1,onsite_layers=1"


def test_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "epochs.json"
    words = f"epochs --device cpu --kind {TINY} --scale 0.0004 --batch 4 --minutes 2 --no-compile --json {file}"
    monkeypatch.setattr(sys, "argv", words.split())
    epochs.main()
    output = capsys.readouterr().out
    rows = json.loads(file.read_text())
    assert [(r["dtype"], r["scheme"]) for r in rows] == [
        (dtype, scheme) for dtype in ("float32", "float64") for scheme in ("ef", "ef_hvp", "ef_h")
    ]
    for row in rows:
        assert (row["structures"], row["batch"], row["steps"], row["mode"]) == (11, 4, 3, "eager")
        assert row["seconds"] > 0
        assert row["extrapolated"] == (row["timed_steps"] < row["steps"])
    assert {r["scheme"]: r["published"] for r in rows} == {"ef": 4.0, "ef_hvp": 13.3, "ef_h": 326.5}
    assert "host syncs" in output
    assert "| ef_hvp | float64 | eager | 4 |" in output


def test_sizes_are_those_of_the_published_data() -> None:
    sizes = epochs.sizes(epochs.STRUCTURES)
    assert sorted(sizes)[len(sizes) // 2] == 14
    assert (min(sizes), max(sizes)) == (4, 26)


def test_waits_are_counted() -> None:
    values, lengths = torch.arange(4.0), torch.tensor([1, 2, 0, 1])
    with syncs.HostSyncs() as syncs_seen:
        values.sum().item()
        values[values > 1]
        torch.repeat_interleave(values, lengths)
        torch.repeat_interleave(values, lengths, output_size=4)
        values[lengths].exp()
    assert sorted(location.split(":")[0] for location in syncs_seen.waits.elements()) == [
        "_local_scalar_dense",
        "index",
        "repeat_interleave",
    ]
