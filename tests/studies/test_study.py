"""A small study: all cells once, resumed, with failures, parts of the data, and changed settings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_study import grouped, study, write_data

from hesse.datasets import read_dataset, write_dataset
from hesse.errors import ConfigError, FileFormatError, InterruptedRunError, MissingLabelError
from hesse.evaluation import evaluate_model
from hesse.recipes.set_errors import cached_errors, evaluate_run
from hesse.studies import plan_study, run_study
from hesse.training import read_log


def write_study(folder: Path, **changes: Any) -> Path:
    write_data(folder)
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study(**changes)))
    return path


def times(folder: Path) -> dict[str, int]:
    """When the files of results were written."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in (folder / "study/runs").rglob("*.json*")}


def test_a_study_trains_and_evaluates_every_cell_once(tmp_path: Path) -> None:
    """Two schemes, three seeds, five steps."""
    path = write_study(tmp_path)
    plan = plan_study(path)
    assert len(plan.pending) == 6
    assert not (tmp_path / "study").exists(), "a plan writes nothing"
    result = run_study(path, workers=0, quiet=True)
    assert result.finished == tuple(f"{s}_seed{k}" for s in ("ef", "ef-hvp") for k in range(3))
    assert not result.failed
    record = json.loads((tmp_path / "study/study.json").read_text())
    assert [cell["structures"] for cell in record["cells"]] == [8] * 6
    folder = result.run_folder("ef-hvp_seed1")
    data = read_dataset(tmp_path / "test.h5")
    errors = cached_errors(folder, data.content_hash(), hessian=True)
    assert errors is not None
    direct = evaluate_model(folder / "model.hesse", data)
    for prop in ("energy", "forces", "hvp", "hessian"):
        row, expected = errors.row(prop), direct.row(prop)
        assert row is not None
        assert expected is not None
        assert row.value == pytest.approx(expected.value)
        pooled = (errors.squared[prop].sum() / errors.counts[prop].sum()) ** 0.5
        assert pooled == pytest.approx(row.value), "the groups hold all errors"
    assert errors.groups == ("g0", "g1", "g2")
    without = cached_errors(folder, data.content_hash(), hessian=False)
    assert without is not None
    assert "hessian" not in {row.property for row in without.rows} | set(without.squared)
    assert without.row("forces") == errors.row("forces")
    before = times(tmp_path)
    again = run_study(path, workers=0, quiet=True)
    assert again.finished == result.finished
    assert times(tmp_path) == before, "finished cells are kept"
    assert plan_study(path).pending == ()


def test_more_cells_and_more_test_sets_are_added_to_a_study(tmp_path: Path) -> None:
    run_study(write_study(tmp_path, axes={"seed": [0]}), workers=0, quiet=True)
    before = times(tmp_path)
    write_dataset(tmp_path / "near.h5", grouped([3, 3], 8, 2))
    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump(study(axes={"seed": [0, 1]}, test={"far": "test.h5", "near": "near.h5"}))
    )
    result = run_study(tmp_path / "study.yaml", workers=0, quiet=True)
    assert result.finished == ("seed0", "seed1")
    after = times(tmp_path)
    far = read_dataset(tmp_path / "test.h5").content_hash()
    kept = f"study/runs/seed0/evaluations/{far}.json"
    assert after[kept] == before[kept]
    assert len(list((tmp_path / "study/runs/seed0/evaluations").iterdir())) == 2


def test_a_failed_cell_is_a_record_and_the_others_go_on(tmp_path: Path) -> None:
    axes = {"optimizer.learning_rate": {"good": 1e-3, "bad": 1e250}, "seed": [0]}
    base = {**study()["base"], "optimizer": {"max_grad_norm": None}}
    path = write_study(tmp_path, axes=axes, base=base)
    result = run_study(path, workers=0, quiet=True)
    assert result.finished == ("learning-rate-good_seed0",)
    assert "NonFiniteLossError" in result.failed["learning-rate-bad_seed0"]
    record = json.loads((result.run_folder("learning-rate-bad_seed0") / "cell.json").read_text())
    assert (record["status"], record["labels"]["optimizer.learning_rate"]) == ("failed", "bad")
    assert run_study(path, workers=0, quiet=True).failed == result.failed
    assert plan_study(path, retry_failed=True).pending == ("learning-rate-bad_seed0",)
    again = run_study(path, workers=0, quiet=True, retry_failed=True)
    assert "NonFiniteLossError" in again.failed["learning-rate-bad_seed0"]


def test_parts_of_the_data_and_fixed_pairs_are_files_of_the_study(tmp_path: Path) -> None:
    """Validation structures are held out once, and the parts of the rest are nested."""
    base = {**study()["base"], "data": {"train": "train.h5", "validation_fraction": 0.25}}
    axes = {"data_fraction": [0.7, 1.0], "probe": ["stored", "fixed-gaussian"]}
    path = write_study(tmp_path, base=base, axes=axes, test={})
    result = run_study(path, workers=0, quiet=True)
    assert not result.failed
    data = tmp_path / "study" / "data"
    files = ("train", "train-70pct", "train-fixed-gaussian", "train-fixed-gaussian-70pct", "validation")
    assert sorted(p.name for p in data.glob("*.h5")) == sorted(f"{name}.h5" for name in files)
    whole, part, fixed, _, held_out = (read_dataset(data / f"{name}.h5") for name in files)
    assert set(part.ids) < set(whole.ids) == set(fixed.ids)
    assert not set(whole.ids) & set(held_out.ids)
    assert fixed.labels.probes is not None
    assert len(fixed.labels.probes) == 1
    record = json.loads((result.run_folder("70pct_fixed-gaussian") / "cell.json").read_text())
    assert record["structures"] == len(part) < len(whole)
    # Other source data are refused.
    write_dataset(tmp_path / "train.h5", grouped([3, 4, 2, 3, 4, 2, 3, 4], 77, 4))
    with pytest.raises(ConfigError, match=r"its source files have changed since.*train\.h5"):
        run_study(path, workers=0, quiet=True)


def test_other_options_of_a_finished_cell_are_refused(tmp_path: Path) -> None:
    path = write_study(tmp_path, axes={"seed": [0]})
    run_study(path, workers=0, quiet=True)
    path.write_text(yaml.safe_dump(study(axes={"seed": [0]}, base={**study()["base"], "steps": 6})))
    with pytest.raises(ConfigError, match=r"cell seed0.*steps \(5 before, 6 now\).*another output"):
        run_study(path, workers=0, quiet=True)
    (tmp_path / "study/runs/seed0/cell.json").write_text("{")
    with pytest.raises(FileFormatError, match=r"cell\.json.*Remove this file"):
        plan_study(path)


def test_missing_test_sets_are_told_before_any_work(tmp_path: Path) -> None:
    path = write_study(tmp_path, test={"far": "nowhere.h5"})
    with pytest.raises(FileFormatError, match=r"\[test\], far.*nowhere\.h5: there is no such file"):
        run_study(path, workers=0, quiet=True)
    (tmp_path / "test.h5").rename(tmp_path / "nowhere.h5")
    (tmp_path / "train.h5").unlink()
    with pytest.raises(FileFormatError, match=r"cell ef_seed0, data\.train: .*train\.h5: there is no such file"):
        run_study(path, workers=0, quiet=True)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("suite", "reply"),
    [("reactions", "tags reactant, ts and product"), ("curvature", "no structure has a Hessian")],
)
def test_test_sets_without_what_their_suite_compares_are_told_before_any_work(
    tmp_path: Path, suite: str, reply: str
) -> None:
    path = write_study(tmp_path, suite=suite)
    data = read_dataset(tmp_path / "test.h5")
    write_dataset(tmp_path / "test.h5", replace(data, labels=data.labels.replace(hessian=None)))
    with pytest.raises(MissingLabelError, match=rf"study\.yaml, \[test\], far, suite {suite}: .*{reply}"):
        run_study(path, workers=0, quiet=True)
    assert not (tmp_path / "study").exists()


def test_errors_are_computed_again_for_another_model(tmp_path: Path) -> None:
    path = write_study(tmp_path, axes={"seed": [0, 1]}, suite={"far": "curvature"})
    result = run_study(path, workers=0, quiet=True)
    first, second = (result.run_folder(f"seed{k}") for k in (0, 1))
    data = read_dataset(tmp_path / "test.h5")
    suites = cached_errors(first, data.content_hash(), suite="curvature")
    assert suites is not None
    assert suites.row("eigenvalues", "mae") is not None
    old = evaluate_run(first, data)
    (first / "model.hesse").write_bytes((second / "model.hesse").read_bytes())
    assert cached_errors(first, data.content_hash(), hessian=True) is None
    new, expected = evaluate_run(first, data), evaluate_run(second, data)
    assert new.rows == expected.rows != old.rows
    (first / "evaluations" / f"{data.content_hash()}.json").write_text("[")
    assert evaluate_run(first, data).rows == new.rows, "a damaged file is replaced"


@pytest.mark.slow
@pytest.mark.parametrize("file", ["runs/seed0/cell.json", "runs/seed1/checkpoint.safetensors"])
def test_an_interrupted_study_continues(tmp_path: Path, file: str) -> None:
    """Interrupted between two cells and in the middle of one, with the same results as without."""
    options = {"axes": {"seed": [0, 1, 2]}, "base": {**study()["base"], "steps": 30, "checkpoint_every": 3}}
    path = write_study(tmp_path, **options)
    uninterrupted = tmp_path / "other"
    uninterrupted.mkdir()
    expected = run_study(write_study(uninterrupted, **options), workers=0, quiet=True)

    def interrupt() -> None:
        for _ in range(6000):
            if (tmp_path / "study" / file).exists():
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.005)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(InterruptedRunError, match=r"stopped after . of 3 cells; the same command continues"):
        run_study(path, workers=0, quiet=True)
    thread.join()
    plan = plan_study(path)
    assert plan.pending
    assert not plan.failed
    result = run_study(path, workers=0, quiet=True)
    assert result.finished == expected.finished
    data = read_dataset(tmp_path / "test.h5")
    for name in result.finished:
        assert evaluate_run(result.run_folder(name), data).rows == evaluate_run(expected.run_folder(name), data).rows
        log = [row for row in read_log(result.run_folder(name) / "metrics.jsonl") if row["kind"] == "train"]
        for times in ([row["seconds"] for row in log], [row["processor_seconds"] for row in log]):
            assert times == sorted(times), "the times of both sessions add up"


@pytest.mark.slow
def test_processes_train_the_same_models_and_survive_a_kill(tmp_path: Path) -> None:
    """The command is killed in the middle; its successor finishes with the models of this process."""
    path = write_study(tmp_path, base={**study()["base"], "steps": 40, "checkpoint_every": 5})
    command = [sys.executable, "-c", "from hesse.cli.app import main; main()", "study", str(path), "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "study").glob("runs/*/checkpoint.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    other = tmp_path / "other"
    other.mkdir()
    expected = run_study(write_study(other, base={**study()["base"], "steps": 40}), workers=0, quiet=True)
    data = read_dataset(tmp_path / "test.h5")
    for name in expected.finished:
        ours = evaluate_run(tmp_path / "study/runs" / name, data)
        assert ours.rows == evaluate_run(expected.run_folder(name), data).rows


@pytest.mark.slow
def test_a_cluster_trains_the_same_models(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    from loopback_cluster import cluster

    axes = {"optimizer.learning_rate": {"good": 1e-3, "bad": 1e250}, "seed": [0, 1]}
    base = {**study()["base"], "optimizer": {"max_grad_norm": None}}
    path = write_study(tmp_path, axes=axes, base=base)
    with cluster(tmp_path) as made:
        made.start_worker()
        result = run_study(path, scheduler=made.address, quiet=True)
    assert result.finished == ("learning-rate-good_seed0", "learning-rate-good_seed1")
    assert len(result.failed) == 2
    other = tmp_path / "other"
    other.mkdir()
    expected = run_study(write_study(other, axes=axes, base=base), workers=0, quiet=True)
    data = read_dataset(tmp_path / "test.h5")
    for name in result.finished:
        assert evaluate_run(result.run_folder(name), data).rows == evaluate_run(expected.run_folder(name), data).rows
