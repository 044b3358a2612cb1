"""A small demonstration, and its parts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from hesse.errors import ConfigError, ExecutionError, FileFormatError, InterruptedRunError
from hesse.evaluation import vibrational_errors
from hesse.recipes import DemoPlan, g2_molecules, hold_out, parallel_runs, run_demo, train_in_parallel
from hesse.recipes.parallel_runs import _steps_done

pytestmark = pytest.mark.slow


def test_molecules_are_closed_shell_with_hydrogen() -> None:
    molecules = g2_molecules()
    names = [m.id for m in molecules]
    assert len(names) == 53
    assert names == sorted(names)
    assert all(m.numbers.sum() % 2 == 0 and 1 in m.numbers and len(m) >= 3 for m in molecules)
    assert not {"O2", "NO2", "CH3", "H2", "CO2", "CH2_s1A1d"} & set(names)
    hydrocarbons = g2_molecules(("H", "C"))
    assert {"CH4", "C6H6"} < {m.id for m in hydrocarbons}
    assert all(set(m.numbers) == {1, 6} for m in hydrocarbons)


def test_a_small_demonstration(tmp_path: Path) -> None:
    pytest.importorskip("tblite", reason="the demonstration labels with tblite")
    plan = DemoPlan(
        molecules=("H2O", "CH4", "C2H6", "C3H8"), steps=3, near=3, far=1, unseen=1, unseen_samples=1, workers=1,
        validation=0.25, model={"features": 4, "channels": 2, "radial": 3}, training={"validate_every": 1},
    )  # fmt: skip
    result = run_demo(tmp_path, plan, quiet=True)
    assert list(result.evaluations) == ["E-F", "E-F-HVP"]
    for evaluations in result.evaluations.values():
        far, unseen = evaluations
        assert {s.group for s in unseen.dataset.structures} == {
            "C2H6"
        }  # the only one whose environments all occur elsewhere
        assert {s.tag for s in far.dataset.structures} == {"nms-2000K"}
        assert {s.tag for s in unseen.dataset.structures} == {"relaxed", "nms-300K"}
        assert not {s.group for s in far.dataset.structures} & {s.group for s in unseen.dataset.structures}
        assert all(e.row("hessian") is not None for e in evaluations)
        vibrations = vibrational_errors(unseen)
        assert vibrations is not None
        assert (vibrations.n_structures, vibrations.n_modes) == (1, 18)
    settings = [json.loads((tmp_path / "runs" / n / "resolved.json").read_text()) for n in ("E-F", "E-F-HVP")]
    assert settings[0]["weights"].pop("hvp") == 0
    assert settings[1]["weights"].pop("hvp") > 0
    for run in settings:
        run.pop("output")
    assert settings[0] == settings[1], "the runs differ in more than the weight of the products"
    for name in ("ef", "ef_hvp"):
        assert (tmp_path / "models" / f"{name}.hesse").is_file()
    # The same call reads labels and runs, and does not make them again.
    before = (tmp_path / "runs" / "E-F" / "metrics.jsonl").read_bytes()
    again = run_demo(tmp_path, plan, quiet=True)
    assert (tmp_path / "runs" / "E-F" / "metrics.jsonl").read_bytes() == before
    assert [e.rows for e in again.evaluations["E-F-HVP"]] == [e.rows for e in result.evaluations["E-F-HVP"]]


def test_a_folder_with_another_plan_is_not_changed(tmp_path: Path) -> None:
    """Settings are compared before anything is written: data and models of different plans are never mixed."""
    (tmp_path / "plan.json").write_text(json.dumps(asdict(DemoPlan(seed=0, steps=7))))
    with pytest.raises(ConfigError, match=r"another plan \(seed 0, not 1\).*another folder"):
        run_demo(tmp_path, DemoPlan(seed=1, steps=7), quiet=True)
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(FileFormatError, match=r"plan\.json"):
        run_demo(tmp_path, DemoPlan(), quiet=True)


def test_bonding_environments_of_held_out_molecules_occur_in_the_others() -> None:
    molecules = g2_molecules()
    for seed in range(5):
        chosen = hold_out(molecules, 10, seed=seed)
        assert len(set(chosen)) == 10
        # Hydrogen peroxide has the only O-O bond between hydrogen-bearing oxygens, hydrazine the only such N-N bond.
        assert not {"H2O2", "N2H4", "H2O", "NH3", "CH4"} & set(chosen)
    assert hold_out(molecules, 10, seed=1) == hold_out(molecules, 10, seed=1) != hold_out(molecules, 10, seed=2)
    with pytest.raises(ConfigError, match="at most"):
        hold_out(molecules, 50, seed=0)


def test_numbers_of_a_plan_are_at_least_one() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        DemoPlan(far=0)


def test_a_failing_run_reports_its_last_line_on_standard_error(tmp_path: Path) -> None:
    config = {"data": {"train": str(tmp_path / "absent.h5")}, "steps": 1}
    with pytest.raises(ExecutionError, match=r"absent\.h5"):
        train_in_parallel({"one": config}, tmp_path, quiet=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    processes = []

    def start(file: Path, run: Path) -> subprocess.Popen[bytes]:
        processes.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        if len(processes) == 2:
            threading.Timer(0.2, signal.raise_signal, [number]).start()
        return processes[-1]

    monkeypatch.setattr(parallel_runs, "_start_process", start)
    config = {"data": {"train": str(tmp_path / "absent.h5")}, "steps": 1}
    with pytest.raises(InterruptedRunError, match="the same command continues all runs"):
        train_in_parallel({"one": config, "two": config}, tmp_path, quiet=True)
    assert [process.returncode for process in processes] == [-signal.SIGTERM] * 2


def test_progress_is_read_from_the_end_of_the_log(tmp_path: Path) -> None:
    record = tmp_path / "metrics.jsonl"
    assert _steps_done(record) == 0
    record.write_text('{"kind": "train", "step": 7, "loss": 1.0}\n{"kind": "train", "st')
    assert _steps_done(record) == 7
