"""Studies: a matrix of runs, in processes of this machine or on a cluster, that continues where it was interrupted.

The folder of a study holds `study.json` (its configuration and cells), `data/` (see `hesse.studies.data`) and
`runs/CELL/`, each of which is a folder of `hesse train` with the record `cell.json` of its result or failure.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from hesse.datasets import Dataset, read_dataset
from hesse.errors import ConfigError, FileFormatError, InterruptedRunError, MissingLabelError, RequestError, WriteError
from hesse.recipes.judging import Suite, check_suite
from hesse.recipes.set_errors import cached_errors, evaluate_run
from hesse.runtime.devices import n_cores
from hesse.runtime.filesystem import atomic_write_text, lock_file
from hesse.runtime.parallel import map_tasks
from hesse.runtime.progress import track
from hesse.runtime.settings import validate_config
from hesse.runtime.signals import StoppedError, stop_signals
from hesse.studies.cells import Cell, expand_cells
from hesse.studies.data import CellData, prepare_data
from hesse.studies.study_config import StudyConfig, load_study, study_from_mapping
from hesse.training import DataConfig, RunConfig
from hesse.training.config_file import run_from_config
from hesse.training.run_identity import find_setting_changes

__all__ = ["StudyResult", "plan_study", "run_study"]

CELL_FILE: Final = "cell.json"
STUDY_FILE: Final = "study.json"


@dataclass(frozen=True)
class CellTask:
    """The work of one cell, for a worker process.

    Attributes:
        folder: folder of its run.
        config: configuration of the run as plain values.
        tests: file and suite of each test set, by name.
        hessian: whether errors of Hessians are computed.
    """

    folder: str
    config: Mapping[str, Any]
    tests: Mapping[str, tuple[str, Suite]]
    hessian: bool


@dataclass(frozen=True)
class StudyResult:
    """Result of a study.

    Attributes:
        output: its folder.
        cells: all cells.
        finished: names of the cells that are done.
        failed: reasons of failures by name of the cell.
        pending: names of the cells that are not done yet (of a plan).
        seconds: wall time of this call.
    """

    output: Path
    cells: tuple[Cell, ...]
    finished: tuple[str, ...]
    failed: Mapping[str, str] = field(default_factory=dict)
    pending: tuple[str, ...] = ()
    seconds: float = 0.0

    def run_folder(self, name: str) -> Path:
        """Folder of a cell.

        Args:
            name: name of the cell.

        Returns:
            The folder of its run.
        """
        return self.output / "runs" / name


StudySource = str | Path | StudyConfig | Mapping[str, Any]


def plan_study(study: StudySource, *, retry_failed: bool = False) -> StudyResult:
    """List the cells of a study, and which of them are done; nothing is written.

    Args:
        study: the path of its YAML file, a `StudyConfig`, or a mapping as in the file.
        retry_failed: count cells that failed before among those to do.

    Returns:
        The cells, and the names of those that are done, failed or pending.

    Raises:
        ConfigError: see `run_study`.
    """
    config, source = _as_study(study)
    cells = expand_cells(config, source)
    records = {cell.name: _read_cell(config.output / "runs" / cell.name / CELL_FILE) for cell in cells}
    failed = {
        name: str(record["reason"])
        for name, record in records.items()
        if record is not None and record["status"] == "failed" and not retry_failed
    }
    finished = tuple(n for n, record in records.items() if record is not None and record["status"] == "done")
    pending = tuple(name for name in records if name not in failed and name not in finished)
    return StudyResult(config.output, cells, finished, failed, pending)


def run_study(
    study: StudySource,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    quiet: bool = False,
) -> StudyResult:
    """Train and evaluate all cells of a study. The same call continues one that was interrupted.

    Finished cells are kept; runs in the middle continue from their last checkpoint. The failure of a cell is a record,
    and the others go on.

    Args:
        study: the path of its YAML file, a `StudyConfig`, or a mapping as in the file (relative paths count from the
            working folder).
        workers: processes of one thread each on this machine, by default one for each core (one alone
            if a cell uses a GPU); 0 works in this process.
        scheduler: a dask cluster instead (address or scheduler file), whose workers share the folder of the study.
        retry_failed: try cells again that failed before.
        quiet: no progress.

    Returns:
        The cells, and the names of those that are done or failed.

    Raises:
        ConfigError: an axis, value or option that does not exist or does not fit, with its name; a folder with another
            study.
        FileFormatError: a file that cannot be read.
        InterruptedRunError: SIGINT or SIGTERM; the same call continues.
        MissingLabelError: a test set without what its suite compares.
        RequestError: another process works on this study.
        WriteError: the folder cannot be created or written.
    """
    config, source = _as_study(study)
    started = time.monotonic()
    cells = expand_cells(config, source)
    if workers is None and scheduler is None:
        # Processes would share a GPU and be slower than one after the other.
        workers = n_cores() if all(cell.options["device"] == "cpu" for cell in cells) else 1
    _check_data_files(cells, source)
    tests = _read_tests(config, source)
    try:
        (config.output / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the folder {config.output}: {error.strerror}") from error
    busy = f"another process works on the study in {config.output}: wait for it, stop it, or use another output"
    with lock_file(config.output / ".lock", busy):
        data = prepare_data(config, cells, source=source)
        tasks = {cell.name: _task(config, cell, data[cell.name], source) for cell in cells}
        _check_records(config, tasks)
        _write_study(config, cells, data, tests)
        finished = [name for name, task in tasks.items() if _is_done(task, tests)]
        failed = _known_failures(tasks, finished) if not retry_failed else {}
        pending = [name for name in tasks if name not in finished and name not in failed]
        results = map_tasks(
            make_cell_worker, None, [tasks[name] for name in pending], workers=workers, scheduler=scheduler
        )
        with track("study", len(cells), quiet=quiet, done=len(finished) + len(failed)) as advance:
            try:
                with stop_signals():
                    for result in results if pending else ():
                        name = pending[result.index]
                        result.raise_if_interrupted()
                        if result.value is None:
                            failed[name] = result.error
                        else:
                            finished.append(name)
                        _write_record(tasks[name], result.value, result.error, cells, data[name])
                        advance(1, f"{name}: {'failed' if result.value is None else 'done'}")
            except StoppedError:
                results.close()
                raise InterruptedRunError(
                    f"stopped after {len(finished) + len(failed)} of {len(cells)} cells; the same command continues, "
                    "and runs in the middle go on from their last checkpoints"
                ) from None
    done = tuple(name for name in tasks if name in finished)
    return StudyResult(config.output, cells, done, failed, (), time.monotonic() - started)


def make_cell_worker(_: None) -> Callable[[CellTask], dict[str, Any]]:
    """Function of a worker process, which trains and evaluates one cell after the other.

    Args:
        _: nothing.

    Returns:
        A function of the task; it returns the record of the cell.
    """
    read = cache(read_dataset)

    def run(task: CellTask) -> dict[str, Any]:
        folder = Path(task.folder)
        config = validate_config(RunConfig, task.config, source=f"cell {folder.name}")
        result = run_from_config(config, quiet=True)
        for path, suite in task.tests.values():
            evaluate_run(folder, read(path), suite=suite, hessian=task.hessian, device=config.device)
        return {"steps": result.steps, "best_step": result.best_step}

    return run


def _as_study(study: StudySource) -> tuple[StudyConfig, str]:
    """The configuration, and what to call it in messages."""
    if isinstance(study, StudyConfig):
        return study, "study"
    if isinstance(study, Mapping):
        return study_from_mapping(study, Path.cwd(), source="study"), "study"
    if isinstance(study, str | Path):
        return load_study(study), str(study)
    raise RequestError(f"expected the path of a YAML file, a StudyConfig or a mapping, got {type(study).__name__}")


def _check_data_files(cells: Sequence[Cell], source: str) -> None:
    """Raise FileFormatError for data that do not exist, before anything is written."""
    for cell in cells:
        data = validate_config(DataConfig, cell.options["data"], source=source)
        for option, files in (("train", data.train_files), ("validation", data.validation_files)):
            for file in files:
                if not file.exists():
                    raise FileFormatError(f"{source}, cell {cell.name}, data.{option}: {file}: there is no such file")


def _read_tests(config: StudyConfig, source: str) -> dict[str, Dataset]:
    """The test sets, read before any work so that a wrong one is told at once."""
    datasets = {}
    for name, path in config.test.items():
        if not path.exists():
            raise FileFormatError(f"{source}, [test], {name}: {path}: there is no such file")
        datasets[name] = read_dataset(path)
        try:
            check_suite(datasets[name], config.suite_of(name), hessian=config.hessian)
        except MissingLabelError as error:
            raise MissingLabelError(f"{source}, [test], {name}, suite {config.suite_of(name)}: {error}") from error
    return datasets


def _task(config: StudyConfig, cell: Cell, data: CellData, source: str) -> CellTask:
    folder = (config.output / "runs" / cell.name).resolve()
    options = {**cell.options, "data": dict(data.options)}
    run = Cell(cell.name, cell.labels, options).run_config(folder, source)
    tests = {name: (str(path.resolve()), config.suite_of(name)) for name, path in config.test.items()}
    return CellTask(str(folder), run.model_dump(mode="json"), tests, config.hessian)


def _check_records(config: StudyConfig, tasks: Mapping[str, CellTask]) -> None:
    """Raise ConfigError if a cell was finished with other options. A cell that failed may have other ones now."""
    for name, task in tasks.items():
        record = _read_cell(Path(task.folder) / CELL_FILE)
        changes = (
            []
            if record is None or record["status"] == "failed"
            else find_setting_changes(record["config"], task.config)
        )
        if changes:
            raise ConfigError(
                f"{config.output}: the cell {name} of this study was run with other options: {'; '.join(changes)}. "
                f"Give the study another output, or remove {task.folder} to run the cell again."
            )


def _is_done(task: CellTask, tests: Mapping[str, Dataset]) -> bool:
    folder = Path(task.folder)
    record = _read_cell(folder / CELL_FILE)
    if record is None or record["status"] != "done" or not (folder / "model.hesse").exists():
        return False
    return all(
        cached_errors(folder, dataset.content_hash(), suite=task.tests[name][1], hessian=task.hessian) is not None
        for name, dataset in tests.items()
    )


def _known_failures(tasks: Mapping[str, CellTask], finished: Sequence[str]) -> dict[str, str]:
    records = {name: _read_cell(Path(t.folder) / CELL_FILE) for name, t in tasks.items() if name not in finished}
    return {
        name: str(record["reason"])
        for name, record in records.items()
        if record is not None and record["status"] == "failed" and record["config"] == tasks[name].config
    }


def _write_record(
    task: CellTask, value: Mapping[str, Any] | None, reason: str, cells: Sequence[Cell], data: CellData
) -> None:
    folder = Path(task.folder)
    labels = next(cell.labels for cell in cells if cell.name == folder.name)
    record = {
        "status": "failed" if value is None else "done",
        "reason": reason,
        "labels": dict(labels),
        "structures": data.structures,
        "groups": data.groups,
        **(value or {}),
        "config": task.config,
    }
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_text(folder / CELL_FILE, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _write_study(
    config: StudyConfig, cells: Sequence[Cell], data: Mapping[str, CellData], tests: Mapping[str, Dataset]
) -> None:
    content = {
        "format": "hesse-study",
        "version": 1,
        "config": config.model_dump(mode="json"),
        "test": {
            name: {
                "file": str(config.test[name].resolve()),
                "data_hash": dataset.content_hash(),
                "suite": config.suite_of(name),
            }
            for name, dataset in tests.items()
        },
        "cells": [
            {
                "name": cell.name,
                "labels": dict(cell.labels),
                "structures": data[cell.name].structures,
                "groups": data[cell.name].groups,
            }
            for cell in cells
        ],
    }
    atomic_write_text(config.output / STUDY_FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _read_cell(path: Path) -> dict[str, Any] | None:
    """The record of a cell; None if there is none."""
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["status"] not in ("done", "failed") or not isinstance(record["config"], dict):
            raise ValueError("expected status and config")
        str(record["reason"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileFormatError(
            f"{path}: cannot be read as the record of a cell ({error}). Remove this file: the run goes on from its "
            "last checkpoint."
        ) from error
    return dict(record)
