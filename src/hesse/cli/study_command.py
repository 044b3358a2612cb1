"""`hesse study`: train and evaluate a matrix of runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hesse.cli.common_options import QUIET, SCHEDULER, STRICT, print_failures

if TYPE_CHECKING:
    from hesse.studies import StudyResult


def study(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file; docs/studies.md explains it.")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, one thread each. [default: one for each core]")
    ] = None,
    scheduler: Annotated[str | None, SCHEDULER] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try cells again that failed before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells; train nothing.")] = False,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Train and evaluate every combination of schemes, probes, networks, seeds, parts of the data and any options. The
    same command continues an interrupted study; failures are recorded, and the other cells go on."""
    from hesse.errors import ConfigError, ExecutionError
    from hesse.studies import plan_study, run_study

    if workers is not None and scheduler is not None:
        raise ConfigError("give either --workers (processes on this machine) or --scheduler (a cluster), not both")
    if dry_run:
        _print_plan(plan_study(config, retry_failed=retry_failed))
        return
    result = run_study(config, workers=workers, scheduler=scheduler, retry_failed=retry_failed, quiet=quiet)
    print_failures([f"{name}: {reason}" for name, reason in result.failed.items()])
    typer.echo(
        f"{result.output}: {len(result.finished)} of {len(result.cells)} cells done, {len(result.failed)} failed"
    )
    if result.finished:
        typer.echo(f"compare them with: hesse compare {result.output}")
    if result.failed and not result.finished:
        raise ExecutionError("every cell failed; --retry-failed tries again")


def _print_plan(plan: StudyResult) -> None:
    for cell in plan.cells:
        state = "failed" if cell.name in plan.failed else "done" if cell.name in plan.finished else "to do"
        typer.echo(f"{state:<7} {cell.name}")
    typer.echo(
        f"{len(plan.cells)} cells: {len(plan.finished)} done, {len(plan.failed)} failed, {len(plan.pending)} to do"
    )
