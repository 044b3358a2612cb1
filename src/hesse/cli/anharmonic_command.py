"""`hesse anharmonic`: self-consistent phonons of crystals at temperatures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hesse.cli.common_options import QUIET


def anharmonic(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CRYSTAL",
            help="POSCAR, .cif, .extxyz, ...; or files or a folder of phonopy, or dynamical matrices of ph.x.",
        ),
    ],
    engine: Annotated[
        str | None, typer.Option(help="MODEL.hesse, ase:package.module:factory, ... Without it --ensemble is needed.")
    ] = None,
    temperature: Annotated[
        list[float] | None, typer.Option(help="K; may be given several times. [default: 300]")
    ] = None,
    supercell: Annotated[
        tuple[int, int, int] | None,
        typer.Option(help="Repetitions of the cell. [default: at least 10 Å, or that of phonopy's files]"),
    ] = None,
    snapshots: Annotated[int, typer.Option(help="Displaced supercells of each round, an even number.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="Largest number of rounds.")] = 10,
    tolerance: Annotated[float, typer.Option(help="THz; a change of a frequency that counts as none.")] = 0.02,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the displacements.")] = 0,
    ensemble: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="In place of an engine: displaced supercells of the phonons CRYSTAL, with energies and forces.",
        ),
    ] = None,
    drawn_at: Annotated[
        float | None, typer.Option(help="K; temperature at which --ensemble was drawn. [default: the most likely one]")
    ] = None,
    relax: Annotated[bool, typer.Option("--relax", help="Relax the atoms first, with the engine.")] = False,
    relax_cell: Annotated[bool, typer.Option("--relax-cell", help="Relax atoms and cell first.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the bands of the first temperature above the harmonic ones: .png, .svg.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of phonopy's files of each temperature, and of energies and forces: it can continue."
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write a row for each temperature to this file.")] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Phonons of an anharmonic crystal: the harmonic crystal that describes it best at a temperature, and its free
    energy, with statistical errors."""
    import warnings

    from hesse.errors import HarmonicWarning, RequestError
    from hesse.lattice import anharmonic as compute
    from hesse.lattice import anharmonic_ensemble, check_anharmonic_options, phonons, read_phonons
    from hesse.runtime.filesystem import check_output_path, write_rows

    for path in (json, plot):
        if path is not None:
            check_output_path(path)
    if (engine is None) == (ensemble is None):
        raise RequestError("give either an engine or a model (--engine), or displaced supercells (--ensemble)")
    if ensemble is not None and (relax or relax_cell or supercell is not None):
        raise RequestError("--relax, --relax-cell and --supercell need an engine: displaced supercells are as they are")
    if ensemble is None and drawn_at is not None:
        raise RequestError("--drawn-at is the temperature of displaced supercells: give them with --ensemble")
    for value in temperature or [300.0]:
        check_anharmonic_options(value, snapshots, rounds, tolerance, seed=seed)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always", HarmonicWarning)
        cache = None if out is None else out / "forces"
        if engine is None:
            start = read_phonons(source)
        else:
            start = phonons(
                source, engine, supercell=supercell, relax=relax, relax_cell=relax_cell, cache=cache, quiet=quiet
            )
        results = []
        default: list[float | None] = [300.0 if ensemble is None else None]
        for kelvin in temperature or default:
            if engine is None:
                assert ensemble is not None
                result = anharmonic_ensemble(start, ensemble, kelvin, drawn_at=drawn_at, tolerance=tolerance)
            else:
                assert kelvin is not None
                result = compute(
                    start, engine, kelvin, snapshots=snapshots, rounds=rounds, tolerance=tolerance, seed=seed,
                    cache=cache, quiet=quiet,
                )  # fmt: skip
            results.append(result)
            if out is not None:
                result.phonons.save(out / f"phonopy_params_{result.temperature:g}K.yaml")
    for remark in remarks:
        if issubclass(remark.category, HarmonicWarning):
            typer.echo(f"warning: {remark.message}", err=True)
    rows: list[dict[str, Any]] = [result.row() for result in results]
    for row in rows:
        typer.echo(
            f"{row['temperature']:g} K: lowest frequency {row['lowest']:.3f} ± {row['lowest_error']:.3f} THz (harmonic "
            f"{row['lowest_harmonic']:.3f}), largest {row['largest']:.3f} ({row['largest_harmonic']:.3f}), free energy "
            f"{row['free_energy']:.5f} ± {row['free_energy_error']:.5f} eV per cell; {row['evaluations']} evaluations"
            f"{'' if row['converged'] else '; not converged'}"
        )
    if json is not None:
        write_rows(json, rows)
    if plot is not None:
        from hesse.reports.phonon_figure import draw_phonons

        label = f"{results[0].temperature:g} K"
        draw_phonons(plot, results[0].phonons, reference=start, label=label, reference_label="harmonic")
