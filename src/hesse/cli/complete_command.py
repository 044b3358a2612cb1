"""`hesse complete`: full Hessians from stored Hessian-vector products."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hesse.cli.common_options import OVERWRITE, QUIET, STRICT, open_input, print_failures


def complete(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Structures with products H v: .h5, .extxyz, ...")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help=".extxyz or .h5")],
    prior: Annotated[
        str | None, typer.Option(help="Correct the Hessians of this engine or model. [default: typical values]")
    ] = None,
    min_pairs: Annotated[int, typer.Option(min=1, help="Least number of products of a structure.")] = 2,
    max_error: Annotated[
        float | None, typer.Option(help="eV/Å²; leave out Hessians of a larger estimated error.")
    ] = None,
    overwrite: Annotated[bool, OVERWRITE] = False,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the rows as JSON.")] = None,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Complete full Hessians from stored products, each with an estimate of its error.

    The error is found by predicting each product from all others. Structures that have a Hessian keep it."""
    from hesse.datasets import write_dataset
    from hesse.errors import ExecutionError, RequestError
    from hesse.labelling import complete_hessians, summary_lines
    from hesse.runtime.filesystem import check_output_path, write_rows

    if json is not None:
        check_output_path(json, source)
        if json.absolute() == output.absolute():
            raise RequestError(f"OUT and --json are both {output}; choose another file for --json")
    data = open_input(output, source, overwrite=overwrite)
    result = complete_hessians(data, prior=prior, min_pairs=min_pairs, max_error=max_error, quiet=quiet)
    print_failures([f"not completed: {row['id']}: {row['reason']}" for row in result.rows if row["status"] == "failed"])
    if json is not None:
        write_rows(json, result.rows)
    if all(row["status"] == "failed" for row in result.rows):
        raise ExecutionError(f"none of {len(result.rows)} Hessians could be completed; the reasons are above")
    write_dataset(output, result.dataset)
    typer.echo(f"{output}: {result.n_completed} of {len(result.rows)} Hessians completed")
    for line in summary_lines(result.rows):
        typer.echo(line)
