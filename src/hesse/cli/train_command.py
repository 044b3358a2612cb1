"""`hesse train`: train one potential from a configuration file."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hesse.cli.common_options import STRICT
from hesse.errors import ConfigError, HesseError, NotReadWarning

if TYPE_CHECKING:
    from hesse.training import RunConfig, TrainResult


def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="YAML file of options; docs/training.md lists them all.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Options that override the file.")
    ] = None,
    devices: Annotated[
        int, typer.Option(min=1, help="Processes that share every step: one GPU each, or the cores of the machine.")
    ] = 1,
    restart: Annotated[bool, typer.Option(help="Start again, even if the output folder contains a run.")] = False,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Train one potential. After an interruption the same command continues, with any number of processes."""
    from hesse.training import load_config
    from hesse.training.launcher import launch
    from hesse.training.rank_info import rank_from_environment

    settings = load_config(config, overrides or [])
    if devices == 1:
        _run_training(settings, restart=restart, quiet=quiet)
        return
    if rank_from_environment(os.environ) is not None:
        raise ConfigError("--devices starts processes, and this is one of several already: leave it out here")
    options = [*(["--restart"] if restart else []), *(["--strict"] if strict else []), *(["--quiet"] if quiet else [])]
    code = launch(["train", *options, "--", str(config), *(overrides or [])], devices, settings)
    if code:
        raise typer.Exit(code)


def _run_training(settings: RunConfig, *, restart: bool, quiet: bool) -> None:
    """Train in this process, alone or together with others."""
    from hesse.training.config_file import run_from_config
    from hesse.training.distributed import init_distributed

    with init_distributed(settings.device) as processes:
        if not processes.is_rank_zero:  # the first process says it
            warnings.filterwarnings("ignore", category=NotReadWarning, append=True)
        try:
            result = run_from_config(settings, restart=restart, quiet=quiet, communicator=processes)
        except BaseException as error:
            if processes.should_report(error):
                raise
            raise typer.Exit(error.exit_code if isinstance(error, HesseError) else 1) from None
    if processes.is_rank_zero:
        _print_result(result)


def _print_result(result: TrainResult) -> None:
    if result.has_validation:
        typer.echo(f"{result.model_file}: best of {result.steps} steps at step {result.best_step}")
    else:
        typer.echo(f"{result.model_file}: the model after the last of {result.steps} steps (no validation)")
    if result.best_is_early:
        typer.echo(
            f"warning: the best step is early, {result.best_step} of {result.steps}: the rest of the run made the "
            "validation loss worse. Few or special structures are held out (see the first lines of the run), or the "
            "network overfits: add data, or compare with last.hesse on a test set (hesse evaluate).",
            err=True,
        )
    if result.n_suspect_skipped:
        typer.echo(
            f"  {result.n_suspect_skipped} structures with suspect labels were left out "
            "(include_flagged=true uses them)"
        )
    from hesse.training.train_result import score_units

    units = {f"{name}_rmse": unit for name, unit in score_units().items() if name != "hessian"}
    for name, value in result.scores.items():
        if name in units:
            error = result.scores.get(f"{name}_standard_error")
            shown = f"{value:.5g}" if error is None else f"{value:.5g} ± {error:.1g}"
            typer.echo(f"  validation {name:<22} {shown} {units[name]}")
    for text in result.terms_without_error():
        typer.echo(f"  training term {text}")
