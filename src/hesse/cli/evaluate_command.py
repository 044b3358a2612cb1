"""`hesse evaluate`: the errors of a potential on data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hesse.cli.common_options import STRICT
from hesse.errors import RequestError, check_choice

if TYPE_CHECKING:
    from rich.table import Table

    from hesse.datasets import Dataset
    from hesse.evaluation import Evaluation, GroupRow, MetricRow, StructureRow
    from hesse.recipes.judging import Suite

MIN_NOISE_RATIO = 1.5
"""Errors below this multiple of the noise floor depend more on the labels than on the model."""


class _Suite(StrEnum):
    basic = "basic"
    curvature = "curvature"
    reactions = "reactions"
    dynamics = "dynamics"
    full = "full"


class _Precision(StrEnum):
    model = "model"
    float32 = "float32"
    float64 = "float64"


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A .hesse file, the folder of a run, mace:FILE, torchani:FILE, ...")
    ],
    data: Annotated[
        list[Path] | None, typer.Argument(metavar="[DATA]...", help="Labeled data sets (.h5, .extxyz).")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="PART", help="Data of the run in folder MODEL: validation (held out), train."),
    ] = None,
    suite: Annotated[
        _Suite, typer.Option(help="What to judge: errors of labels; also frequencies, reactions, dynamics; or all.")
    ] = _Suite.basic,
    limit: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Transition states and molecules at most; 0: all. [default: 20 and 5]"),
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Runs of dynamics of each molecule.")] = 2,
    records: Annotated[
        Path | None, typer.Option(help="Write each search and each run of dynamics of a suite to this file.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the errors to this file, as a list of rows.")] = None,
    groups: Annotated[Path | None, typer.Option(help="Write the errors of each group (molecule) to this file.")] = None,
    structures: Annotated[Path | None, typer.Option(help="Write the errors of each structure to this file.")] = None,
    page: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write a page: verdict, tables, plots, the worst structures."),
    ] = None,
    worst: Annotated[int, typer.Option(min=0, help="Number of the worst groups and structures to list.")] = 5,
    rank_by: Annotated[
        str | None, typer.Option(metavar="PROPERTY", help="What the worst are sorted by. [default: forces]")
    ] = None,
    hessian: Annotated[bool, typer.Option(help="Errors of Hessians, if the data have them.")] = True,
    by_tag: Annotated[bool, typer.Option(help="Also the errors of each tag.")] = True,
    memory: Annotated[
        float | None, typer.Option(metavar="MIB", help="Memory limit of a batch, MiB. [default: by device]")
    ] = None,
    dtype: Annotated[_Precision, typer.Option(help="Precision of the calculation.")] = _Precision.model,
    device: Annotated[str, typer.Option(help="Device: cpu, cuda, cuda:1, ...")] = "cpu",
    include_suspect: Annotated[
        bool, typer.Option("--include-suspect", help="Also use labels that are flagged suspect.")
    ] = False,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no notes.")] = False,
) -> None:
    """Errors of a potential on data sets: RMSE and MAE of every kind of label, beside the noise floor of the labels,
    and the molecules and structures with the largest errors. With --suite also what the potential is needed for:
    frequencies, reactions, dynamics."""
    import torch

    from hesse.datasets import names_of_files, read_dataset
    from hesse.engines import make_potential
    from hesse.engines.names import path_in_name
    from hesse.evaluation import METRICS, check_known_elements, group_rows, property_names, structure_rows
    from hesse.models import best_model, is_run_folder, read_model_header
    from hesse.recipes import evaluate as judge
    from hesse.recipes.judging import check_suite
    from hesse.recipes.training_overlap import training_overlap_note
    from hesse.reports import error_tables, print_tables, suite_tables, worst_tables, write_evaluation_page
    from hesse.runtime.devices import device_from_name
    from hesse.runtime.filesystem import check_output_path, write_rows
    from hesse.training.run_data import run_data

    data = data or []
    run = Path(model) if is_run_folder(model) else None
    if run is not None:
        model = str(best_model(run))
    for target in (json, groups, structures, records, page):
        if target is not None:
            check_output_path(target, *([file] if (file := path_in_name(model)) else []), *data)
    if page is not None and page.suffix.lower() not in (".html", ".htm"):
        raise RequestError(f"{page}: the page is HTML; choose a name that ends in .html")
    _check_arguments(model, run, data, split, [json, groups, structures, records, page])
    if rank_by is not None:
        check_choice(rank_by, property_names(), what="--rank-by")
    torch_device = device_from_name(device)
    if run is not None and split is not None:
        datasets, names = [run_data(run, split, data)], [f"{run.resolve().name}/{split}"]
    else:
        datasets, names = [read_dataset(path) for path in data], names_of_files(data)
    potential = make_potential(model, device=torch_device)
    provenance = read_model_header(model)["provenance"] if Path(model).is_file() else {}
    for dataset in datasets:  # before any long work
        check_known_elements(potential, dataset)
        check_suite(dataset, "basic", hessian=hessian, include_suspect=include_suspect)
    suites = _suites_of(datasets, names, suite, partial(check_suite, hessian=hessian, include_suspect=include_suspect))
    rows: list[MetricRow] = []
    rows_of_records: list[dict[str, Any]] = []
    rows_of_groups: list[GroupRow] = []
    rows_of_structures: list[StructureRow] = []
    tables: list[Table] = []
    evaluations: list[Evaluation] = []
    page_notes: list[str] = []
    for name, dataset, own_suite in zip(names, datasets, suites, strict=True):
        evaluation = judge(
            potential,
            dataset,
            suite=own_suite,
            limit=limit,
            replicas=replicas,
            output=records or json or page,
            name=name,
            hessian=hessian,
            by_tag=by_tag,
            memory_mib=memory,
            dtype=None if dtype is _Precision.model else getattr(torch, dtype),
            include_suspect=include_suspect,
            quiet=quiet,
        )
        evaluations.append(evaluation)
        rows += evaluation.rows
        rows_of_records += [{"dataset": name, **record} for record in evaluation.records]
        one_tag = len({structure.tag for structure in evaluation.dataset.structures}) == 1
        labels = [row for row in evaluation.rows if row.property in property_names() and row.metric in METRICS]
        shown = [row for row in labels if not (one_tag and row.tag)]  # its numbers are those of the data set
        tables += [*error_tables(shown), *(worst_tables(evaluation, worst, rank_by) if worst else ())]
        if groups is not None:
            rows_of_groups += group_rows(name, evaluation.by_group(rank_by))
        if structures is not None:
            rows_of_structures += structure_rows(name, evaluation.worst(len(evaluation.dataset), rank_by))
        notes = [*_level_notes(name, dataset, provenance), *_noise_notes(evaluation.rows)]
        if len(evaluation.dataset) < len(dataset):
            n_left_out = len(dataset) - len(evaluation.dataset)
            notes.insert(0, f"{name}: {n_left_out} structures with suspect labels were left out")
        if split is None and (overlap := training_overlap_note(model, evaluation.dataset)):
            notes.insert(0, f"{name}: {overlap}")
        page_notes += notes
        if not quiet:
            for note in (*notes, *(f"{name}: {note}" for note in evaluation.notes)):
                typer.echo(f"note: {note}", err=True)
    contents = ((json, rows), (groups, rows_of_groups), (structures, rows_of_structures), (records, rows_of_records))
    for target, content in contents:
        if target is not None:
            write_rows(target, content)
    if page is not None:
        facts = {
            "Potential": model,
            **_training_facts(provenance),
            "Data": ", ".join(str(path) for path in data) or names[0],
            "Level of the data": ", ".join(dict.fromkeys(str(d.metadata.get("level") or "unknown") for d in datasets)),
            "Suite": f"{suite.value}; limit {'20 and 5' if limit is None else limit or 'none'}; {replicas} replicas",
            "Precision": f"{'that of the model' if dtype is _Precision.model else dtype.value}, on {device}",
        }
        title = run.resolve().name if run is not None else Path(model).stem if Path(model).is_file() else model
        write_evaluation_page(page, evaluations, model=title, facts=facts, notes=page_notes)
    print_tables([*tables, *suite_tables(rows)])


def _suites_of(
    datasets: Sequence[Dataset], names: Sequence[str], suite: _Suite, check: Callable[[Dataset, Any], None]
) -> list[Suite]:
    """The suite of each data set: that one, or the errors of labels alone where the data do not have what it needs.
    Raises MissingLabelError if no data set has."""
    from hesse.errors import MissingLabelError

    replies: list[MissingLabelError | None] = []
    for dataset in datasets:
        try:
            check(dataset, suite.value)
            replies.append(None)
        except MissingLabelError as error:
            replies.append(error)
    if None not in replies and replies[0] is not None:
        raise replies[0]
    for name, reply in zip(names, replies, strict=True):
        if reply is not None:
            typer.echo(f"note: {name}: errors of labels only. {reply}", err=True)
    return [suite.value if reply is None else "basic" for reply in replies]


def _check_arguments(
    model: str, run: Path | None, data: Sequence[Path], split: str | None, targets: Sequence[Path | None]
) -> None:
    """Raise RequestError for arguments that do not go together."""
    if split is not None and run is None:
        raise RequestError(
            f"--split {split} is a part of the data of a run, and {model} is no folder of a run: give the folder that "
            f"`hesse train` wrote, for example `hesse evaluate runs/water --split {split}`"
        )
    if split is None and not data:
        hint = f" or judge what the run held out: `hesse evaluate {run} --split validation`" if run is not None else ""
        raise RequestError(f"DATA: give one or more files of labeled structures{hint}")
    written = [target.resolve() for target in targets if target is not None]
    if len(set(written)) < len(written):
        raise RequestError(
            "--json, --groups, --structures, --records and --page write different things: give each a file of its own"
        )


def _training_facts(provenance: dict[str, Any]) -> dict[str, str]:
    """Facts about the training of a model, from its file."""
    names = {
        "level": "Level of the potential",
        "structures": "Training structures",
        "step": "Training steps",
        "data_hash": "Hash of the training data",
        "code_version": "Trained with Hesse",
    }
    return {title: str(provenance[name]) for name, title in names.items() if provenance.get(name)}


def _level_notes(name: str, dataset: Dataset, provenance: dict[str, Any]) -> Iterator[str]:
    model_level, data_level = str(provenance.get("level") or ""), str(dataset.metadata.get("level") or "")
    if model_level and data_level and model_level.strip().lower() != data_level.strip().lower():
        yield (
            f"{name} has labels of {data_level}, but the model was trained on {model_level}: the errors below contain "
            "the difference between the two (total energies above all)."
        )


def _noise_notes(rows: Sequence[MetricRow]) -> Iterator[str]:
    floors = {(r.dataset, r.property): r.value for r in rows if r.metric == "noise_floor" and not r.tag}
    for row in rows:
        floor = floors.get((row.dataset, row.property))
        if row.metric == "rmse" and not row.tag and floor is not None and row.value < MIN_NOISE_RATIO * floor:
            yield (
                f"{row.dataset}: the RMSE of {row.property} ({row.value:.3g} {row.unit}) is not meaningful below about "
                f"{MIN_NOISE_RATIO * floor:.3g} {row.unit}, {MIN_NOISE_RATIO} times the noise floor of the labels."
            )
