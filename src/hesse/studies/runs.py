"""The runs of a comparison, read from their folders: what distinguishes them, their errors, and their cost."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hesse.datasets import Dataset
from hesse.errors import FileFormatError, RequestError, check_choice
from hesse.models import is_run_folder
from hesse.recipes.judging import SUITES, Suite
from hesse.recipes.set_errors import SetErrors, evaluate_run
from hesse.studies.cells import cell_name
from hesse.studies.comparison_data import (
    Judge,
    StudyTests,
    errors_with_given,
    open_tests,
    overlap_notes,
    study_of,
    validation_errors,
)
from hesse.studies.run_labels import differences, provenance_of
from hesse.studies.study import CELL_FILE, STUDY_FILE
from hesse.studies.study_config import Label
from hesse.training import TrainResult, read_log

__all__ = ["ComparedRun", "RunSet", "RunSource", "read_runs"]

RunSource = str | Path | TrainResult


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """One run.

    Attributes:
        folder: its folder.
        labels: what distinguishes it from the others, without the seed.
        seed: its seed.
        structures: number of its training structures.
        steps: steps done.
        seconds: wall time of training, s; NaN if unknown.
        processor_seconds: processor time of training, s; NaN if unknown.
        step_seconds: median wall time of a step, without validation, s; NaN if unknown.
        epoch_seconds: `step_seconds` times the number of batches of `batch.structures` in the training data, s.
        errors: errors by name of the test set.
    """

    folder: Path
    labels: Mapping[str, Label]
    seed: int
    structures: int
    steps: int
    seconds: float
    processor_seconds: float
    step_seconds: float
    epoch_seconds: float
    errors: Mapping[str, SetErrors]

    @property
    def variant(self) -> str:
        """Name of what it has in common with the runs of other seeds."""
        return cell_name(self.labels)


@dataclass(frozen=True, eq=False)
class RunSet:
    """Runs to compare.

    Attributes:
        title: what they are.
        runs: the runs.
        failed: reasons by name of cells of a study that failed.
        missing: names of cells of a study that are not done yet.
        baseline: the values of axes that make a run a baseline; empty if nothing was chosen.
        notes: on which data they are compared, if that was not chosen; structures of test sets that runs were trained
            on.
        is_study: whether they are all runs of a study, whose names are those of their folders.
    """

    title: str
    runs: tuple[ComparedRun, ...]
    failed: Mapping[str, str]
    missing: tuple[str, ...]
    baseline: Mapping[str, Label]
    notes: tuple[str, ...] = ()
    is_study: bool = False


def read_runs(
    sources: RunSource | Sequence[RunSource],
    data: str | Path | Sequence[str | Path] | Mapping[str, str | Path] = (),
    *,
    suite: Suite = "basic",
    hessian: bool = True,
    quiet: bool = True,
) -> RunSet:
    """Read runs, and evaluate them where their errors are not known yet.

    Args:
        sources: the folder of a study, or folders (or results) of runs.
        data: test sets, files or files by name. Without any, those of the study of which all runs are cells, or else
            the validation data that all runs have in common.
        suite: what is judged on `data`, see `hesse.evaluate`.
        hessian: also errors of Hessians.
        quiet: no progress.

    Returns:
        The runs.

    Raises:
        FileFormatError: not the folder of a run or study, or a damaged record.
        RequestError: no finished run, the same run twice, or runs without a common test set.
        MissingLabelError: test data without what the suite compares.
    """
    items = [sources] if isinstance(sources, str | Path | TrainResult) else sources
    if not isinstance(items, list | tuple) or not items or not all(map(_is_source, items)):
        raise RequestError("expected the folder of a study, or folders of runs, one or more")
    folders = [item.model_file.parent if isinstance(item, TrainResult) else Path(item) for item in items]
    for folder in folders:
        if folder.is_file():
            raise FileFormatError(
                f"{folder}: this is a file; expected the folder of a study or of a run. Test sets are given by name: "
                f'hesse.compare(..., data="{folder}"), or --data {folder}'
            )
        if not folder.is_dir():
            raise FileFormatError(f"{folder}: there is no such folder; expected that of a study or of a run")
    check_choice(suite, SUITES, "suite")
    tests = open_tests(data, suite=suite, hessian=hessian)
    studies = [folder for folder in folders if (folder / STUDY_FILE).exists()]
    if studies and len(folders) > 1:
        raise RequestError(
            f"{studies[0]} is a whole study: compare it alone, or give the folders of its runs ({studies[0]}/runs/...)"
        )

    def judge(folder: Path, dataset: Dataset) -> SetErrors:
        return evaluate_run(folder, dataset, suite=suite, hessian=hessian, quiet=quiet)

    if studies:
        return _read_study(folders[0], tests, judge, suite, hessian=hessian)
    return _read_folders(folders, tests, judge, hessian=hessian)


def _is_source(item: object) -> bool:
    return isinstance(item, str | Path | TrainResult)


def _study_record(folder: Path) -> Mapping[str, Any]:
    """The record of a study, of which the parts that a comparison needs are there."""
    path = folder / STUDY_FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != "hesse-study" or content["version"] != 1:
            raise ValueError("another format or version")
        content["cells"] = [(str(cell["name"]), dict(cell["labels"])) for cell in content["cells"]]
        config = content["config"]
        content["baseline"], content["axes"] = dict(config["baseline"]), [str(name) for name in config["axes"]]
        StudyTests(content, hessian=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileFormatError(f"{path}: cannot be read as a study ({error})") from error
    return content


def _read_study(folder: Path, tests: Mapping[str, Dataset], judge: Judge, suite: Suite, *, hessian: bool) -> RunSet:
    record = _study_record(folder)
    own = StudyTests(record, hessian=hessian)
    runs, failed, missing = [], {}, []
    for name, labels in record["cells"]:
        run = folder / "runs" / name
        status, reason = _cell_status(run / CELL_FILE)
        if status == "failed":
            failed[name] = reason
        elif status != "done":
            missing.append(name)
        else:
            errors = errors_with_given(run, own, tests, judge, suite)
            ordered = {axis: labels[axis] for axis in record["axes"] if axis in labels and axis != "seed"}
            runs.append(_read_run(run, ordered, errors))
    if not runs:
        raise RequestError(f"{folder}: no cell of this study is done: run `hesse study` first")
    notes = overlap_notes([run.folder for run in runs], tests)
    if not runs[0].errors:
        shared, note = validation_errors([run.folder for run in runs], judge)
        runs = [_read_run(run.folder, run.labels, errors) for run, errors in zip(runs, shared, strict=True)]
        notes = (note,)
    title = f"study {folder.resolve().name}"
    return RunSet(title, tuple(runs), failed, tuple(missing), record["baseline"], notes, is_study=True)


def _cell_status(path: Path) -> tuple[str, str]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return str(record["status"]), str(record["reason"])
    except FileNotFoundError:
        return "", ""
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileFormatError(f"{path}: cannot be read as the record of a cell ({error})") from error


def _read_folders(folders: Sequence[Path], tests: Mapping[str, Dataset], judge: Judge, *, hessian: bool) -> RunSet:
    for folder in folders:
        if not is_run_folder(folder):
            raise FileFormatError(f"{folder}: expected the folder of a run (hesse train) or of a study (hesse study)")
    names = [folder.resolve() for folder in folders]
    if len(set(names)) < len(names):
        raise RequestError(f"{next(n for n in names if names.count(n) > 1)}: the same run was given twice")
    notes = overlap_notes(folders, tests)
    if tests:
        errors: Sequence[Mapping[str, SetErrors]] = [
            {name: judge(folder, dataset) for name, dataset in tests.items()} for folder in folders
        ]
    elif (study := study_of(folders)) and (own := StudyTests(_study_record(study), hessian=hessian)).names:
        errors = [own.errors(folder) for folder in folders]
        notes = (
            f"without --data, runs of the study {study.name} are compared on its test sets ({', '.join(own.names)})",
        )
    else:
        errors, note = validation_errors(folders, judge)
        notes = (note,)
    labels = differences([provenance_of(folder) for folder in folders])
    runs = tuple(_read_run(f, label, e) for f, label, e in zip(folders, labels, errors, strict=True))
    seen: dict[tuple[str, int], Path] = {}
    for run in runs:
        other = seen.setdefault((run.variant, run.seed), run.folder)
        if other != run.folder:
            raise RequestError(
                f"{other} and {run.folder} have the same options and the same seed ({run.seed}), so that nothing tells "
                "them apart: give one of them"
            )
    return RunSet(f"{len(runs)} runs", runs, {}, (), {}, notes)


def _read_run(folder: Path, labels: Mapping[str, Label], errors: Mapping[str, SetErrors]) -> ComparedRun:
    origin = provenance_of(folder)
    config = origin["config"]
    log = folder / "metrics.jsonl"
    rows = [row for row in read_log(log) if row["kind"] == "train"] if log.exists() else []
    seconds = [float(row["seconds"]) for row in rows if isinstance(row.get("seconds"), int | float)]
    processor = rows[-1].get("processor_seconds") if rows else None
    step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else math.nan
    structures = int(origin.get("structures") or 0)
    return ComparedRun(
        folder=folder,
        labels=dict(labels),
        seed=int(config.get("seed", 0)),
        structures=structures,
        steps=int(rows[-1]["step"]) if rows else int(config.get("steps", 0)),
        seconds=seconds[-1] if seconds else math.nan,
        processor_seconds=float(processor) if isinstance(processor, int | float) else math.nan,
        step_seconds=step,
        epoch_seconds=step * math.ceil(structures / int(config["batch"]["structures"])),
        errors=errors,
    )
