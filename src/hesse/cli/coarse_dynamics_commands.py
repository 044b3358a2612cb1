"""`hesse coarse md` and `hesse coarse compare`: dynamics of beads, and their judgement beside the mapped reference."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hesse.cli.common_options import OVERWRITE, QUIET

__all__ = ["compare", "md"]

if TYPE_CHECKING:
    from hesse.coarse import BeadComparison, StatePointComparison


def md(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model of the beads: MODEL.hesse.")],
    source: Annotated[
        Path, typer.Argument(metavar="BEADS", help="Mapped frames; the last one of each state point is the start.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Trajectories: .h5 or .extxyz")],
    time: Annotated[float, typer.Option(help="ps")] = 10.0,
    step: Annotated[float, typer.Option(help="fs; time step.")] = 4.0,
    friction: Annotated[float, typer.Option(help="1/fs")] = 0.01,
    temperature: Annotated[float | None, typer.Option(help="K. [that of each state point]")] = None,
    state_point: Annotated[
        list[str] | None, typer.Option(help='Only this one, such as "300K 1.000g/cm3"; may be given several times.')
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Copies of the box along each lattice vector.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each state point, which move together.")] = 1,
    stride: Annotated[int, typer.Option(min=1, help="Steps between frames in OUT.")] = 50,
    compile: Annotated[
        bool, typer.Option("--compile", help="Translate the forces to machine code first: for long runs.")
    ] = False,
    pressure: Annotated[bool, typer.Option("--pressure", help="Also the pressure of the virial.")] = False,
    overwrite: Annotated[bool, OVERWRITE] = False,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the rows as JSON.")] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Langevin dynamics of periodic boxes of beads.

    The same command continues after an interruption: the runs are kept in the folder OUT.replicas. Times are not those
    of the molecules: beads lack the friction of the atoms that were left out."""
    from hesse.cli.common_options import open_input
    from hesse.cli.option_checks import check_positive, check_results
    from hesse.coarse import run_beads, virial_pressures
    from hesse.datasets import write_dataset
    from hesse.errors import ConfigError, ExecutionError
    from hesse.runtime.filesystem import write_rows

    check_positive("ps", time=time)
    check_positive("fs", step=step)
    check_positive("1/fs", friction=friction)
    check_positive("K", temperature=temperature)
    steps = round(1000.0 * time / step)
    if steps < 1:
        raise ConfigError(f"--time: {time:g} ps is less than a time step (--step) of {step:g} fs")
    check_results(output, json, inputs=(source,))
    if stride > steps:
        typer.echo(f"--stride {stride} is longer than a run of {steps} steps: only its first frame is kept", err=True)
    beads = open_input(output, source, overwrite=overwrite)
    run = run_beads(
        beads,
        model,
        output,
        temperature=temperature,
        state_points=state_point,
        repeat=repeat,
        seeds=seeds,
        time=time,
        time_step=step,
        friction=friction,
        stride=stride,
        compile=compile,
        quiet=quiet,
    )
    if run.dataset is not None:
        write_dataset(output, run.dataset)
    rows = list(run.rows)
    for row in rows:
        failed = "" if row["survived"] else f"; {row['reason']}: {row['detail']}"
        kelvin = f", mean {row['mean_temperature']:.1f} K" if row["mean_temperature"] is not None else ""
        typer.echo(f"{row['id']}: {row['time'] or 0.0:.4g} ps{kelvin}{failed}")
    if pressure and run.dataset is not None:
        for tag in dict.fromkeys(row["state_point"] for row in rows):
            frames = [s for s in run.dataset.structures if s.tag == tag]
            bars = virial_pressures(frames[len(frames) // 2 :], model, temperature=temperature)
            typer.echo(f"{tag or 'pressure'}: virial {bars.mean():.0f} bar in the second half (not that of the atoms)")
            rows = [row | {"virial_bar": float(bars.mean())} if row["state_point"] == tag else row for row in rows]
    if run.bead_steps_per_second is not None:
        typer.echo(f"{run.bead_steps_per_second:.3g} beads x steps per second")
    if json is not None:
        write_rows(json, rows)
    if not any(row["survived"] for row in rows):
        raise ExecutionError(f"every run failed ({len(rows)} of {len(rows)}); the reasons are above")


def compare(
    model: Annotated[Path, typer.Argument(metavar="TRAJECTORY", help="Frames of hesse coarse md.")],
    reference: Annotated[Path, typer.Option(help="Mapped frames of the all-atom trajectory.")],
    r_max: Annotated[float | None, typer.Option(help="Å; largest distance of g(r). [half the cell]")] = None,
    bins: Annotated[int, typer.Option(min=2, help="Bins of g(r).")] = 100,
    angle_cutoff: Annotated[
        float | None, typer.Option(help="Å; angles between neighbors up to here. [first minimum of g(r)]")
    ] = None,
    skip: Annotated[float, typer.Option(min=0.0, help="ps left out at the start of each run of the model.")] = 0.0,
    frame_time: Annotated[float | None, typer.Option(help="ps between frames of the model. [from the file]")] = None,
    reference_frame_time: Annotated[
        float | None, typer.Option(help="ps between frames of the reference. [from the file]")
    ] = None,
    blocks: Annotated[
        int | None, typer.Option(min=3, help="Blocks of frames for the errors, of at least 4 frames. [10 or fewer]")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Also draw the curves: .png or .svg")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the numbers as JSON.")] = None,
) -> None:
    """Distributions of distances and angles of a model beside the mapped reference, with errors.

    The noise is the difference that two perfect runs of these lengths would have."""
    from hesse.cli.option_checks import check_positive, check_results
    from hesse.coarse import compare_beads
    from hesse.runtime.filesystem import write_rows

    check_positive("Å", r_max=r_max, angle_cutoff=angle_cutoff)
    check_positive("ps", frame_time=frame_time, reference_frame_time=reference_frame_time)
    check_results(json, picture=figure, inputs=(model, reference))
    comparison = compare_beads(
        model,
        reference,
        r_max=r_max,
        bins=bins,
        angle_cutoff=angle_cutoff,
        skip=skip,
        frame_time=frame_time,
        reference_frame_time=reference_frame_time,
        blocks=blocks,
    )
    _print(comparison)
    if json is not None:
        write_rows(json, comparison.rows)
    if figure is not None:
        from hesse.reports import draw_bead_comparison

        draw_bead_comparison(comparison, figure)


def _print(found: BeadComparison) -> None:
    for point in found.points:
        typer.echo(
            f"{point.name or 'all frames'}: {point.frames} frames of the model, {point.reference_frames} of the "
            "reference"
        )
        if point.failed_runs:
            typer.echo(
                f"  the frames include those of runs that failed, up to the failure: {', '.join(point.failed_runs)}"
            )
        for curve in point.curves:
            if curve.significant is None:
                noise = "noise unknown: too few frames (12 of each are needed)"
            else:
                verdict = "" if curve.significant else ": less than twice the noise"
                noise = f"noise {curve.noise:.2g}; without noise {curve.low:.2g} to {curve.high:.2g}{verdict}"
            typer.echo(f"  {curve.name}: difference {curve.error:.3g}, {noise}")
        _print_peaks(point)
    if found.missing:
        typer.echo(f"not compared, without frames of the model: {', '.join(found.missing)}")


def _print_peaks(point: StatePointComparison) -> None:
    for pair, (ours, theirs) in point.peaks.items():
        typer.echo(
            f"  highest peak {pair}: {ours[0]:.2f} Å, g {ours[1]:.2f}, {ours[2]:.1f} neighbors; reference "
            f"{theirs[0]:.2f} Å, {theirs[1]:.2f}, {theirs[2]:.1f} (up to {point.cutoffs[pair]:.2f} Å)"
        )
    if math.isfinite(point.speed_up):
        typer.echo(f"  beads diffuse {point.speed_up:.2g} times as fast: their time is not that of the molecules")
        return
    options = ("--frame-time", "--reference-frame-time")
    missing = [option for option, known in zip(options, point.frame_times, strict=True) if known is None]
    reason = f"give {' and '.join(missing)}" if missing else "the runs are too short"
    typer.echo(f"  diffusion not compared: {reason}")
