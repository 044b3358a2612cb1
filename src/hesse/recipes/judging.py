"""Suites of an evaluation: from errors of labels to what a potential is needed for.

- basic: errors of energies, forces, H v and Hessians;
- curvature: also eigenvalues, modes, frequencies, thermochemistry (`hesse.evaluation.curvature_errors`);
- reactions: also barriers, transition states and their reaction paths (`hesse.evaluation.reaction_errors`);
- dynamics: also the survival of molecules in a ramp of temperatures (`hesse.evaluation.survival`);
- full: all of these, as far as the data allow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

import torch

from hesse.datasets import Dataset, DatasetSource, as_dataset
from hesse.engines import Engine, PotentialEngine, PotentialLike, as_engine, as_potential
from hesse.errors import ConfigError, MissingLabelError, RequestError, check_choice, check_whole_numbers
from hesse.evaluation import Evaluation, MetricRow, evaluate_model
from hesse.evaluation.curvature_errors import curvature_metrics
from hesse.evaluation.independence import groups_are_known, independence_note
from hesse.evaluation.level_spread import level_spread_row
from hesse.evaluation.model_errors import missing_labels
from hesse.evaluation.reaction_errors import find_reactions, reaction_metrics, saddle_metrics
from hesse.evaluation.saddle_judgment import JudgmentSettings, SaddleTask, empty_record, judge_saddle, saddle_tasks
from hesse.evaluation.survival import starting_molecules, survival_metrics
from hesse.pes.md_settings import ReplicaSettings
from hesse.potential import Potential
from hesse.recipes.training_overlap import training_overlap_note
from hesse.runtime.tensor_files import tensor_digest
from hesse.sampling import run_replicas
from hesse.sampling.journaled_runs import in_workers, run_journaled
from hesse.sampling.search_journal import FinishedSearch, search_key
from hesse.structures import label_names
from hesse.training import TrainResult

__all__ = ["SUITES", "Suite", "check_suite", "evaluate"]

Suite = Literal["basic", "curvature", "reactions", "dynamics", "full"]
SUITES: Final[tuple[Suite, ...]] = get_args(Suite)
"""Names of the suites."""

SADDLE_LIMIT: Final = 20
"""Transition states that are searched if no limit is given."""
MOLECULE_LIMIT: Final = 5
"""Molecules of dynamics if no limit is given."""
DYNAMICS: Final = ReplicaSettings(ramp="fast", interval=0.02, stride=0)
"""The ramp of 300 to 3000 K in 1.8 ps: five times as fast as `hesse md --ramp fast`."""

Item = TypeVar("Item")


def evaluate(
    model: PotentialLike,
    data: DatasetSource,
    *,
    suite: Suite = "basic",
    limit: int | None = None,
    replicas: int = 2,
    output: str | Path | None = None,
    name: str | None = None,
    hessian: bool = True,
    by_tag: bool = True,
    memory_mib: float | None = None,
    dtype: torch.dtype | None = None,
    include_suspect: bool = False,
    quiet: bool = True,
) -> Evaluation:
    """Judge a potential by the labels of a data set, and by what it is needed for.

    Args:
        model: a potential, the path or name of one (`mace:FILE`), or the result of training.
        data: a data set or the path of its file; every label in it is compared.
        suite: "basic": errors of energies, forces, H v, Hessians; "curvature": also of eigenvalues, modes, frequencies
            and thermochemistry; "reactions": also barriers, transition states, reaction paths; "dynamics": also the
            survival of molecules in a ramp of temperatures; "full": all, as far as the data allow.
        limit: largest number of transition states that are searched and of molecules in dynamics, spread evenly over
            the data; by default 20 and 5; 0 for all.
        replicas: runs of dynamics of each molecule.
        output: an output file of the caller, which is not written here: searches and replicas are kept beside it
            (`OUTPUT.searches.jsonl`, `OUTPUT.replicas`), and the same call does not repeat them. None keeps nothing.
        name: name of the data set in tables; by default the stem of the file it came from.
        hessian: whether to predict Hessians.
        by_tag: also compute the errors of each tag.
        memory_mib: memory limit of one batch; None for a default by device. A structure that exceeds it runs alone.
        dtype: floating-point type of the calculation; by default that of the potential.
        include_suspect: use labels that are flagged suspect too; otherwise their structures are left out.
        quiet: show no progress.

    Returns:
        The evaluation: `rows` with the numbers and their 95 % intervals, `records` of every search and replica, `notes`
        of what was left out and of structures that the model was trained on, the predictions, and `table()` to print.

    Raises:
        UnknownOptionError: an unknown suite.
        ConfigError: a limit below zero, or no replicas.
        RequestError: `model` is not a potential, or `data` is not a data set; a suite that needs Hessians without them.
        MissingLabelError: the data set has no labels to compare with, or not those of the suite.
        UnknownElementError: the potential does not know an element; the message names the first structure.
        EngineError: a prediction that is not a finite number; the message names the structure.
        LabelValueError: a label that is not a finite number; the message names the structure.
        InterruptedRunError: SIGINT or SIGTERM in a long part; with an output, the same call continues.
    """
    check_choice(suite, SUITES, "suite")
    check_whole_numbers(replicas=replicas, **({} if limit is None else {"limit": limit}))
    if replicas < 1 or (limit is not None and limit < 0):
        raise ConfigError(f"expected a limit of 0 (all) or more and 1 replica or more, got {limit} and {replicas}")
    if isinstance(data, list | tuple) and data and all(isinstance(item, str | Path) for item in data):
        raise RequestError(
            f"data: expected one data set, got {len(data)} files. Judge them one after the other, [hesse.evaluate("
            "model, file) for file in files]; `hesse evaluate MODEL FILE...` does that"
        )
    dataset = as_dataset(data)
    check_suite(dataset, suite, hessian=hessian, include_suspect=include_suspect)
    potential = as_potential(model)
    result = evaluate_model(
        potential,
        dataset,
        name=name,
        hessian=hessian,
        by_tag=by_tag,
        memory_mib=memory_mib,
        dtype=dtype,
        include_suspect=include_suspect,
        intervals=True,
        quiet=quiet,
    )
    file = model.model_file if isinstance(model, TrainResult) else model
    overlap = training_overlap_note(file, result.dataset) if isinstance(file, str | Path) else None
    own = (overlap, independence_note(result.dataset.structures))
    result = replace(result, notes=tuple(note for note in own if note))
    potential = as_potential(potential, dtype=dtype)
    parts: dict[str, Callable[[], _Part]] = {
        "curvature": lambda: _curvature(result, by_tag, quiet),
        "reactions": lambda: _reactions(result, _engine(potential, result), limit, output, quiet),
        "dynamics": lambda: _dynamics(result, _engine(potential, result), limit, replicas, output, quiet),
    }
    for part, run in parts.items():
        if suite not in (part, "full"):
            continue
        try:
            rows, records, notes = run()
        except MissingLabelError as error:
            if suite != "full":
                raise
            rows, records, notes = [], [], [f"{part}: left out. {error}"]
        result = replace(
            result,
            rows=(*result.rows, *rows),
            records=(*result.records, *records),
            notes=(*result.notes, *notes),
        )
    return result


def check_suite(
    dataset: Dataset, suite: Suite, *, hessian: bool = True, include_suspect: bool = False, source: str = ""
) -> None:
    """Check that a data set has what a suite compares, before any work.

    Args:
        dataset: the structures and labels.
        suite: the suite; of "full" the labels alone are necessary.
        hessian: whether Hessians are predicted.
        include_suspect: labels that are flagged suspect count too.
        source: what to call the data set; by default the file that it came from.

    Raises:
        RequestError: the suite compares Hessians, and `hessian` is off.
        MissingLabelError: the data set has not what the suite compares.
    """
    source = source or dataset.source
    if suite == "curvature" and not hessian:
        raise RequestError("the suite curvature compares Hessians: leave out hessian=False (--no-hessian)")
    used = dataset if include_suspect else dataset.without_suspects()
    available = [label for label in label_names() if bool(used.labels.mask(label).any())]
    if not available or (available == ["hessian"] and not hessian):
        raise MissingLabelError(missing_labels(source, hessian=hessian))
    if suite == "curvature" and "hessian" not in available:
        raise MissingLabelError(_no_hessians(source))
    if suite == "reactions":
        reactions, notes = find_reactions(used)
        if not reactions:
            raise MissingLabelError(_no_reactions(source, notes))
    if suite == "dynamics" and all(len(structure) < 2 for structure in used.structures):
        raise MissingLabelError(_single_atoms(source))


def _no_hessians(source: str) -> str:
    return (
        f"{source}: no structure has a Hessian (or its prediction was left out): the suite curvature has nothing to "
        "compare. Make Hessians with `hesse label --hessian`."
    )


def _no_reactions(source: str, notes: Sequence[str]) -> str:
    return (
        f"{source}: the suite reactions needs structures with the tags reactant, ts and product, and the reaction as "
        f"their group; there is no such group.{' ' + notes[0] if notes else ''}"
    )


def _single_atoms(source: str) -> str:
    return f"{source}: there are single atoms only, which have no dynamics"


_Part = tuple[list[MetricRow], list[dict[str, Any]], list[str]]


def _engine(potential: Potential, result: Evaluation) -> Engine:
    """The potential as an engine, whose settings tell finished searches of one potential from those of another.

    Usually weights do that. Of a potential without any, such as a Python function, predictions have to: a function that
    was edited since must not get the results of the old one.
    """
    if potential.state_dict() or result.predictions.energy is None:
        return as_engine(potential)
    energies = (result.predictions.energy.double().cpu() * 1e6).round().nan_to_num()
    return PotentialEngine(potential, settings={"predictions_digest": tensor_digest({}, {"energies": energies})})


def _curvature(result: Evaluation, by_tag: bool, quiet: bool) -> _Part:
    rows = curvature_metrics(result.dataset, result.predictions, by_tag=by_tag, name=result.name, quiet=quiet)
    if not rows:
        raise MissingLabelError(_no_hessians(result.dataset.source))
    notes = []
    if not any(row.property == "zpe" for row in rows):
        notes.append(
            "no structure is a stationary point of the reference: there are eigenvalues, but no frequencies and no "
            "thermochemistry"
        )
    return [*rows, level_spread_row(result.name)], [], notes


def _reactions(result: Evaluation, engine: Engine, limit: int | None, output: str | Path | None, quiet: bool) -> _Part:
    reactions, notes = find_reactions(result.dataset)
    if not reactions:
        raise MissingLabelError(_no_reactions(result.dataset.source, notes))
    tasks = saddle_tasks(result.dataset, reactions)
    chosen = _spread(tasks, SADDLE_LIMIT if limit is None else limit)
    if len(chosen) < len(tasks):
        notes.append(f"{len(chosen)} of {len(tasks)} transition states were searched: --limit 0 searches all")
    records = _search_saddles(chosen, engine, output, quiet)
    rows = [*reaction_metrics(result.dataset, result.predictions, name=result.name)]
    return [*rows, *saddle_metrics(records, result.name)], [{"kind": "saddle", **row} for row in records], notes


def _search_saddles(
    tasks: Sequence[SaddleTask], engine: Engine, output: str | Path | None, quiet: bool
) -> list[dict[str, Any]]:
    settings = JudgmentSettings()
    options = {"judgment": asdict(settings)}
    keys = [
        search_key(t.structures, engine, {**options, "frequency": t.frequency, "barrier": t.barrier, "name": t.name})
        for t in tasks
    ]
    run = run_journaled(
        in_workers(_make_judge, (engine, settings), 0),
        tasks,
        keys,
        lambda _, row: FinishedSearch(row, {}),
        output=None if output is None else Path(output),
        title="transition states",
        quiet=quiet,
    )
    return [dict(run.found[i].row) if i in run.found else _failed(tasks[i], run.errors[i]) for i in range(len(tasks))]


def _make_judge(spec: tuple[Engine, JudgmentSettings]) -> Callable[[SaddleTask], dict[str, Any]]:
    return lambda task: judge_saddle(task, spec[0], spec[1])


def _failed(task: SaddleTask, reason: str) -> dict[str, Any]:
    """The record of a search that ended in an error of the program."""
    return empty_record(task) | {"reason": reason}


def _dynamics(
    result: Evaluation, engine: Engine, limit: int | None, replicas: int, output: str | Path | None, quiet: bool
) -> _Part:
    indices = [i for i in starting_molecules(result.dataset) if len(result.dataset.structures[i]) > 1]
    if not indices:
        raise MissingLabelError(_single_atoms(result.dataset.source))
    chosen = _spread(indices, MOLECULE_LIMIT if limit is None else limit)
    notes = []
    if len(chosen) < len(indices):
        what = "molecules" if groups_are_known(result.dataset.structures) else "structures"
        notes.append(f"dynamics of {len(chosen)} of {len(indices)} {what} was run: --limit 0 runs all")
    starts = [result.dataset.structures[i] for i in chosen]
    run = run_replicas(starts, engine, output, DYNAMICS, seeds=replicas, quiet=quiet)
    rows: list[Mapping[str, Any]] = list(run.rows)
    return survival_metrics(rows, result.name), [{"kind": "replica", **row} for row in rows], notes


def _spread(items: Sequence[Item], limit: int) -> list[Item]:
    """At most so many items, spread evenly; 0 for all."""
    if limit == 0 or len(items) <= limit:
        return list(items)
    return [items[(2 * k + 1) * len(items) // (2 * limit)] for k in range(limit)]
