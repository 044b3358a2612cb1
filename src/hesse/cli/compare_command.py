"""`hesse compare`: statistics of several runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hesse.cli.common_options import QUIET, STRICT, print_failures

if TYPE_CHECKING:
    from hesse.studies.study_config import Label


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="The folder of a study, or folders of runs.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Test set; several times for several. [default: those of the study, or the runs' validation data]"
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Variant to compare with, the folder of a run, or AXIS=VALUE. [default: the first scheme, or run]",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of page, Markdown, CSV and JSON. [default: comparison in the study]")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the changes to this file, as a list of rows.")] = None,
    suite: Annotated[
        str, typer.Option(help="What is judged, except on the test sets of a study: basic, curvature, ...")
    ] = "basic",
    hessian: Annotated[bool, typer.Option(help="Errors of Hessians, if the data have them.")] = True,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Compare runs that differ in schemes, options or data, with repetitions of several seeds: errors, changes with
    intervals and paired tests, learning curves and costs."""
    from hesse.errors import RequestError
    from hesse.reports import print_tables
    from hesse.runtime.filesystem import check_output_path, write_rows
    from hesse.studies import compare as compare_runs
    from hesse.studies.comparison_tables import comparison_tables
    from hesse.studies.study import STUDY_FILE

    if json is not None:
        check_output_path(json)
    if out is not None and out.exists() and not out.is_dir():
        raise RequestError(f"--out: {out} is a file; expected a folder, which is created if it is missing")
    result = compare_runs(
        [str(run) for run in runs], data=[str(file) for file in data or []], baseline=_baseline(baseline),
        suite=suite, hessian=hessian, quiet=quiet,  # type: ignore[arg-type]  # checked there
    )  # fmt: skip
    if out is None and len(runs) == 1 and (runs[0] / STUDY_FILE).exists():
        out = runs[0] / "comparison"
    files = result.write(out) if out is not None else ()
    if json is not None:
        write_rows(json, result.changes)
    print_tables(comparison_tables(result))
    if not result.is_study:
        for name, members in result.variants.items():
            typer.echo(f"{name} = {', '.join(str(run.folder) for run in members)}")
    for text in (*result.verdicts, *result.crossings, *(f"note: {note}" for note in result.notes)):
        typer.echo(text)
    print_failures([f"failed: {name}: {reason}" for name, reason in result.failed.items()])
    if result.missing:
        typer.echo(f"{len(result.missing)} cells are not done yet: {', '.join(result.missing[:5])}", err=True)
    if files:
        typer.echo(f"report: {files[0]}")


def _baseline(text: str | None) -> str | dict[str, Label] | None:
    """The name of a variant, the folder of a run, or values of axes: `scheme=ef,network=ani`."""
    if text is None or "=" not in text or Path(text).is_dir():
        return text
    from hesse.errors import ConfigError
    from hesse.runtime.yaml_text import parse_yaml

    result: dict[str, Label] = {}
    for word in text.split(","):
        axis, equals, value = word.partition("=")
        label = parse_yaml(value, f'--baseline "{word}"', error_type=ConfigError)
        if not equals or not axis or not isinstance(label, str | int | float):
            raise ConfigError(f'--baseline: expected a name, or AXIS=VALUE, for example scheme=ef, got "{word}"')
        result[axis.strip()] = label
    return result
