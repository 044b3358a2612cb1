"""`hesse label`: compute energies, forces and curvature of structures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hesse.cli.common_options import ENGINE, MAX_SHOWN, QUIET, SCHEDULER, STRICT, print_remaining, workers_for
from hesse.runtime.progress import format_duration

if TYPE_CHECKING:
    from hesse.labelling import LabelPlan, LabelReport


def label(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Structures: .extxyz, .xyz, .h5, ...")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help=".h5 or .extxyz; the ledger is in the same folder.")],
    engine: Annotated[str, ENGINE],
    probes: Annotated[int, typer.Option(min=0, help="Hessian-vector products per structure.")] = 1,
    probe: Annotated[
        str,
        typer.Option(
            help="Kind of the directions; symmetry-adapted: those that determine the Hessian of each crystal."
        ),
    ] = "rademacher",
    hessian: Annotated[bool, typer.Option("--hessian", help="Also full Hessians.")] = False,
    stress: Annotated[bool, typer.Option("--stress", help="Also the stress (crystals).")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the random directions.")] = 0,
    step: Annotated[
        float | None, typer.Option(help="Å; step of finite differences. [default: from the noise of the engine]")
    ] = None,
    richardson: Annotated[
        bool, typer.Option("--richardson/--no-richardson", help="Four gradients per product instead of two.")
    ] = False,
    hessian_richardson: Annotated[
        bool, typer.Option("--hessian-richardson", help="Four gradients per Hessian column instead of two.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes on this machine, one thread each. [default: 1]")
    ] = None,
    scheduler: Annotated[str | None, SCHEDULER] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for one structure, then it counts as failed.")] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again structures that failed before.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N structures.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the missing labels and an estimate of the time; compute nothing.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT also if it is not the output of this command.")
    ] = False,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Compute energies, forces and curvature with an engine. The same command continues after an interruption and adds
    missing labels. Failures are recorded, and labels that fail a check are flagged suspect."""
    from hesse.datasets import read_dataset
    from hesse.engines import FiniteDifferences
    from hesse.errors import ConfigError, ExecutionError
    from hesse.labelling import LabelSpec, plan_labels
    from hesse.labelling import label as run_campaign
    from hesse.runtime.filesystem import check_output_path

    check_output_path(output, source)
    if workers is not None and scheduler is not None:
        raise ConfigError("give either --workers (processes on this machine) or --scheduler (a cluster), not both")
    spec = LabelSpec(n_probes=probes, probe=probe, seed=seed, hessian=hessian, stress=stress)
    differences = FiniteDifferences(step=step, richardson=richardson, hessian_richardson=hessian_richardson)
    dataset = read_dataset(source, check=False)
    structures = dataset.structures[:limit]
    if dry_run:
        plan = plan_labels(
            structures, engine, output, spec=spec, differences=differences, retry_failed=retry_failed,
            overwrite=overwrite,
        )  # fmt: skip
        _print_plan(source, plan, workers or 1)
        return
    report = run_campaign(
        structures,
        engine,
        output,
        spec=spec,
        differences=differences,
        workers=workers_for(workers, engine, structures, processes=scheduler is not None or timeout is not None),
        scheduler=scheduler,
        timeout=timeout,
        retry_failed=retry_failed,
        overwrite=overwrite,
        quiet=quiet,
    )
    _print_report(output, report)
    if len(report.suspects) == len(report.dataset):
        raise ExecutionError(
            f"no label can be used: all {len(report.dataset)} structures in {output} are flagged suspect, for the "
            "reasons above. Check the settings of the engine and the geometries."
        )


def _print_plan(source: Path, plan: LabelPlan, workers: int) -> None:
    counts = plan.count_missing()
    names = {"forces": "forces", "hvp": "Hessian-vector products", "hessian": "Hessians", "stress": "stresses"}
    typer.echo(f"{source}: {len(plan.keys)} structures; nothing was computed")
    typer.echo(f"  complete       {plan.n_complete}")
    typer.echo(f"  failed before  {len(plan.failed)}{' (--retry-failed tries again)' if plan.failed else ''}")
    requested = ", ".join(f"{counts[kind]} {name}" for kind, name in names.items() if counts[kind])
    typer.echo(f"  to compute     {len(plan.pending)}{': ' + requested if requested else ''}")
    if plan.n_partial:
        typer.echo(f"  of which       {plan.n_partial} have some labels")
    if not plan.pending:
        return
    if plan.seconds is None:
        typer.echo("  time           unknown: label a few with --limit first")
        return
    typer.echo(
        f"  time           about {format_duration(plan.seconds)} of the engine (from {plan.n_timings} timings), "
        f"{format_duration(plan.seconds / workers)} with {workers} worker{'s' if workers > 1 else ''}"
    )


def _print_report(output: Path, report: LabelReport) -> None:
    from hesse.labelling import ledger_path

    typer.echo(f"{output}: {len(report.dataset)} structures labeled ({report.dataset.metadata['level']})")
    if report.n_reused:
        typer.echo(f"  {report.n_reused} were in {ledger_path(output)} before")
    if report.n_partial:
        typer.echo(f"  {report.n_partial} had some labels before")
    for name, (median, largest) in report.curvature_errors().items():
        typer.echo(f"  {name} error: median {median:.1e}, largest {largest:.1e} eV/Å²")
    typer.echo(f"  {format_duration(report.seconds)}; {format_duration(report.engine_seconds)} of engine time in total")
    for note in report.notes:
        typer.echo(f"note: {note}", err=True)
    if report.suspects:
        typer.echo(
            f"{len(report.suspects)} structures are suspect (flagged in {output}; training and evaluation skip them):",
            err=True,
        )
        _print_reasons(report.suspects_by_reason())
    if report.failures:
        typer.echo(
            f"{len(report.failures)} structures failed (recorded in the ledger; --retry-failed tries again):", err=True
        )
        _print_reasons(report.failures_by_reason())


def _print_reasons(reasons: list[tuple[int, str]]) -> None:
    for times, reason in reasons[:MAX_SHOWN]:
        typer.echo(f"  {times} x {reason}", err=True)
    print_remaining(len(reasons))
