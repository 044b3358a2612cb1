"""`hesse sample`: geometries worth labelling."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hesse.cli.app import app
from hesse.cli.options import ENGINE, QUIET, SHOWN, WORKERS, and_more

sample = typer.Typer(name="sample", help="Make geometries worth labelling.", no_args_is_help=True)
app.add_typer(sample)


@sample.command()
def nms(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Molecules: .extxyz, .xyz, .h5, ...")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help=".extxyz or .h5")],
    temperature: Annotated[list[float] | None, typer.Option(help="K; may be given several times.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Geometries per molecule and temperature.")] = 20,
    engine: Annotated[str, ENGINE] = "gfn2",
    seed: Annotated[int, typer.Option(help="Of the random displacements.")] = 0,
    relax: Annotated[bool, typer.Option(help="Relax first, and keep the relaxed structure.")] = True,
    fmax: Annotated[float, typer.Option(help="eV/Å; relaxation ends below it.")] = 0.005,
    floor: Annotated[float, typer.Option(help="cm⁻¹; softer modes are displaced as if they had this.")] = 150.0,
    workers: Annotated[int, WORKERS] = 1,
    quiet: Annotated[bool, QUIET] = False,
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
    for failure in result.failures[:SHOWN]:
        typer.echo(f"not sampled: {failure.id}: {failure.reason}", err=True)
    and_more(len(result.failures))
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
