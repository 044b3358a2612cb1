"""The runs of a comparison, read from their folders: what distinguishes them, their errors, and their cost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from hesse.datasets import Dataset, names_of_files, read_dataset
from hesse.errors import FileFormatError, RequestError, check_choice
from hesse.losses import LossWeights
from hesse.models import read_model_header
from hesse.recipes.judging import SUITES, Suite
from hesse.recipes.set_errors import SetErrors, cached_errors, evaluate_run, stored_evaluations
from hesse.studies.cells import cell_name
from hesse.studies.study import CELL_FILE, STUDY_FILE
from hesse.studies.study_config import Label
from hesse.training import TrainResult, read_log, run_data
from hesse.training.run_data import best_model, is_run_folder
from hesse.training.run_identity import WITHOUT_EFFECT, flat_settings

__all__ = ["ComparedRun", "RunSet", "RunSource", "read_runs"]

RunSource = str | Path | TrainResult

Judge = Callable[[Path, Dataset], SetErrors]
"""Errors of the model of a run on a data set."""

_NO_LABELS: Final = {*WITHOUT_EFFECT, "seed"}


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
    """

    title: str
    runs: tuple[ComparedRun, ...]
    failed: Mapping[str, str]
    missing: tuple[str, ...]
    baseline: Mapping[str, Label]


def read_runs(
    sources: RunSource | Sequence[RunSource],
    data: Sequence[str | Path] | Mapping[str, str | Path] = (),
    *,
    suite: Suite = "basic",
    hessian: bool = True,
    quiet: bool = True,
) -> RunSet:
    """Read runs, and evaluate them where their errors are not known yet.

    Args:
        sources: the folder of a study, or folders (or results) of runs.
        data: test sets, files or files by name. Without any, those of the study, or those of which all runs keep
            errors, or the validation data if all runs have the same.
        suite: what is judged on `data`, see `hesse.evaluate`.
        hessian: also errors of Hessians.
        quiet: no progress.

    Returns:
        The runs.

    Raises:
        FileFormatError: not the folder of a run or study, or a damaged record.
        RequestError: no finished run, the same run twice, or runs without a common test set.
    """
    items = [sources] if isinstance(sources, str | Path | TrainResult) else sources
    if not isinstance(items, list | tuple) or not items or not all(map(_is_source, items)):
        raise RequestError("expected the folder of a study, or folders of runs, one or more")
    folders = [item.model_file.parent if isinstance(item, TrainResult) else Path(item) for item in items]
    for folder in folders:
        if not folder.is_dir():
            raise FileFormatError(f"{folder}: there is no such folder; expected that of a study or of a run")
    tests = _open_tests(data)
    studies = [folder for folder in folders if (folder / STUDY_FILE).exists()]
    if studies and len(folders) > 1:
        raise RequestError(
            f"{studies[0]} is a whole study: compare it alone, or give the folders of its runs ({studies[0]}/runs/...)"
        )
    check_choice(suite, SUITES, "suite")

    def judge(folder: Path, dataset: Dataset) -> SetErrors:
        return evaluate_run(folder, dataset, suite=suite, hessian=hessian, quiet=quiet)

    read = _read_study if studies else _read_folders
    return read(folders, tests, judge, hessian)


def _is_source(item: object) -> bool:
    return isinstance(item, str | Path | TrainResult)


def _open_tests(data: Sequence[str | Path] | Mapping[str, str | Path]) -> dict[str, Dataset]:
    if isinstance(data, str | Path):
        data = [data]
    values = list(data.values()) if isinstance(data, Mapping) else data
    if not isinstance(values, list | tuple) or not all(isinstance(file, str | Path) for file in values):
        raise RequestError("data: expected a file, a list of files, or files by name")
    files = data if isinstance(data, Mapping) else dict(zip(names_of_files([Path(f) for f in data]), data, strict=True))
    return {name: read_dataset(file) for name, file in files.items()}


def _read_study(folders: Sequence[Path], tests: Mapping[str, Dataset], judge: Judge, hessian: bool) -> RunSet:
    folder = folders[0]
    path = folder / STUDY_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != "hesse-study" or content["version"] != 1:
            raise ValueError("another format or version")
        cells = [(str(cell["name"]), dict(cell["labels"])) for cell in content["cells"]]
        known = {
            str(name): (str(entry["data_hash"]), _suite(entry["suite"])) for name, entry in content["test"].items()
        }
        files = {str(name): Path(entry["file"]) for name, entry in content["test"].items()}
        config = content["config"]
        baseline, hessian = dict(config["baseline"]), hessian and bool(config["hessian"])
        axes = [str(name) for name in config["axes"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileFormatError(f"{path}: cannot be read as a study ({error})") from error
    runs, failed, missing = [], {}, []
    unread: dict[str, Dataset] = {}
    for name, labels in cells:
        run = folder / "runs" / name
        status, reason = _cell_status(run / CELL_FILE)
        if status == "failed":
            failed[name] = reason
        elif status != "done":
            missing.append(name)
        else:
            errors = {}
            for test, (data_hash, own) in known.items():
                stored = cached_errors(run, data_hash, suite=own, hessian=hessian)
                if stored is None:  # computed without Hessians, or the model has changed
                    if test not in unread:
                        unread[test] = read_dataset(files[test])
                    stored = evaluate_run(run, unread[test], suite=own, hessian=hessian)
                errors[test] = stored
            errors |= {test: judge(run, dataset) for test, dataset in tests.items()}
            ordered = {axis: labels[axis] for axis in axes if axis in labels and axis != "seed"}
            runs.append(_read_run(run, ordered, errors))
    if not runs:
        raise RequestError(f"{folder}: no cell of this study is done: run `hesse study` first")
    if not runs[0].errors:
        shared = _common_errors([run.folder for run in runs], judge, hessian)
        runs = [_read_run(run.folder, run.labels, errors) for run, errors in zip(runs, shared, strict=True)]
    return RunSet(f"study {folder.resolve().name}", tuple(runs), failed, tuple(missing), baseline)


def _suite(name: Any) -> Suite:
    match: Suite | None = next((suite for suite in SUITES if suite == name), None)
    if match is None:
        raise ValueError(f"no suite {name!r}")
    return match


def _cell_status(path: Path) -> tuple[str, str]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return str(record["status"]), str(record["reason"])
    except FileNotFoundError:
        return "", ""
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileFormatError(f"{path}: cannot be read as the record of a cell ({error})") from error


def _read_folders(folders: Sequence[Path], tests: Mapping[str, Dataset], judge: Judge, hessian: bool) -> RunSet:
    for folder in folders:
        if not is_run_folder(folder):
            raise FileFormatError(f"{folder}: expected the folder of a run (hesse train) or of a study (hesse study)")
    names = [folder.resolve() for folder in folders]
    if len(set(names)) < len(names):
        raise RequestError(f"{next(n for n in names if names.count(n) > 1)}: the same run was given twice")
    if tests:
        errors: Sequence[Mapping[str, SetErrors]] = [
            {name: judge(folder, dataset) for name, dataset in tests.items()} for folder in folders
        ]
    else:
        errors = _common_errors(folders, judge, hessian)
    labels = _differences([_provenance(folder) for folder in folders])
    runs = tuple(_read_run(f, label, e) for f, label, e in zip(folders, labels, errors, strict=True))
    seen: dict[tuple[str, int], Path] = {}
    for run in runs:
        other = seen.setdefault((run.variant, run.seed), run.folder)
        if other != run.folder:
            raise RequestError(
                f"{other} and {run.folder} have the same options and the same seed ({run.seed}), so that nothing tells "
                "them apart: give one of them"
            )
    return RunSet(f"{len(runs)} runs", runs, {}, (), {})


def _common_errors(folders: Sequence[Path], judge: Judge, hessian: bool) -> list[dict[str, SetErrors]]:
    """Errors on the sets that all runs know, or on their common validation data."""
    common = set.intersection(*(set(stored_evaluations(folder)) for folder in folders))
    result: list[dict[str, SetErrors]] = [{} for _ in folders]
    for data_hash, suite in sorted(common, key=lambda key: (SUITES.index(key[1]), key[0])):
        cached = [cached_errors(folder, data_hash, suite=suite, hessian=hessian) for folder in folders]
        for errors, each in zip(result, cached, strict=True):
            if each is not None and None not in cached and each.rows:
                errors[each.rows[0].dataset] = each
    if result[0]:
        return result
    parts = []
    for folder in folders:
        try:
            parts.append(run_data(folder, "validation"))
        except (RequestError, FileFormatError) as error:
            raise RequestError(f"{error} To compare runs on other data: `hesse compare RUN... --data FILE`.") from error
    if len({part.content_hash() for part in parts}) > 1:
        raise RequestError(
            "these runs held out different validation structures, on which they cannot be compared: give test data, "
            "`hesse compare RUN... --data FILE`"
        )
    return [{"validation": judge(folder, parts[0])} for folder in folders]


def _provenance(folder: Path) -> Mapping[str, Any]:
    model = best_model(folder)
    provenance = read_model_header(model)["provenance"]
    if not isinstance(provenance, Mapping) or not isinstance(provenance.get("config"), Mapping):
        raise FileFormatError(f"{model}: this model does not tell how it was trained")
    return provenance


def _differences(origins: Sequence[Mapping[str, Any]]) -> list[dict[str, Label]]:
    """Labels that distinguish runs: the scheme, other options, and the training data."""
    settings = [flat_settings(origin["config"]) for origin in origins]
    names = [name for name in dict.fromkeys(n for s in settings for n in s) if name.split(".")[0] not in _NO_LABELS]
    different = [name for name in names if len({json.dumps(s.get(name)) for s in settings}) > 1]
    result: list[dict[str, Label]] = [{} for _ in origins]
    weights = [name for name in different if name.startswith("weights.")]
    if weights:
        schemes = [_scheme(s) for s in settings]
        kinds = {json.dumps([s.get(name) for name in weights]) for s in settings}
        pairs = {(scheme, json.dumps([s.get(n) for n in weights])) for scheme, s in zip(schemes, settings, strict=True)}
        if len(set(schemes)) > 1:
            for labels, scheme in zip(result, schemes, strict=True):
                labels["scheme"] = scheme
        if len(set(schemes)) == len(kinds) == len(pairs):
            different = [name for name in different if name not in weights]
    for name in different:
        for labels, each in zip(result, settings, strict=True):
            value = each.get(name)
            labels[name] = (
                value if isinstance(value, str | int | float) else "none" if value is None else json.dumps(value)
            )
    if len({origin.get("data_hash") for origin in origins}) > 1:
        counts = [origin.get("structures") for origin in origins]
        hashes = [str(origin.get("data_hash"))[:6] for origin in origins]
        for labels, count, word in zip(result, counts, hashes, strict=True):
            same = {h for c, h in zip(counts, hashes, strict=True) if c == count} == {word}
            labels["structures"] = f"{count}-structures" if same else f"{count}-structures-{word}"
    return result


def _scheme(settings: Mapping[str, Any]) -> str:
    """Name of the scheme of a run by its weights."""
    weights = {
        name: float(settings.get(f"weights.{name}") or 0.0) for name in LossWeights.model_fields if name != "others"
    }
    if weights["hessian"] > 0:
        return "ef-h"
    return "ef-hvp" if weights["hvp"] > 0 else "ef" if weights["forces"] > 0 else "e"


def _read_run(folder: Path, labels: Mapping[str, Label], errors: Mapping[str, SetErrors]) -> ComparedRun:
    origin = _provenance(folder)
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
