"""`hesse sample`: make geometries for labeling, and select among them."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hesse.cli.common_options import (
    ENGINE,
    OVERWRITE,
    QUIET,
    SCHEDULER,
    STRICT,
    WORKERS,
    open_input,
    print_failures,
    workers_for,
)

if TYPE_CHECKING:
    from hesse.datasets import Dataset
    from hesse.sampling import SamplingResult

sample = typer.Typer(name="sample", help="Make geometries for labeling, and select among them.", no_args_is_help=True)

Source = Annotated[Path, typer.Argument(metavar="IN", help="Molecules: .extxyz, .xyz, .h5, ...")]
Output = Annotated[Path, typer.Argument(metavar="OUT", help=".extxyz or .h5")]
Overwrite = Annotated[bool, OVERWRITE]
Reuse = Annotated[bool, typer.Option(help="Use Hessians in IN, if they are of the engine's level.")]


class _Imaginary(StrEnum):
    floor = "floor"
    freeze = "freeze"


class _Statistics(StrEnum):
    classical = "classical"
    quantum = "quantum"


class _Ensemble(StrEnum):
    langevin = "langevin"
    nve = "nve"


@sample.command()
def nms(
    source: Source,
    output: Output,
    temperature: Annotated[
        list[float] | None, typer.Option(help="K; may be given several times. [default: 300]")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Geometries per molecule and temperature.")] = 20,
    engine: Annotated[
        str, typer.Option(help="gfn2, ..., MODEL.hesse; or stored: the Hessians in IN as they are, no relaxation.")
    ] = "gfn2",
    seed: Annotated[int, typer.Option(help="Seed of the random displacements.")] = 0,
    relax: Annotated[bool, typer.Option(help="Relax first; the relaxed structure is included.")] = True,
    fmax: Annotated[float, typer.Option(help="eV/Å; largest force at the end of the relaxation.")] = 0.005,
    floor: Annotated[
        float, typer.Option(help="cm⁻¹; softer modes are displaced as if they had this frequency.")
    ] = 150.0,
    imaginary: Annotated[
        _Imaginary, typer.Option(help="Imaginary modes: displaced like real ones, or not displaced.")
    ] = (_Imaginary.floor),
    exclude_reaction: Annotated[
        bool, typer.Option("--exclude-reaction", help="No displacement along the reaction path (with --no-relax).")
    ] = False,
    statistics: Annotated[
        _Statistics, typer.Option(help="Classical, or with quantum zero-point motion (0 K is allowed).")
    ] = _Statistics.classical,
    reuse: Reuse = True,
    workers: Annotated[int | None, WORKERS] = None,
    scheduler: Annotated[str | None, SCHEDULER] = None,
    overwrite: Overwrite = False,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Normal-mode samples: thermal displacements of each molecule in the harmonic approximation."""
    from hesse.sampling import NormalModeSampling, sample_normal_modes

    sampling = NormalModeSampling(
        temperatures=tuple(temperature or (300.0,)),
        count=count,
        seed=seed,
        relax=relax,
        fmax=fmax,
        min_frequency=floor,
        imaginary=imaginary.value,
        project_out_path=exclude_reaction,
        statistics=statistics.value,
    )
    molecules = open_input(output, source, overwrite=overwrite)
    workers = workers_for(workers, engine, molecules.structures, processes=scheduler is not None)
    result = sample_normal_modes(
        molecules, engine, sampling, reuse=reuse, workers=workers, scheduler=scheduler, quiet=quiet
    )
    if result.saddles:
        typer.echo(f"relaxed to a saddle point: {', '.join(result.saddles)}", err=True)
    _write_samples(output, molecules, result, "normal modes", seed)


@sample.command()
def md(
    source: Source,
    output: Output,
    temperature: Annotated[
        list[float] | None, typer.Option(help="K; may be given several times. [default: 300]")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Geometries per run.")] = 20,
    stride: Annotated[int, typer.Option(min=1, help="Steps between two geometries.")] = 100,
    equilibration: Annotated[int, typer.Option(min=0, help="Steps before the first stride.")] = 1000,
    runs: Annotated[int, typer.Option(min=1, help="Independent runs per molecule and temperature.")] = 1,
    step: Annotated[float, typer.Option(help="fs; time step.")] = 0.5,
    ensemble: Annotated[_Ensemble, typer.Option(help="Constant temperature, or constant energy.")] = (
        _Ensemble.langevin
    ),
    friction: Annotated[float, typer.Option(help="1/fs; friction of langevin.")] = 0.01,
    stretch: Annotated[
        float | None, typer.Option(help="End a run when a bond exceeds this multiple of its length.")
    ] = None,
    engine: Annotated[str, ENGINE] = "gfn2",
    seed: Annotated[int, typer.Option(help="Seed of velocities and noise.")] = 0,
    relax: Annotated[bool, typer.Option(help="Relax first; the relaxed structure is included.")] = True,
    fmax: Annotated[float, typer.Option(help="eV/Å; largest force at the end of the relaxation.")] = 0.005,
    workers: Annotated[int | None, WORKERS] = None,
    scheduler: Annotated[str | None, SCHEDULER] = None,
    overwrite: Overwrite = False,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Molecular dynamics: geometries along trajectories, with their energies and forces."""
    from hesse.sampling import MDSampling, sample_md

    sampling = MDSampling(
        temperatures=tuple(temperature or (300.0,)),
        count=count,
        stride=stride,
        equilibration=equilibration,
        runs=runs,
        time_step=step,
        ensemble=ensemble.value,
        friction=friction,
        max_bond_stretch=stretch,
        seed=seed,
        relax=relax,
        fmax=fmax,
    )
    molecules = open_input(output, source, overwrite=overwrite)
    result = sample_md(molecules, engine, sampling, workers=workers, scheduler=scheduler, quiet=quiet)
    if not quiet:
        for run in result.runs:
            typer.echo(str(run), err=True)
    _write_samples(output, molecules, result, "dynamics", seed)


@sample.command()
def rattle(
    source: Source,
    output: Output,
    size: Annotated[list[float] | None, typer.Option(help="Å; standard deviation; may be given several times.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Geometries per structure and size.")] = 20,
    strain: Annotated[float, typer.Option(help="Standard deviation of the strain of the cell (crystals).")] = 0.0,
    closest: Annotated[float, typer.Option(help="No atoms closer than this fraction of their covalent radii.")] = 0.6,
    seed: Annotated[int, typer.Option(help="Seed of the random displacements.")] = 0,
    overwrite: Overwrite = False,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Rattled structures: Gaussian displacements of all atoms, and strained cells. No engine is needed."""
    from hesse.sampling import RattleSampling, sample_rattled

    sampling = RattleSampling(
        sizes=tuple(size or ((0.0,) if strain else (0.05,))), count=count, strain=strain, min_contact=closest, seed=seed
    )
    molecules = open_input(output, source, overwrite=overwrite)
    _write_samples(output, molecules, sample_rattled(molecules, sampling, quiet=quiet), "rattling", seed)


@sample.command()
def irc(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Guesses of transition states.")],
    output: Output,
    engine: Annotated[str, ENGINE] = "gfn2",
    search: Annotated[bool, typer.Option(help="Search the transition state of the engine first.")] = True,
    step: Annotated[float, typer.Option(help="Å √u; length of a step along the path.")] = 0.1,
    steps: Annotated[int, typer.Option(min=1, help="Largest number of steps of each half.")] = 200,
    fmax: Annotated[float, typer.Option(help="eV/Å; largest force at the ends.")] = 0.02,
    count: Annotated[
        int | None, typer.Option(min=1, help="Number of points per half, evenly spread. [default: all]")
    ] = None,
    reuse: Reuse = True,
    workers: Annotated[int | None, WORKERS] = None,
    scheduler: Annotated[str | None, SCHEDULER] = None,
    overwrite: Overwrite = False,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Reaction paths from transition states in both directions, with energies and forces."""
    from hesse.sampling import PathSampling, sample_paths

    sampling = PathSampling(search=search, step=step, steps=steps, fmax=fmax, count=count)
    guesses = open_input(output, source, overwrite=overwrite)
    result = sample_paths(guesses, engine, sampling, reuse=reuse, workers=workers, scheduler=scheduler, quiet=quiet)
    _write_samples(output, guesses, result, "reaction paths", None)


@sample.command()
def select(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Structures, labeled or not.")],
    output: Output,
    tolerance: Annotated[float, typer.Option(help="Å; closer structures are duplicates. 0 keeps them.")] = 0.05,
    window: Annotated[
        float | None, typer.Option(help="eV above the lowest energy of the group; needs energies.")
    ] = None,
    per_group: Annotated[
        int | None, typer.Option(min=1, help="At most this number per group, the most different ones.")
    ] = (None),
    count: Annotated[
        int | None, typer.Option(min=1, help="At most this number in total, the most different ones.")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not print the numbers of rejected structures.")] = False,
) -> None:
    """Select structures: no duplicates, energies within a window, the most different ones. Labels are kept."""
    from hesse.datasets import write_dataset
    from hesse.errors import ExecutionError
    from hesse.sampling import SelectionCriteria, select_structures

    selection = SelectionCriteria(
        tolerance=None if tolerance == 0 else tolerance, energy_window=window, per_group=per_group, count=count
    )
    dataset = open_input(output, source, overwrite=overwrite)
    energies = None
    if dataset.labels.energy is not None:
        energies = dataset.labels.energy.where(dataset.labels.mask("energy"), float("nan")).numpy()
    result = select_structures(dataset.structures, selection, energies=energies)
    counts = Counter(d.step for d in result.rejected)
    if not quiet:
        for name, words in _REJECTION_WORDS.items():
            if counts[name]:
                typer.echo(f"left out: {counts[name]} {words}", err=True)
    if not result.selected:
        raise ExecutionError(f"none of {len(dataset)} structures is left; the reasons are above")
    write_dataset(output, dataset.select(result.selected))
    typer.echo(f"{output}: {len(result.selected)} of {len(dataset)} structures kept")


_REJECTION_WORDS = {
    "window": "outside the energy window (or without energy)",
    "duplicate": "duplicates",
    "per group": "beyond the number per group",
    "count": "beyond the number in total",
}


def _write_samples(output: Path, molecules: Dataset, result: SamplingResult, method: str, seed: int | None) -> None:
    from hesse._version import __version__
    from hesse.datasets import write_dataset
    from hesse.errors import ExecutionError

    print_failures([f"not sampled: {failure.id}: {failure.reason}" for failure in result.failures])
    if not result.structures:
        raise ExecutionError(f"none of {len(molecules)} molecules could be sampled; the reasons are above")
    if result.n_reused:
        typer.echo(f"{result.n_reused} Hessians were in the input", err=True)
    attributes = {"sampling": method, "code_version": __version__}
    if result.level:
        attributes["sampling_level"] = result.level
    if seed is not None:
        attributes["sampling_seed"] = str(seed)
    write_dataset(output, result.dataset(**attributes))
    sampled_of = (
        f"{result.n_sampled}" if result.n_sampled == len(molecules) else f"{result.n_sampled} of {len(molecules)}"
    )
    level = f" ({result.level})" if result.level else ""
    typer.echo(f"{output}: {len(result.structures)} geometries of {sampled_of} molecules{level}")
