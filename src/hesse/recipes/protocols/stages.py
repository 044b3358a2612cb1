"""Stages of a recipe: pieces of work with a record each, so that a recipe goes on where it was interrupted.

Every stage has a folder. The record of a finished stage, `stage.json`, holds its options, its results, and hashes of
all files it has read and of the files that later stages read.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from hesse._version import __version__
from hesse.engines.levels import file_digest
from hesse.errors import ConfigError, FileFormatError, InterruptedRunError, WriteError
from hesse.recipes.protocols.training_runs import train_runs
from hesse.runtime.devices import n_cores
from hesse.runtime.filesystem import atomic_write_text, lock_file
from hesse.runtime.signals import StoppedError, stop_signals
from hesse.training import RunConfig
from hesse.training.run_identity import find_setting_changes

__all__ = ["Paused", "Stage", "StageRecord", "StageWork", "run_stages", "stage_states"]

STAGE_FILE: Final = "stage.json"
STOP: Final = "stop"
"""A stage with this result ends the recipe or its branch; its value is the reason."""
_FEW_STEPS: Final = 200
"""Runs of fewer steps take less time than processes take to start."""
_FORMAT: Final = "hesse-recipe-stage"
_VERSION: Final = 1


class Paused(Exception):
    """Raised by the work of a stage that waits for something that the user has to do; the message says what. The same
    call then does this stage again."""


@dataclass(frozen=True)
class StageWork:
    """Arguments of the work of a stage.

    Attributes:
        folder: folder of the stage; its products go there.
        results: results of all earlier stages, by name.
        quiet: no progress.
    """

    folder: Path
    results: Mapping[str, Mapping[str, Any]]
    quiet: bool


@dataclass(frozen=True)
class Stage:
    """A piece of work of a recipe.

    Attributes:
        name: its name, which is also its folder inside the output of the recipe ("tune/seed-0").
        description: what it does, in a few words.
        work: does it; returns its results as JSON values. If it is interrupted, it is called again, and continues with
            what it finds in its folder. A result "stop" ends the recipe or its branch, with this reason.
        options: everything that decides the results, as JSON values.
        inputs: files that it reads; those of earlier stages need not exist before.
        products: names of the files in its folder that later stages or users read.
        always: done again in every call, for work that keeps its results itself.
        branch: name of the branch of the recipe that a result "stop" of this stage ends; empty: the whole recipe.
        run: of a training run, its configuration. Runs that do not need each other are trained at the same time.
    """

    name: str
    description: str
    work: Callable[[StageWork], Mapping[str, Any]]
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: Sequence[Path] = ()
    products: Sequence[str] = ()
    always: bool = False
    branch: str = ""
    run: RunConfig | None = None


@dataclass(frozen=True)
class StageRecord:
    """The record of a finished stage.

    Attributes:
        name: its name.
        options: its options.
        inputs: the files that it has read, each with its hash.
        products: hashes of the files that it has made, by name.
        results: its results.
        seconds: wall time of the last session.
    """

    name: str
    options: Mapping[str, Any]
    inputs: Sequence[Sequence[str]]
    products: Mapping[str, str]
    results: Mapping[str, Any]
    seconds: float


def run_stages(
    stages: Sequence[Stage],
    output: Path,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    quiet: bool = False,
) -> tuple[dict[str, StageRecord], str]:
    """Do the stages that are not done, in their order; training runs wait until something needs them, and are then
    trained together.

    Args:
        stages: all stages of the recipe, in their order.
        output: folder of the recipe.
        workers: processes for training, one thread each; by default one for each core, or 1 if a run uses a GPU or all
            runs are short (fewer than 200 steps). 1 trains in this process.
        scheduler: a dask cluster for training instead (address or scheduler file), which shares the folder.
        quiet: no progress on standard error.

    Returns:
        The records of all stages that are done, by name; and why the recipe or branches of it ended early, if so.

    Raises:
        ConfigError: a stage was finished with other options or other files; or both workers and a scheduler.
        FileFormatError: a damaged record.
        RequestError: another process works in this folder.
        InterruptedRunError: SIGINT or SIGTERM; the same call continues.
        ExecutionError: a training run in another process failed.
        HesseError: all errors of the work of a stage.
    """
    if workers is None and scheduler is None:
        workers = _default_workers([stage.run for stage in stages if stage.run is not None])
    parallel = scheduler is not None or (workers or 0) > 1
    records: dict[str, StageRecord] = {}
    waiting: dict[str, Stage] = {}
    ended: dict[str, str] = {}
    digest = cache(file_digest)

    def train_waiting() -> None:
        records.update(_train_together(waiting, output, records, workers, scheduler, quiet=quiet))
        waiting.clear()

    busy = f"another process works on the recipe in {output}: wait for it, stop it, or use another output"
    with lock_file(output / ".lock", busy):
        for number, stage in enumerate(stages, start=1):
            if stage.branch in ended:
                continue
            folder = output / stage.name
            record = _read_record(folder / STAGE_FILE)
            if record is not None and not stage.always:
                _check_same(stage, record, folder, digest)
            else:
                if _needs(stage, [output / name for name in waiting]):
                    train_waiting()
                if stage.run is not None and parallel:
                    waiting[stage.name] = stage
                    continue
                if not quiet:
                    print(f"stage {number} of {len(stages)}: {stage.name}: {stage.description}", file=sys.stderr)
                try:
                    record = _do(stage, folder, records, quiet=quiet)
                except Paused as reason:
                    train_waiting()
                    return _in_order(records, stages), str(reason)
            records[stage.name] = record
            if record.results.get(STOP):
                ended[stage.branch] = str(record.results[STOP])
            if "" in ended:
                break
        train_waiting()
    reasons = ended[""] if "" in ended else "; ".join(f"{branch}: {reason}" for branch, reason in ended.items())
    return _in_order(records, stages), reasons


def _default_workers(runs: Sequence[RunConfig]) -> int:
    long = any(run.steps >= _FEW_STEPS for run in runs)
    return n_cores() if long and all(run.device == "cpu" for run in runs) else 1


def _in_order(records: Mapping[str, StageRecord], stages: Sequence[Stage]) -> dict[str, StageRecord]:
    return {stage.name: records[stage.name] for stage in stages if stage.name in records}


def _needs(stage: Stage, folders: Sequence[Path]) -> bool:
    """Whether a stage reads files in one of the folders. One that is done in every call may read anything."""
    return bool(folders) and (stage.always or any(p.is_relative_to(f) for p in stage.inputs for f in folders))


def _train_together(
    stages: Mapping[str, Stage],
    output: Path,
    records: Mapping[str, StageRecord],
    workers: int | None,
    scheduler: str | None,
    *,
    quiet: bool,
) -> dict[str, StageRecord]:
    """Records of training runs that do not need each other."""
    if not stages:
        return {}
    if len(stages) == 1 and scheduler is None:
        return {name: _do(stage, output / name, records, quiet=quiet) for name, stage in stages.items()}
    for name in stages:
        _make_folder(output / name)
    inputs = {name: _hashed(stage.inputs) for name, stage in stages.items()}
    configs = {name: stage.run for name, stage in stages.items() if stage.run is not None}
    done = {}
    for name, results in train_runs(configs, workers=workers, scheduler=scheduler, quiet=quiet):
        done[name] = _finished(stages[name], output / name, inputs[name], results, float(results["seconds"]))
    return done


def stage_states(stages: Sequence[Stage], output: Path) -> dict[str, str]:
    """Which stages are done; nothing is written.

    Args:
        stages: all stages of the recipe.
        output: its folder.

    Returns:
        "done", "to do" or "not needed" (after one that ended the recipe) by name of the stage.

    Raises:
        ConfigError: a stage was finished with other options or other files.
        FileFormatError: a damaged record.
    """
    states: dict[str, str] = {}
    ended: set[str] = set()
    digest = cache(file_digest)
    for stage in stages:
        record = _read_record(output / stage.name / STAGE_FILE)
        if record is not None and not stage.always:
            _check_same(stage, record, output / stage.name, digest)
        needed = ended.isdisjoint({"", stage.branch})
        states[stage.name] = "not needed" if not needed else "to do" if record is None else "done"
        if record is not None and record.results.get(STOP):
            ended.add(stage.branch)
    return states


def _do(stage: Stage, folder: Path, records: Mapping[str, StageRecord], *, quiet: bool) -> StageRecord:
    started = time.monotonic()
    _make_folder(folder)
    earlier = MappingProxyType({name: record.results for name, record in records.items()})
    inputs = _hashed(stage.inputs)
    try:
        with stop_signals():
            results = stage.work(StageWork(folder, earlier, quiet))
    except StoppedError:
        raise InterruptedRunError(f"stopped in the stage {stage.name}; the same command continues") from None
    return _finished(stage, folder, inputs, results, time.monotonic() - started)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the folder {folder}: {error.strerror}") from error


def _hashed(files: Sequence[Path]) -> list[tuple[str, str]]:
    return [(str(path.resolve()), file_digest(path)) for path in files]


def _finished(
    stage: Stage, folder: Path, inputs: Sequence[tuple[str, str]], results: Mapping[str, Any], seconds: float
) -> StageRecord:
    """Write the record of a stage whose work is done."""
    plain = json.loads(json.dumps(dict(results), allow_nan=False))
    missing = [name for name in stage.products if not (folder / name).is_file()]
    if missing and not plain.get(STOP):
        raise FileFormatError(f"the stage {stage.name} has not made {folder / missing[0]}")
    products = {name: file_digest(folder / name) for name in stage.products if name not in missing}
    record = StageRecord(stage.name, dict(stage.options), inputs, products, plain, seconds)
    content = {"format": _FORMAT, "version": _VERSION, "code_version": __version__, **vars(record)}
    atomic_write_text(folder / STAGE_FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return record


def _check_same(stage: Stage, record: StageRecord, folder: Path, digest: Callable[[Path], str]) -> None:
    """Raise ConfigError if a finished stage is not the one that is asked for."""
    again = f"Give the recipe another output, or remove {folder} (and the stages that follow from it) to do it again."
    changes = find_setting_changes(record.options, json.loads(json.dumps(dict(stage.options))))
    if changes:
        raise ConfigError(f"{folder}: this stage was finished with other options: {'; '.join(changes)}. {again}")
    for path in stage.inputs:
        if not path.is_file():
            raise ConfigError(f"{path}: there is no such file; the stage in {folder} was finished with it. {again}")
    if [digest(path) for path in stage.inputs] != [known for _, known in record.inputs]:
        before, now = ", ".join(name for name, _ in record.inputs), ", ".join(map(str, stage.inputs))
        raise ConfigError(
            f"{folder}: this stage was finished with other files, or their content has changed since: "
            f"{before or 'none'} before, {now or 'none'} now. {again}"
        )
    for name, known in record.products.items():
        path = folder / name
        if not path.is_file() or digest(path) != known:
            state = "is missing" if not path.is_file() else "was changed after this stage was finished"
            raise ConfigError(f"{path} {state}. {again}")


def _read_record(path: Path) -> StageRecord | None:
    """The record of a finished stage; None if there is none."""
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT or content["version"] > _VERSION:
            raise ValueError(f"format {content['format']!r}, version {content['version']!r}")
        options, products, results = (dict(content[name]) for name in ("options", "products", "results"))
        inputs = [(str(name), str(known)) for name, known in content["inputs"]]
        return StageRecord(str(content["name"]), options, inputs, products, results, float(content["seconds"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileFormatError(
            f"{path}: cannot be read as the record of a stage ({error}). Remove it to do this stage again."
        ) from error
