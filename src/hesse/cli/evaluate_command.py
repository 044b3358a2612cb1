"""`hesse evaluate`: the errors of a potential on data sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hesse.cli.common_options import STRICT

if TYPE_CHECKING:
    from hesse.datasets import Dataset
    from hesse.evaluation import MetricRow

MIN_NOISE_RATIO = 1.5
"""Errors below this multiple of the noise floor depend more on the labels than on the model."""


class _Precision(StrEnum):
    model = "model"
    float32 = "float32"
    float64 = "float64"


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A .hesse file, mace:FILE, torchani:FILE, python:module:factory, ...")
    ],
    data: Annotated[list[Path], typer.Argument(metavar="DATA", help="Labeled data sets (.h5, .extxyz).")],
    json: Annotated[Path | None, typer.Option(help="Write the errors to this file, as a list of rows.")] = None,
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
    """Errors of a potential on data sets. RMSE and MAE of every kind of label, beside the noise floor of the labels."""
    import torch

    from hesse.datasets import read_dataset
    from hesse.engines import make_potential
    from hesse.engines.names import path_in_name
    from hesse.evaluation import check_known_elements, evaluate_model
    from hesse.models import read_model_header
    from hesse.reports import error_tables, print_tables
    from hesse.runtime.devices import device_from_name
    from hesse.runtime.filesystem import check_output_path, write_rows

    if json is not None:
        check_output_path(json, *([file] if (file := path_in_name(model)) else []), *data)
    potential = make_potential(model, device=device_from_name(device))
    provenance = read_model_header(model)["provenance"] if Path(model).is_file() else {}
    datasets = [read_dataset(path) for path in data]
    for dataset in datasets:  # before any long work
        check_known_elements(potential, dataset)
    rows: list[MetricRow] = []
    shown: list[MetricRow] = []
    for name, dataset in zip(_dataset_names(data), datasets, strict=True):
        evaluation = evaluate_model(
            potential,
            dataset,
            name=name,
            hessian=hessian,
            by_tag=by_tag,
            memory_mib=memory,
            dtype=None if dtype is _Precision.model else getattr(torch, dtype),
            include_suspect=include_suspect,
            quiet=quiet,
        )
        rows += evaluation.rows
        one_tag = len({structure.tag for structure in evaluation.dataset.structures}) == 1
        shown += [row for row in evaluation.rows if not (one_tag and row.tag)]  # its numbers are those of the data set
        if not quiet:
            if len(evaluation.dataset) < len(dataset):
                n_left_out = len(dataset) - len(evaluation.dataset)
                typer.echo(f"note: {name}: {n_left_out} structures with suspect labels were left out", err=True)
            for note in (*_level_notes(name, dataset, provenance), *_noise_notes(evaluation.rows)):
                typer.echo(f"note: {note}", err=True)
    if json is not None:
        write_rows(json, rows)
    print_tables(error_tables(shown))


def _dataset_names(paths: Sequence[Path]) -> list[str]:
    """The stem of each path; the full path if several have the same stem."""
    stems = Counter(path.stem for path in paths)
    return [path.stem if stems[path.stem] == 1 else str(path) for path in paths]


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
