"""`hesse saddle` and `hesse irc`: transition states, and the reaction paths through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hesse.cli.common_options import ENGINE, OVERWRITE, QUIET, WORKERS, open_input, print_failures

if TYPE_CHECKING:
    from hesse.datasets import Dataset
    from hesse.pes import IRCResult, SaddleResult
    from hesse.structures import Properties, Structure

Overwrite = Annotated[bool, OVERWRITE]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the rows as JSON.")]
Output = Annotated[Path, typer.Argument(metavar="OUT", help=".extxyz or .h5")]


class _Method(StrEnum):
    prfo = "prfo"
    sella = "sella"


class _Directions(StrEnum):
    both = "both"
    forward = "forward"
    backward = "backward"


def saddle(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Guesses of transition states: .extxyz, .xyz, .h5, ...")],
    output: Output,
    engine: Annotated[str, ENGINE] = "gfn2",
    method: Annotated[_Method, typer.Option(help="P-RFO, or the package Sella.")] = _Method.prfo,
    fmax: Annotated[float, typer.Option(help="eV/Å; largest force at the end.")] = 0.005,
    steps: Annotated[int, typer.Option(min=1, help="Largest number of steps.")] = 200,
    trust: Annotated[float, typer.Option(help="Å; largest length of the first step.")] = 0.1,
    workers: Annotated[int, WORKERS] = 1,
    overwrite: Overwrite = False,
    json: Json = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Search transition states. The results have exactly one imaginary mode, and their energies and Hessians."""
    from hesse.structures import Properties

    guesses = _open_starts(source, output, json, overwrite)
    spec = (engine, {"method": method.value, "fmax": fmax, "steps": steps, "trust": trust})
    results: list[tuple[Structure, Properties]] = []
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    for guess, result, reason in _run_all(
        _make_saddle_worker, spec, guesses.structures, "saddle points", workers, quiet
    ):
        reason = reason or result.reason
        rows.append({"id": guess.id, "converged": not reason, "reason": reason})
        if result is not None:
            rows[-1] |= {
                "energy": result.energy,
                "fmax": result.fmax,
                "steps": result.steps,
                "hessians": result.n_hessians,
            }
        if reason:
            failures.append(f"{guess.id}: no transition state: {reason}")
            continue
        rows[-1]["imaginary"] = float(result.modes.frequencies[0])
        labels = Properties.single(len(guess), energy=result.energy, forces=result.forces, hessian=result.hessian)
        results.append((result.structure, labels))
        typer.echo(
            f"{guess.id}: {result.energy:.6f} eV, imaginary mode {-result.modes.frequencies[0]:.0f}i cm⁻¹, "
            f"{result.steps} steps, {result.n_hessians} Hessians"
        )
    print_failures(failures)
    _write_results(output, json, engine, results, rows, "saddle search")
    typer.echo(f"{output}: {len(results)} of {len(guesses)} transition states")


def irc(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Transition states, as from hesse saddle.")],
    output: Output,
    engine: Annotated[str, ENGINE] = "gfn2",
    step: Annotated[float, typer.Option(help="Å √u; length of a step along the path.")] = 0.1,
    steps: Annotated[int, typer.Option(min=1, help="Largest number of steps per direction.")] = 200,
    fmax: Annotated[float, typer.Option(help="eV/Å; largest force at the ends.")] = 0.02,
    directions: Annotated[_Directions, typer.Option(help="Halves of the path.")] = _Directions.both,
    reuse: Annotated[bool, typer.Option(help="Use Hessians in IN, if they are of the engine's level.")] = True,
    relax_ends: Annotated[bool, typer.Option("--relax-ends", help="Also relax both ends, to 0.005 eV/Å.")] = False,
    workers: Annotated[int, WORKERS] = 1,
    overwrite: Overwrite = False,
    json: Json = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Follow reaction paths from transition states. Mass-weighted steepest descent in both directions."""
    from dataclasses import replace

    from hesse.sampling.runner import KnownLabels, stored_hessians
    from hesse.structures import Properties

    transition_states = _open_starts(source, output, json, overwrite)
    spec = (engine, {"step": step, "steps": steps, "fmax": fmax, "directions": directions.value}, relax_ends)
    stored = stored_hessians(transition_states, engine) if reuse else [KnownLabels()] * len(transition_states)
    tasks = [(s, k.hessian) for s, k in zip(transition_states.structures, stored, strict=True)]
    results: list[tuple[Structure, Properties]] = []
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    for (ts, _), result, reason in _run_all(_make_irc_worker, spec, tasks, "paths", workers, quiet):
        if reason:
            rows.append({"id": ts.id, "converged": False, "reason": reason})
            failures.append(f"{ts.id}: no path: {reason}")
            continue
        path, ends = result
        for point in path.points:
            labels = Properties.single(len(ts), energy=point.energy, forces=point.forces)
            results.append((replace(point.structure, group=ts.group or ts.id, tag="irc"), labels))
        results += [(replace(run.structure, group=ts.group or ts.id, tag="end"), _only_energy(run)) for run in ends]
        rows.append(_path_row(ts, path, ends))
        typer.echo(_path_line(rows[-1]))
    print_failures(failures)
    _write_results(output, json, engine, results, rows, "reaction paths")
    typer.echo(
        f"{output}: {len(results)} structures; {sum(r['converged'] for r in rows)} of {len(rows)} paths are complete"
    )


def _only_energy(run: Any) -> Properties:
    from hesse.structures import Properties

    return Properties.single(len(run.structure), energy=run.energy)


def _path_row(ts: Structure, path: IRCResult, ends: Sequence[Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": ts.id, "converged": path.converged, "reason": "", "gradients": path.n_gradients}
    for name, half, end in (
        ("forward", path.forward, path.forward_end),
        ("backward", path.backward, path.backward_end),
    ):
        last = half[-1].energy if half else path.saddle.energy
        row |= {f"{name}_points": len(half), f"{name}_end": end, f"{name}_drop": path.saddle.energy - last}
    if not path.converged:
        row["reason"] = "a half of the path did not reach a minimum: give more --steps"
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


def _make_saddle_worker(spec: tuple[str, dict[str, Any]]) -> Callable[[Structure], SaddleResult]:
    from hesse.engines import make_engine
    from hesse.pes import saddle as search

    engine = make_engine(spec[0])
    return lambda structure: search(structure, engine, **spec[1])


def _make_irc_worker(spec: tuple[str, dict[str, Any], bool]) -> Callable[[tuple[Structure, Any]], Any]:
    from hesse.engines import make_engine
    from hesse.pes import irc as follow
    from hesse.pes import minimize

    engine = make_engine(spec[0])

    def follow_path(task: tuple[Structure, Any]) -> Any:
        structure, hessian = task
        path = follow(structure, engine, hessian=hessian, **spec[1])
        halves = [half[-1].structure for half in (path.backward, path.forward) if half] if spec[2] else []
        return path, [minimize(end.with_positions(end.positions, id=f"{end.id}/relaxed"), engine) for end in halves]

    return follow_path


def _open_starts(source: Path, output: Path, json_file: Path | None, overwrite: bool) -> Dataset:
    from hesse.errors import RequestError
    from hesse.runtime.filesystem import check_output_path

    if json_file is not None:
        check_output_path(json_file, source)
        if json_file.absolute() == output.absolute():
            raise RequestError(f"OUT and --json are both {output}; choose another file for --json")
    return open_input(output, source, overwrite=overwrite)


def _run_all(make_worker: Any, spec: Any, tasks: Sequence[Any], title: str, workers: int, quiet: bool) -> list[Any]:
    """Task, value (None if it failed) and error of each task, in order."""
    from hesse.runtime.parallel import map_tasks
    from hesse.runtime.progress import track

    results: dict[int, Any] = {}
    with track(title, len(tasks), quiet=quiet) as advance:
        for result in map_tasks(make_worker, spec, tasks, workers=workers):
            results[result.index] = result
            advance(1)
    return [(task, results[k].value, results[k].error) for k, task in enumerate(tasks)]


def _write_results(
    output: Path,
    json_file: Path | None,
    engine: str,
    results: Sequence[tuple[Structure, Properties]],
    rows: Sequence[dict[str, Any]],
    made_by: str,
) -> None:
    """Write structures and rows. Raises ExecutionError if there is no structure."""
    from hesse._version import __version__
    from hesse.datasets import Dataset, write_dataset
    from hesse.engines import make_engine
    from hesse.errors import ExecutionError
    from hesse.runtime.filesystem import write_rows

    if results:
        level = make_engine(engine).level
        attributes = {"level": level, "engine": engine, "made_by": made_by, "code_version": __version__}
        write_dataset(output, Dataset.from_pairs(results, **attributes))
    if json_file is not None:
        write_rows(json_file, rows)
    if not results:
        raise ExecutionError(f"{made_by}: nothing was found for any of {len(rows)} structures; the reasons are above")
