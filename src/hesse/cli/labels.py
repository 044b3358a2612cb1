"""`hesse sample` and `hesse label`: from molecules to labelled structures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hesse.cli.app import app

sample = typer.Typer(name="sample", help="Make geometries worth labelling.", no_args_is_help=True)
app.add_typer(sample)

_ENGINE = typer.Option("--engine", help="gfn2, gfn1, ase:package.module:factory or model:PATH.")
_WORKERS = typer.Option("--workers", min=1, help="Processes, one thread each.")
_QUIET = typer.Option("--quiet", help="No progress.")


@sample.command()
def nms(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Molecules: .extxyz, .xyz, .h5, ...")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help=".extxyz or .h5")],
    temperature: Annotated[list[float] | None, typer.Option(help="K; may be given several times.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Geometries per molecule and temperature.")] = 20,
    engine: Annotated[str, _ENGINE] = "gfn2",
    seed: Annotated[int, typer.Option(help="Of the random displacements.")] = 0,
    relax: Annotated[bool, typer.Option(help="Relax first, and keep the relaxed structure.")] = True,
    fmax: Annotated[float, typer.Option(help="eV/Å; relaxation ends below it.")] = 0.005,
    floor: Annotated[float, typer.Option(help="cm⁻¹; softer modes are displaced as if they had this.")] = 150.0,
    workers: Annotated[int, _WORKERS] = 1,
    quiet: Annotated[bool, _QUIET] = False,
) -> None:
    """Normal-mode samples: displacements of each molecule as its harmonic well has them at a temperature."""
    from hesse import __version__
    from hesse.datasets import Dataset, read_dataset, require_writable_suffix, write_dataset
    from hesse.errors import WorkError
    from hesse.files import require_target
    from hesse.sampling import NormalModeSampling, sample_normal_modes
    from hesse.structures import Labels

    sampling = NormalModeSampling(
        temperatures=tuple(temperature or (300.0,)), count=count, seed=seed, relax=relax, fmax=fmax, floor=floor
    )
    require_writable_suffix(output)
    require_target(output, source)
    molecules = read_dataset(source, check=False).structures
    result = sample_normal_modes(molecules, engine, sampling, workers=workers, quiet=quiet)
    for failure in result.failures[:_SHOWN]:
        typer.echo(f"not sampled: {failure.id}: {failure.reason}", err=True)
    _and_more(len(result.failures))
    if result.saddles:
        typer.echo(f"relaxed to a saddle point: {', '.join(result.saddles)}", err=True)
    if not result.structures:
        raise WorkError(f"none of {len(molecules)} molecules could be sampled; the reasons are above")
    made = Dataset(
        result.structures,
        Labels.concatenate([Labels.of(len(s)) for s in result.structures]),
        attributes={
            "sampling": "normal modes",
            "sampling_level": result.level,
            "sampling_seed": str(seed),
            "code_version": __version__,
        },
    )
    write_dataset(output, made)
    sampled = len({s.group for s in made.structures})
    of = f"{sampled}" if sampled == len(molecules) else f"{sampled} of {len(molecules)}"
    typer.echo(f"{output}: {len(made)} geometries of {of} molecules ({result.level})")


@app.command()
def label(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Structures: .extxyz, .xyz, .h5, ...")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help=".h5 or .extxyz; the ledger lies beside it.")],
    engine: Annotated[str, _ENGINE],
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
    workers: Annotated[int, _WORKERS] = 1,
    timeout: Annotated[float | None, typer.Option(help="Seconds for one structure, then it counts as failed.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask again for what failed before.")] = False,
    quiet: Annotated[bool, _QUIET] = False,
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
        for times, reason in reasons[:_SHOWN]:
            typer.echo(f"  {times} x {reason}", err=True)
        _and_more(len(reasons))


_SHOWN = 10
"""Failures told one by one."""


def _and_more(count: int) -> None:
    if count > _SHOWN:
        typer.echo(f"  ... and {count - _SHOWN} more", err=True)
