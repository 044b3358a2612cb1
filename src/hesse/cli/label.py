"""`hesse label`: from structures to labelled structures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hesse.cli.app import app
from hesse.cli.options import ENGINE, QUIET, SHOWN, WORKERS, and_more


@app.command()
def label(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Structures: .extxyz, .xyz, .h5, ...")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help=".h5 or .extxyz; the ledger lies beside it.")],
    engine: Annotated[str, ENGINE],
    probes: Annotated[int, typer.Option(min=0, help="Hessian-vector products per structure.")] = 1,
    probe: Annotated[str, typer.Option(help="Family of random directions.")] = "rademacher",
    hessian: Annotated[bool, typer.Option("--hessian", help="Full Hessians too.")] = False,
    stress: Annotated[bool, typer.Option("--stress", help="Stress too (crystals).")] = False,
    seed: Annotated[int, typer.Option(help="Of the probes.")] = 0,
    step: Annotated[float, typer.Option(help="Å; step of finite differences.")] = 1e-3,
    richardson: Annotated[bool, typer.Option(help="Four gradients per product instead of two.")] = True,
    hessian_richardson: Annotated[
        bool, typer.Option("--hessian-richardson", help="Four gradients per Hessian column instead of two.")
    ] = False,
    workers: Annotated[int, WORKERS] = 1,
    timeout: Annotated[float | None, typer.Option(help="Seconds for one structure, then it counts as failed.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask again for what failed before.")] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Energies, forces and curvature from an engine. Interrupted, the same command continues; failures are records."""
    from hesse.datasets import read_dataset
    from hesse.engines import Differences
    from hesse.files import require_target
    from hesse.labelling import LabelRequest, ledger_path
    from hesse.labelling import label as run_campaign

    require_target(output, source)
    request = LabelRequest(probes=probes, probe=probe, seed=seed, hessian=hessian, stress=stress)
    differences = Differences(step=step, richardson=richardson, hessian_richardson=hessian_richardson)
    report = run_campaign(
        read_dataset(source, check=False),
        engine,
        output,
        request=request,
        differences=differences,
        workers=workers,
        timeout=timeout,
        retry_failed=retry_failed,
        quiet=quiet,
    )
    labels = report.dataset.labels
    typer.echo(f"{output}: {len(report.dataset)} structures labelled ({report.dataset.attributes['level']})")
    if report.reused:
        typer.echo(f"  {report.reused} were in {ledger_path(output)} before")
    for name, error in (("hvp", labels.hvp_error), ("hessian", labels.hessian_error)):
        if error is not None:
            typer.echo(f"  {name} error: median {error.nanmedian():.1e}, largest {error.max():.1e} eV/Å²")
    if report.failures:
        typer.echo(
            f"{len(report.failures)} structures failed (kept in the ledger; --retry-failed asks again):", err=True
        )
        reasons = report.failures_by_reason()
        for times, reason in reasons[:SHOWN]:
            typer.echo(f"  {times} x {reason}", err=True)
        and_more(len(reasons))
