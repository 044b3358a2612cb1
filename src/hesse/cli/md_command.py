"""`hesse md`: molecular dynamics of many replicas, and how long they survive."""

from __future__ import annotations

import json as json_module
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hesse.cli.common_options import ENGINE, OVERWRITE, QUIET, SCHEDULER, STRICT, WORKERS, open_input, print_failures

if TYPE_CHECKING:
    from hesse.sampling import ReplicaResult

Rows = Sequence[Mapping[str, Any]]


class _Ramp(StrEnum):
    jctc2025 = "jctc2025"
    fast = "fast"


class _Ensemble(StrEnum):
    langevin = "langevin"
    nve = "nve"


class _Failure(StrEnum):
    jctc2025 = "jctc2025"
    fast = "fast"
    none = "none"


def md(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Molecules: .extxyz, .xyz, .h5, ...")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Trajectories: .extxyz or .h5")],
    engine: Annotated[str, ENGINE] = "gfn2",
    seeds: Annotated[int, typer.Option(min=1, help="Replicas per molecule, of the seeds 0, 1, 2, ...")] = 5,
    ramp: Annotated[
        _Ramp | None, typer.Option(help="Heat until failure: 5 K steps of 5 ps from 5 K, or 300 to 3000 K in 9 ps.")
    ] = None,
    ceiling: Annotated[float | None, typer.Option(help="K; last temperature of the ramp. [600 or 3000]")] = None,
    interval: Annotated[float | None, typer.Option(help="ps at each temperature of the ramp. [5 or 0.1]")] = None,
    temperature: Annotated[float | None, typer.Option(help="K; without a ramp. [300]")] = None,
    ensemble: Annotated[_Ensemble, typer.Option(help="Constant temperature, or constant energy.")] = (
        _Ensemble.langevin
    ),
    time: Annotated[float | None, typer.Option(help="ps; without a ramp. [10]")] = None,
    step: Annotated[float | None, typer.Option(help="fs; time step. [0.5; ramp jctc2025: 1]")] = None,
    friction: Annotated[float | None, typer.Option(help="1/fs; of langevin. [0.01; ramp jctc2025: 0.001]")] = None,
    failure: Annotated[
        _Failure | None, typer.Option(help="What counts as failure. [that of the ramp, or fast]")
    ] = None,
    stride: Annotated[int, typer.Option(min=0, help="Steps between snapshots in OUT; 0: no snapshots, no OUT.")] = 100,
    relax: Annotated[bool, typer.Option(help="Start from the nearest minimum of the engine.")] = True,
    fmax: Annotated[float, typer.Option(help="eV/Å; largest force at the end of the relaxation.")] = 0.005,
    compile: Annotated[
        bool, typer.Option("--compile", help="Translate the forces of a model to machine code first: for long runs.")
    ] = False,
    workers: Annotated[int | None, WORKERS] = None,
    scheduler: Annotated[str | None, SCHEDULER] = None,
    figure: Annotated[Path | None, typer.Option(help="Also draw the survival curve: .png or .svg")] = None,
    compare: Annotated[
        list[Path] | None, typer.Option(help="JSON of an earlier run, for the same figure; may be given several times.")
    ] = None,
    overwrite: Annotated[bool, OVERWRITE] = False,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the rows as JSON.")] = None,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Molecular dynamics of many replicas: trajectories, and when and why they fail.

    All replicas of a model move together. The same command continues after an interruption: the replicas are kept in
    the folder OUT.replicas."""
    from hesse.cli.option_checks import check_positive
    from hesse.datasets import write_dataset
    from hesse.pes import ReplicaSettings
    from hesse.runtime.filesystem import write_rows
    from hesse.sampling import run_replicas

    check_positive("ps", time=time, interval=interval)
    check_positive("fs", step=step)
    check_positive("1/fs", friction=friction)
    check_positive("K", ceiling=ceiling)
    check_positive("eV/Å", fmax=fmax)
    settings = ReplicaSettings(
        ramp=None if ramp is None else ramp.value,
        temperature=temperature,
        ensemble=ensemble.value,
        time=time,
        ceiling=ceiling,
        interval=interval,
        time_step=step,
        friction=friction,
        failure=None if failure is None else failure.value,
        stride=stride,
        relax=relax,
        fmax=fmax,
        compile=compile,
    )
    _check_outputs(source, output, json, figure)
    others = {_label(path, rows): rows for path in compare or () for rows in [_read_rows(path)]}
    molecules = open_input(output, source, overwrite=overwrite)
    result = run_replicas(
        molecules, engine, output, settings, seeds=seeds, workers=workers, scheduler=scheduler, quiet=quiet
    )
    if json is not None:
        write_rows(json, result.rows)
    if result.dataset is not None:
        write_dataset(output, result.dataset)
    print_failures([f"{row['id']}: {row['reason']}: {row['detail']}" for row in result.rows if row["time"] is None])
    _report(output, result, others, stride)
    if figure is not None:
        from hesse.reports import draw_survival

        draw_survival({str(result.rows[0]["level"]): result.rows, **others}, figure, settings)


def _check_outputs(source: Path, output: Path, json_file: Path | None, figure: Path | None) -> None:
    """Raises RequestError for outputs that cannot be written, before the computation."""
    from hesse.errors import RequestError
    from hesse.runtime.filesystem import check_output_path, check_picture_path

    names = [path.absolute() for path in (output, json_file, figure) if path is not None]
    if len(set(names)) < len(names):
        raise RequestError("OUT, --json and --figure must be different files")
    if json_file is not None:
        check_output_path(json_file, source)
    if figure is not None:
        check_picture_path(figure, source)


def _read_rows(path: Path) -> Rows:
    """Rows of an earlier run. Raises FileFormatError."""
    from hesse.errors import FileFormatError
    from hesse.runtime.filesystem import check_input_file

    check_input_file(path, "JSON file of hesse md")
    try:
        rows = json_module.loads(path.read_text(encoding="utf-8"))
        sound = isinstance(rows, list) and all(
            isinstance(row, dict)
            and isinstance(row["survived"], bool)
            and isinstance(row["structure"], str)
            and isinstance(row["time"], int | float | None)
            for row in rows
        )
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise FileFormatError(f"{path}: not the JSON of hesse md ({error})") from error
    if not sound or not rows:
        raise FileFormatError(f"{path}: not the JSON of hesse md: expected a list of its rows")
    return rows


def _label(path: Path, rows: Rows) -> str:
    return f"{rows[0].get('level', 'unknown')} ({path.stem})"


def _report(output: Path, result: ReplicaResult, others: Mapping[str, Rows], stride: int) -> None:
    from hesse.errors import ExecutionError
    from hesse.pes import compare_survival

    curve = result.survival()
    if curve is None:
        raise ExecutionError(f"no replica of {len(result.rows)} was started; the reasons are above")
    if result.n_reused:
        typer.echo(f"{result.n_reused} replicas were finished before", err=True)
    counted = [row for row in result.rows if row["time"] is not None]
    numbers = f"{len(counted)} replicas, {curve.n_failed} failed"
    level = result.rows[0]["level"]
    if result.dataset is None:
        typer.echo(f"{numbers}; no snapshots{' (--stride 0)' if stride == 0 else ''} ({level})")
    else:
        typer.echo(f"{output}: {numbers}; {len(result.dataset)} snapshots ({level})")
    typer.echo(
        f"  surviving to the end: {curve.fraction[-1]:.2f} ({curve.low[-1]:.2f} to {curve.high[-1]:.2f} with 95 % "
        f"confidence; {curve.n_effective:.1f} independent replicas)"
    )
    if curve.median is not None:
        typer.echo(f"  half have failed after {curve.median:.4g} ps")
    for reason, count in Counter(row["reason"] for row in counted if row["reason"]).most_common():
        example = next(row for row in counted if row["reason"] == reason)
        typer.echo(f"  {count} x {reason}, such as {example['id']} at {example['time']:.4g} ps: {example['detail']}")
    outside = [row for row in counted if row.get("outside_training")]
    if outside:
        typer.echo(
            f"  {len(outside)} ended outside the training data of the model, such as {outside[0]['id']}: "
            f"{outside[0]['extrapolation']}"
        )
    drifts = [row["energy_drift"] for row in counted if row["survived"] and row["energy_drift"] is not None]
    if drifts:
        typer.echo(f"  drift of the energy of survivors: at most {max(map(abs, drifts)):.2g} eV/ps")
    for label, rows in others.items():
        comparison = compare_survival(rows, result.rows)
        if comparison is not None:
            typer.echo(
                f"  compared with {label}: {comparison['difference']:+.4g} ps on the mean of "
                f"{comparison['molecules']:.0f} molecules (p = {comparison['p_value']:.2g}, signed-rank test)"
            )
