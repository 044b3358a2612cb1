"""`hesse saddle` and `hesse irc`: transition states, and the paths that lead down from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hesse.cli.app import app
from hesse.cli.options import ENGINE, OVERWRITE, QUIET, WORKERS, read_for, tell_failures

if TYPE_CHECKING:
    from hesse.datasets import Dataset
    from hesse.pes import IRCResult, SaddleResult
    from hesse.structures import Labels, Structure

Overwrite = Annotated[bool, OVERWRITE]
Json = Annotated[Path | None, typer.Option("--json", help="Write the rows as JSON too.")]
Output = Annotated[Path, typer.Argument(metavar="OUT", help=".extxyz or .h5")]


class _Method(StrEnum):
    prfo = "prfo"
    sella = "sella"


class _Directions(StrEnum):
    both = "both"
    forward = "forward"
    backward = "backward"


@app.command()
def saddle(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Guesses of transition states: .extxyz, .xyz, .h5, ...")],
    output: Output,
    engine: Annotated[str, ENGINE] = "gfn2",
    method: Annotated[_Method, typer.Option(help="Ours, or the package Sella.")] = _Method.prfo,
    fmax: Annotated[float, typer.Option(help="eV/Å; the search ends below it.")] = 0.005,
    steps: Annotated[int, typer.Option(min=1, help="At most.")] = 200,
    trust: Annotated[float, typer.Option(help="Å; the longest first step.")] = 0.1,
    workers: Annotated[int, WORKERS] = 1,
    overwrite: Overwrite = False,
    json: Json = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Transition states: stationary points with exactly one imaginary mode, with their energies and Hessians."""
    from hesse.structures import Labels

    guesses = _inputs(source, output, json, overwrite)
    spec = (engine, {"method": method.value, "fmax": fmax, "steps": steps, "trust": trust})
    kept: list[tuple[Structure, Labels]] = []
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    for guess, found, reason in _answers(_set_up_saddle, spec, guesses.structures, "saddle points", workers, quiet):
        reason = reason or found.reason
        rows.append({"id": guess.id, "converged": not reason, "reason": reason})
        if found is not None:
            rows[-1] |= {"energy": found.energy, "fmax": found.fmax, "steps": found.steps, "hessians": found.hessians}
        if reason:
            failures.append(f"{guess.id}: no transition state: {reason}")
            continue
        rows[-1]["imaginary"] = float(found.modes.frequencies[0])
        labels = Labels.of(len(guess), energy=found.energy, forces=found.forces, hessian=found.hessian)
        kept.append((found.structure, labels))
        typer.echo(
            f"{guess.id}: {found.energy:.6f} eV, imaginary mode {-found.modes.frequencies[0]:.0f}i cm⁻¹, "
            f"{found.steps} steps, {found.hessians} Hessians"
        )
    tell_failures(failures)
    _finish(output, json, engine, kept, rows, "saddle search")
    typer.echo(f"{output}: {len(kept)} of {len(guesses)} transition states")


@app.command()
def irc(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Transition states, as from hesse saddle.")],
    output: Output,
    engine: Annotated[str, ENGINE] = "gfn2",
    step: Annotated[float, typer.Option(help="Å √u; length of a step along the path.")] = 0.1,
    steps: Annotated[int, typer.Option(min=1, help="Per direction, at most.")] = 200,
    fmax: Annotated[float, typer.Option(help="eV/Å; a half of the path ends below it.")] = 0.02,
    directions: Annotated[_Directions, typer.Option(help="Which halves.")] = _Directions.both,
    reuse: Annotated[bool, typer.Option(help="Use Hessians of the engine's level that IN holds.")] = True,
    relax_ends: Annotated[bool, typer.Option("--relax-ends", help="Relax both ends too, to 0.005 eV/Å.")] = False,
    workers: Annotated[int, WORKERS] = 1,
    overwrite: Overwrite = False,
    json: Json = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Reaction paths: mass-weighted steepest descent from transition states, down both sides."""
    from dataclasses import replace

    from hesse.sampling.result import Known, known_hessians
    from hesse.structures import Labels

    tops = _inputs(source, output, json, overwrite)
    spec = (engine, {"step": step, "steps": steps, "fmax": fmax, "directions": directions.value}, relax_ends)
    known = known_hessians(tops, engine) if reuse else [Known()] * len(tops)
    tasks = [(s, k.hessian) for s, k in zip(tops.structures, known, strict=True)]
    kept: list[tuple[Structure, Labels]] = []
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    for (top, _), answer, reason in _answers(_set_up_irc, spec, tasks, "paths", workers, quiet):
        if reason:
            rows.append({"id": top.id, "converged": False, "reason": reason})
            failures.append(f"{top.id}: no path: {reason}")
            continue
        path, ends = answer
        for point in path.points:
            labels = Labels.of(len(top), energy=point.energy, forces=point.forces)
            kept.append((replace(point.structure, group=top.group or top.id, tag="irc"), labels))
        kept += [(replace(run.structure, group=top.group or top.id, tag="end"), _only_energy(run)) for run in ends]
        rows.append(_path_row(top, path, ends))
        typer.echo(_path_line(rows[-1]))
    tell_failures(failures)
    _finish(output, json, engine, kept, rows, "reaction paths")
    typer.echo(f"{output}: {len(kept)} structures of {sum(r['converged'] for r in rows)} complete paths")


def _only_energy(run: Any) -> Labels:
    from hesse.structures import Labels

    return Labels.of(len(run.structure), energy=run.energy)


def _path_row(top: Structure, path: IRCResult, ends: Sequence[Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": top.id, "converged": path.converged, "reason": "", "gradients": path.gradients}
    for name, half, end in (
        ("forward", path.forward, path.forward_end),
        ("backward", path.backward, path.backward_end),
    ):
        last = half[-1].energy if half else path.saddle.energy
        row |= {f"{name}_points": len(half), f"{name}_end": end, f"{name}_drop": path.saddle.energy - last}
    if not path.converged:
        row["reason"] = "a half of the path did not come down to a minimum: more --steps"
    if ends:
        row["relaxed_ends"] = [run.energy - path.saddle.energy for run in ends]
    return row


def _path_line(row: dict[str, Any]) -> str:
    halves = "; ".join(
        f"{name} {row[f'{name}_points']} points, {row[f'{name}_drop']:.4f} eV down, ended: {row[f'{name}_end']}"
        for name in ("forward", "backward")
    )
    ends = ", ".join(f"{energy:.4f}" for energy in row.get("relaxed_ends", ()))
    return f"{row['id']}: {halves}" + (f"; relaxed ends at {ends} eV" if ends else "")


def _set_up_saddle(spec: tuple[str, dict[str, Any]]) -> Callable[[Structure], SaddleResult]:
    from hesse.engines import make_engine
    from hesse.pes import saddle as search

    engine = make_engine(spec[0])
    return lambda structure: search(structure, engine, **spec[1])


def _set_up_irc(spec: tuple[str, dict[str, Any], bool]) -> Callable[[tuple[Structure, Any]], Any]:
    from hesse.engines import make_engine
    from hesse.pes import irc as follow
    from hesse.pes import minimise

    engine = make_engine(spec[0])

    def work(task: tuple[Structure, Any]) -> Any:
        structure, hessian = task
        path = follow(structure, engine, hessian=hessian, **spec[1])
        halves = [half[-1].structure for half in (path.backward, path.forward) if half] if spec[2] else []
        return path, [minimise(end.moved(end.positions, id=f"{end.id}/relaxed"), engine) for end in halves]

    return work


def _inputs(source: Path, output: Path, json_file: Path | None, overwrite: bool) -> Dataset:
    from hesse.errors import RequestError
    from hesse.files import require_target

    if json_file is not None:
        require_target(json_file, source)
        if json_file.absolute() == output.absolute():
            raise RequestError(f"OUT and --json are both {output}; give the rows a file of their own")
    return read_for(output, source, overwrite=overwrite)


def _answers(set_up: Any, spec: Any, tasks: Sequence[Any], title: str, workers: int, quiet: bool) -> list[Any]:
    """Task, answer (None where there is none) and reason, in the order of the tasks."""
    from hesse.progress import track
    from hesse.workers import run_tasks

    outcomes: dict[int, Any] = {}
    with track(title, len(tasks), quiet=quiet) as advance:
        for outcome in run_tasks(set_up, spec, tasks, workers=workers):
            outcomes[outcome.index] = outcome
            advance(1)
    return [(task, outcomes[k].answer, outcomes[k].reason) for k, task in enumerate(tasks)]


def _finish(
    output: Path,
    json_file: Path | None,
    engine: str,
    kept: Sequence[tuple[Structure, Labels]],
    rows: Sequence[dict[str, Any]],
    made_by: str,
) -> None:
    """Write what was found. Raises WorkError when that is nothing."""
    import json

    from hesse import __version__
    from hesse.datasets import Dataset, write_dataset
    from hesse.engines import make_engine
    from hesse.errors import WorkError
    from hesse.files import write_text

    if kept:
        level = make_engine(engine).level
        attributes = {"level": level, "engine": engine, "made_by": made_by, "code_version": __version__}
        write_dataset(output, Dataset.of(kept, **attributes))
    if json_file is not None:
        write_text(json_file, json.dumps(rows, indent=1) + "\n")
    if not kept:
        raise WorkError(f"{made_by}: nothing was found for any of {len(rows)} structures; the reasons are above")
