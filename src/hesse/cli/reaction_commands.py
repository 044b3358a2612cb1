"""`hesse saddle` and `hesse irc`: transition states, and the reaction paths through them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hesse.cli.common_options import (
    ENGINE,
    OVERWRITE,
    QUIET,
    STRICT,
    WORKERS,
    open_input,
    outside_text,
    print_failures,
    workers_for,
)

if TYPE_CHECKING:
    from hesse.datasets import Dataset
    from hesse.sampling import ReactionResult

Overwrite = Annotated[bool, OVERWRITE]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the rows as JSON.")]
Output = Annotated[Path, typer.Argument(metavar="OUT", help=".extxyz or .h5")]


_NEAR = 0.3
"""Å; saddles up to this distance from their start are counted as near to it."""


class Method(StrEnum):
    """Methods of saddle search."""

    prfo = "prfo"
    davidson = "davidson"
    sella = "sella"


class _Directions(StrEnum):
    both = "both"
    forward = "forward"
    backward = "backward"


def saddle(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Guesses of transition states: .extxyz, .xyz, .h5, ...")],
    output: Output,
    engine: Annotated[str, ENGINE] = "gfn2",
    method: Annotated[Method, typer.Option(help="P-RFO; without full Hessians (davidson); or the package Sella.")] = (
        Method.prfo
    ),
    mode: Annotated[
        int | None, typer.Option(min=0, help="Number of the mode to follow at the start; 0 is the lowest.")
    ] = None,
    from_path: Annotated[
        bool,
        typer.Option("--from-path", help="IN has paths (hesse neb): start at their highest images, along the path."),
    ] = False,
    fmax: Annotated[float, typer.Option(help="eV/Å; largest force at the end.")] = 0.005,
    steps: Annotated[int, typer.Option(min=1, help="Largest number of steps.")] = 200,
    trust: Annotated[float, typer.Option(help="Å; largest length of the first step.")] = 0.1,
    workers: Annotated[int | None, WORKERS] = None,
    overwrite: Overwrite = False,
    json: Json = None,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Search transition states. The results have exactly one imaginary mode, and their energies and Hessians.

    The last geometries of searches that failed are written too: for OUT = ts.h5, to ts.failed.h5. The same command
    continues after an interruption: finished searches are kept in ts.h5.searches.jsonl."""
    from hesse.cli.option_checks import check_positive
    from hesse.datasets import write_dataset
    from hesse.errors import ExecutionError
    from hesse.sampling import highest_images, search_saddles

    check_positive("eV/Å", fmax=fmax)
    check_positive("Å", trust=trust)
    failed_file = failed_output(source, output, json, overwrite)
    guesses = open_starts(source, output, json, overwrite)
    options: dict[str, Any] = {"method": method.value, "fmax": fmax, "steps": steps, "trust": trust}
    if mode is not None:
        options["mode"] = mode
    starts, modes = highest_images(guesses) if from_path else (guesses.structures, None)
    if method is Method.sella:
        modes = None  # Sella finds its own
    workers = workers_for(workers, engine, starts)
    result = search_saddles(starts, engine, output, modes=modes, workers=workers, quiet=quiet, **options)
    for row in result.rows:
        if row["converged"]:
            typer.echo(_saddle_line(row))
    print_failures(
        [
            f"{row['id']}: no transition state: {row['reason']}{_distance_text(row)}"
            for row in result.rows
            if not row["converged"]
        ]
    )
    if result.failed is not None:
        write_dataset(failed_file, result.failed)
        typer.echo(f"{failed_file}: the last geometries of {len(result.failed)} searches that failed", err=True)
    try:
        write_results(output, json, result, "saddle search")
    except ExecutionError:
        typer.echo(_saddle_summary(output, result), err=True)
        raise
    typer.echo(_saddle_summary(output, result))


def failed_output(source: Path, output: Path, json_file: Path | None, overwrite: bool) -> Path:
    """The file for geometries of searches that failed.

    Raises:
        RequestError: it may not be written.
    """
    from hesse.errors import RequestError
    from hesse.runtime.filesystem import check_output_path

    path = output.with_name(f"{output.stem}.failed{output.suffix}")
    check_output_path(path, source, *([json_file] if json_file is not None else []))
    if path.exists() and not overwrite:
        raise RequestError(
            f"{path}, for geometries of searches that failed, exists already: choose another OUT, or give --overwrite "
            "to replace it"
        )
    return path


def _saddle_line(row: dict[str, Any]) -> str:
    atoms = f" ({', '.join(row['mode_atoms'])})" if row.get("mode_atoms") else ""
    return (
        f"{row['id']}: {row['energy']:.6f} eV, imaginary mode {-row['imaginary']:.0f}i cm⁻¹{atoms}, "
        f"{row['steps']} steps, {_curvature_text(row)}{_distance_text(row)}"
    )


def _curvature_text(row: dict[str, Any]) -> str:
    return f"{row['products']} products H v" if "products" in row else f"{row['hessians']} Hessians"


def _distance_text(row: dict[str, Any]) -> str:
    """How far a search went, for the end of its line."""
    if "rmsd" not in row:
        return ""
    change = row["energy_change"]
    parts = [f"{row['rmsd']:.2f} Å from the start, {abs(change):.2f} eV {'below' if change < 0 else 'above'} it"]
    bonds = [f"{name} {what}" for what in ("formed", "broken") for name in row[f"bonds_{what}"]]
    parts += [f"bonds changed: {', '.join(bonds)}"] if bonds else []
    return "; " + "; ".join(parts) + outside_text(row)


def _saddle_summary(output: Path, result: ReactionResult) -> str:
    """The numbers of a whole run."""
    converged = [row for row in result.rows if row["converged"]]
    lines = [f"{output}: {len(converged)} of {len(result.rows)} transition states{level_text(result)}"]
    if converged:
        n_near = sum(row["rmsd"] <= _NEAR for row in converged)
        n_bonds = sum(bool(row["bonds_formed"] or row["bonds_broken"]) for row in converged)
        lines.append(f"  {n_near} within {_NEAR} Å of the start; {n_bonds} with other bonds than the start")
        if n_near < len(converged) or n_bonds:
            lines.append("  a saddle far from its start may belong to another reaction: look at its path (hesse irc)")
    compared = [row for row in result.rows if "outside_training" in row]
    if compared:
        n_outside = sum(row["outside_training"] for row in compared)
        lines.append(f"  {n_outside} of {len(compared)} last geometries are outside the training data of the model")
    if result.n_reused:
        lines.append(f"  {result.n_reused} searches were finished before")
    return "\n".join(lines)


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
    workers: Annotated[int | None, WORKERS] = None,
    overwrite: Overwrite = False,
    json: Json = None,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Follow reaction paths from transition states. Mass-weighted steepest descent in both directions.

    The same command continues after an interruption: finished paths are kept in OUT.searches.jsonl."""
    from hesse.cli.option_checks import check_positive
    from hesse.sampling import follow_paths

    check_positive("Å √u", step=step)
    check_positive("eV/Å", fmax=fmax)
    transition_states = open_starts(source, output, json, overwrite)
    result = follow_paths(
        transition_states,
        engine,
        output=output,
        reuse=reuse,
        relax_ends=relax_ends,
        workers=workers_for(workers, engine, transition_states.structures),
        quiet=quiet,
        step=step,
        steps=steps,
        fmax=fmax,
        directions=directions.value,
    )
    failed = {failure.id for failure in result.failures}
    for row in result.rows:
        if row["id"] not in failed:
            typer.echo(_path_line(row))
    print_failures([f"{failure.id}: no path: {failure.reason}" for failure in result.failures])
    write_results(output, json, result, "reaction paths")
    n_points = 0 if result.dataset is None else len(result.dataset)
    n_complete = sum(row["converged"] for row in result.rows)
    typer.echo(
        f"{output}: {n_points} structures; {n_complete} of {len(result.rows)} paths are complete{level_text(result)}"
    )
    if result.n_reused:
        typer.echo(f"  {result.n_reused} searches were finished before")


def _path_line(row: dict[str, Any]) -> str:
    halves = "; ".join(
        f"{name} {row[f'{name}_points']} points, {row[f'{name}_drop']:.4f} eV down, ended: {row[f'{name}_end']}"
        for name in ("forward", "backward")
    )
    ends = ", ".join(f"{energy:.4f}" for energy in row.get("relaxed_ends", ()))
    return f"{row['id']}: {halves}" + (f"; relaxed ends at {ends} eV" if ends else "") + outside_text(row)


def open_starts(source: Path, output: Path, json_file: Path | None, overwrite: bool, *further_sources: Path) -> Dataset:
    """Read the input of a search, after checks that its outputs can be written.

    Raises:
        RequestError: an output that may not be written.
        FileFormatError: the input cannot be read.
    """
    from hesse.errors import RequestError
    from hesse.runtime.filesystem import check_output_path

    if json_file is not None:
        check_output_path(json_file, source, *further_sources)
        if json_file.absolute() == output.absolute():
            raise RequestError(f"OUT and --json are both {output}; choose another file for --json")
    check_output_path(output, source, *further_sources)
    return open_input(output, source, overwrite=overwrite)


def level_text(result: ReactionResult) -> str:
    """The level of theory of the results, for the end of a line: the engine may be the default one."""
    data = result.failed if result.dataset is None else result.dataset
    return "" if data is None else f" ({data.metadata['level']})"


def write_results(output: Path, json_file: Path | None, result: ReactionResult, made_by: str) -> None:
    """Write structures and rows.

    Raises:
        ExecutionError: there is no structure.
        WriteError: a file cannot be written.
    """
    from hesse.datasets import write_dataset
    from hesse.errors import ExecutionError
    from hesse.runtime.filesystem import write_rows

    if result.dataset is not None:
        write_dataset(output, result.dataset)
    if json_file is not None:
        write_rows(json_file, result.rows)
    if result.dataset is None:
        raise ExecutionError(
            f"{made_by}: nothing was found for any of {len(result.rows)} structures; the reasons are above"
        )
