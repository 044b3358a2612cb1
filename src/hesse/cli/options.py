"""Options and small replies that several verbs share."""

from __future__ import annotations

import typer

__all__ = ["ENGINE", "QUIET", "SCHEDULER", "SHOWN", "WORKERS", "and_more"]

ENGINE = typer.Option("--engine", help="gfn2, gfn1, pyscf:METHOD/BASIS, ase:package.module:factory or model:PATH.")
WORKERS = typer.Option("--workers", min=1, help="Processes, one thread each.")
SCHEDULER = typer.Option(
    "--scheduler", metavar="ADDRESS", help="A dask cluster instead: tcp://host:8786, or its scheduler file."
)
QUIET = typer.Option("--quiet", help="No progress.")

SHOWN = 10
"""Failures told one by one."""


def and_more(count: int) -> None:
    """Tell how many of `count` failures were not told one by one."""
    if count > SHOWN:
        typer.echo(f"  ... and {count - SHOWN} more", err=True)
