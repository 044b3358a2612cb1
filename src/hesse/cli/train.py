"""`hesse train`: one run from a configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hesse.cli.app import app


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML file of options; docs/training.md lists them all.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Options that win over the file.")
    ] = None,
    restart: Annotated[bool, typer.Option(help="Begin again although the output folder holds a run.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Train one potential. Interrupted, the same command continues it."""
    from hesse.training import load_config
    from hesse.training.run import run

    settings = load_config(config, overrides or [])
    result = run(settings, restart=restart, quiet=quiet)
    typer.echo(f"{result.model_file}: best of {result.steps} steps at step {result.best_step}")
    if result.left_out:
        typer.echo(f"  {result.left_out} structures with suspect labels were left out (include_suspect=true uses them)")
    units = {"energy_rmse": "eV", "energy_per_atom_rmse": "eV", "forces_rmse": "eV/Å", "hvp_rmse": "eV/Å²"}
    for name, value in result.scores.items():
        if name in units:
            typer.echo(f"  validation {name:<22} {value:.5g} {units[name]}")
