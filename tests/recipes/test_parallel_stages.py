"""Training runs of a recipe that do not need each other are trained at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_recipe import TRAINING, data

from hesse.datasets import write_dataset
from hesse.errors import ConfigError, ExecutionError, InterruptedRunError
from hesse.models import load_model
from hesse.recipes.protocols import run_recipe, training_runs
from hesse.recipes.protocols import stages as stage_module
from hesse.recipes.protocols.common_stages import MODEL, ensemble_stage, train_stage
from hesse.recipes.protocols.stages import Stage, run_stages, stage_states
from hesse.runtime.parallel import TaskResult


def runs(folder: Path, names: tuple[str, ...] = ("a", "b"), **changes: Any) -> list[Stage]:
    (folder / "out").mkdir(exist_ok=True)
    train = folder / "train.h5"
    if not train.exists():
        write_dataset(train, data())
    options = {
        **TRAINING,
        "weights": {"hvp": 0.0},
        "data": {"train": str(train), "validation_fraction": 0.2},
        **changes,
    }
    if "init_from" in options:
        del options["model"]
    out = folder / "out"
    return [train_stage(out, name, "a run", {**options, "seed": k}) for k, name in enumerate(names)]


def record_groups(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Train in this process, and record which runs are trained together."""
    groups = []

    def trained(configs: Mapping[str, Any], **_: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        groups.append(tuple(configs))
        for name in reversed(configs):  # they finish in any order
            yield name, training_runs.train_run(configs[name], quiet=True)

    monkeypatch.setattr("hesse.recipes.protocols.stages.train_runs", trained)
    return groups


def test_runs_wait_until_something_needs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = record_groups(monkeypatch)
    out = tmp_path / "out"
    first, second = runs(tmp_path)
    note = Stage("note", "needs nothing", lambda stage: {"trained": (out / "a" / MODEL).exists()})
    mean = ensemble_stage("mean", [out / "a" / MODEL, out / "b" / MODEL])
    last = runs(tmp_path, ("c", "d"), init_from=str(out / "a" / MODEL))
    stages = [first, note, second, mean, *last]
    records, _ = run_stages(stages, out, workers=2, quiet=True)
    assert groups == [("a", "b"), ("c", "d")]
    assert list(records) == ["a", "note", "b", "mean", "c", "d"]
    assert records["note"].results == {"trained": False}
    assert records["d"].inputs[-1][1] == records["a"].products[MODEL]
    assert set(stage_states(stages, out).values()) == {"done"}
    again, _ = run_stages(stages, out, workers=2, quiet=True)
    assert (groups, again["d"].results) == ([("a", "b"), ("c", "d")], records["d"].results)


@pytest.mark.parametrize(("steps", "devices", "workers"), [(200, "cpu", 4), (199, "cpu", 1), (200, "cuda", 1)])
def test_the_default_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, devices: str, workers: int
) -> None:
    monkeypatch.setattr(stage_module, "n_cores", lambda: 4)
    configs = [stage.run for stage in runs(tmp_path, steps=steps, device=devices)]
    assert stage_module._default_workers([config for config in configs if config is not None]) == workers


def test_one_run_alone_is_trained_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = record_groups(monkeypatch)
    first, second = runs(tmp_path)
    mean = ensemble_stage("mean", [tmp_path / "out/a" / MODEL])
    assert list(run_stages([first, mean, second], tmp_path / "out", workers=2, quiet=True)[0]) == ["a", "mean", "b"]
    assert groups == []


def test_a_run_that_fails_does_not_take_the_others_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mapped(_: Any, __: None, tasks: list[Any], **___: Any) -> Iterator[TaskResult[Any]]:
        yield TaskResult(0, None, "TrainingError: the loss is not a number", 0.0)
        yield TaskResult(1, training_runs.make_trainer(None)(tasks[1]), "", 0.0)

    monkeypatch.setattr(training_runs, "map_tasks", mapped)
    stages = runs(tmp_path)
    with pytest.raises(ExecutionError, match=r"1 of 2 training runs failed; a: TrainingError: the loss"):
        run_stages(stages, tmp_path / "out", workers=2, quiet=True)
    assert stage_states(stages, tmp_path / "out") == {"a": "to do", "b": "done"}


def test_an_interrupted_worker_stops_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mapped(*_: Any, **__: Any) -> Iterator[TaskResult[Any]]:
        yield TaskResult(0, None, "InterruptedRunError: stopped at step 3", 0.0)

    monkeypatch.setattr(training_runs, "map_tasks", mapped)
    with pytest.raises(InterruptedRunError, match="2 runs were trained; the same command continues"):
        run_stages(runs(tmp_path), tmp_path / "out", workers=2, quiet=True)


def test_processes_and_a_cluster_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="either workers"):
        run_recipe("hint", tmp_path / "hint.yaml", workers=2, scheduler="tcp://127.0.0.1:1")


@pytest.mark.slow
def test_processes_train_the_same_models(tmp_path: Path) -> None:
    run_stages(runs(tmp_path), tmp_path / "out", workers=1, quiet=True)
    (tmp_path / "out").rename(tmp_path / "one")
    run_stages(runs(tmp_path), tmp_path / "out", workers=2, quiet=True)
    for name in ("a", "b"):
        one, other = (load_model(tmp_path / folder / name / MODEL).state_dict() for folder in ("one", "out"))
        assert all((one[key] == other[key]).all() for key in one)
