"""`hesse vibrations`: frequencies and normal modes, from stored Hessians or from an engine."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hesse.cli.common_options import MAX_SHOWN, QUIET, SCHEDULER, STRICT, WORKERS
from hesse.cli.vibration_options import (
    Atoms,
    Engine,
    Fmax,
    Folder,
    Isotopes,
    Masses,
    Minimize,
    RetryFailed,
    Reuse,
    Source,
    Steps,
    Timeout,
    compute_vibrations,
    print_warnings,
)

if TYPE_CHECKING:
    from hesse.pes import Vibrations


class _File(StrEnum):
    molden = "molden"
    movie = "movie"
    gaussian = "gaussian"
    ase = "ase"
    picture = "picture"


_SUFFIXES = {
    _File.molden: ".molden",
    _File.movie: ".xyz",
    _File.gaussian: ".log",
    _File.ase: ".json",
    _File.picture: ".svg",
}
_MAX_TABLES = 3
"""Up to this number of structures each gets a table; more get a line."""


def vibrations(
    source: Source,
    engine: Engine = None,
    minimize: Minimize = False,
    fmax: Fmax = 0.005,
    steps: Steps = 500,
    atoms: Atoms = None,
    masses: Masses = "average",
    isotope: Isotopes = None,
    out: Folder = None,
    write: Annotated[
        list[_File] | None,
        typer.Option(
            help="Files of each structure in DIR: molden, movie (.xyz), gaussian (text like its output), ase "
            "(VibrationsData), picture (.svg); may be given several times."
        ),
    ] = None,
    reuse: Reuse = True,
    workers: Annotated[int | None, WORKERS] = None,
    scheduler: Annotated[str | None, SCHEDULER] = None,
    timeout: Timeout = None,
    retry_failed: RetryFailed = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N structures.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the rows as JSON.")] = None,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Compute harmonic frequencies and normal modes. Hessians in IN are used; an engine computes others.

    Translations and rotations are projected out. Models compute many structures at once; other engines work as in
    `hesse label`. With --out the same command continues after an interruption."""
    from hesse.errors import RequestError
    from hesse.recipes.vibrations_of_many import require_results
    from hesse.runtime.filesystem import write_rows

    if write and out is None:
        raise RequestError("--write: give the folder of the files with --out DIR")
    report = compute_vibrations(
        source,
        engine=engine,
        folder=out,
        json_file=json,
        atoms=atoms,
        isotopes=isotope,
        limit=limit,
        masses=masses,
        minimize=minimize,
        fmax=fmax,
        steps=steps,
        reuse=reuse,
        workers=workers,
        scheduler=scheduler,
        timeout=timeout,
        retry_failed=retry_failed,
        quiet=quiet,
    )
    if json is not None:
        write_rows(json, report.rows())
    if len(report) <= _MAX_TABLES:
        for result in report:
            typer.echo(result.table())
    else:
        for result in report.results[:MAX_SHOWN]:
            typer.echo(_line(result))
        if len(report) > MAX_SHOWN:
            typer.echo(f"... and {len(report) - MAX_SHOWN} more{'' if json else ' (--json FILE has all)'}")
    print_warnings(report, with_warnings=len(report) > _MAX_TABLES)
    if out is not None and write:
        n_files = _write_files(out, report.results, list(dict.fromkeys(write)))
        typer.echo(f"{out}: {n_files} files of modes")
    require_results(report)
    if len(report.ids) > 1:
        stored = f", {report.n_stored} from Hessians in {source}" if report.n_stored else ""
        before = f", {report.n_reused} from an earlier run" if report.n_reused else ""
        typer.echo(f"{len(report)} of {len(report.ids)} structures{stored}{before}")


def _line(result: Vibrations) -> str:
    frequencies = result.frequencies
    lowest = f", lowest {frequencies[0]:.1f} cm⁻¹" if len(frequencies) else ""
    return (
        f"{result.structure.id}: {len(frequencies)} modes{lowest}, {result.n_imaginary} imaginary, zero-point energy "
        f"{result.zpe:.4f} eV"
    )


def _write_files(folder: Path, results: tuple[Vibrations, ...], kinds: list[_File]) -> int:
    """Write the files of all structures. Returns their number."""
    from hesse.reports.vibration_figure import draw_frequencies

    taken: set[str] = set()
    for result in results:
        stem = re.sub(r"[^\w.+-]+", "_", result.structure.id).strip("._") or "structure"
        name, count = stem, 1
        while name.lower() in taken:  # file systems that ignore upper and lower case
            count += 1
            name = f"{stem}-{count}"
        taken.add(name.lower())
        for kind in kinds:
            path = folder / f"{name}{_SUFFIXES[kind]}"
            if kind is _File.picture:
                draw_frequencies(path, result.frequencies, title=result.structure.id)
            else:
                result.write(path)
    return len(results) * len(kinds)
