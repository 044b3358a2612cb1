"""`hesse anharmonic`: self-consistent phonons of crystals at temperatures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hesse.cli.common_options import QUIET

_PICTURE = "bands_anharmonic.png"


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
        Path | None, typer.Option(help="Draw the bands of all temperatures above the harmonic ones: .png, .svg.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of phonopy's files of each temperature, of a picture, and of energies and forces: it can "
            "continue."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results of another crystal in the folder of --out.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write a row for each temperature to this file.")] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Phonons of an anharmonic crystal: the harmonic crystal that describes it best at a temperature, and its free
    energy, with statistical errors."""
    import warnings

    from hesse.cli.crystal_checks import check_band_paths, check_before_work
    from hesse.errors import HarmonicWarning, RequestError
    from hesse.lattice import anharmonic as compute
    from hesse.lattice import anharmonic_ensemble, check_anharmonic_options, holds_phonons, phonons, read_phonons
    from hesse.lattice.phonon_calculation import as_crystal
    from hesse.lattice.result_folders import mark_result_folder
    from hesse.runtime.filesystem import check_input_file, check_output_path, check_picture_path, write_rows

    if not source.exists():
        check_input_file(source)
    inputs = [path for path in (source, ensemble) if path is not None]
    if json is not None:
        check_output_path(json, *inputs)
    if plot is not None:
        check_picture_path(plot, *inputs)
    if (engine is None) == (ensemble is None):
        raise RequestError("give either an engine or a model (--engine), or displaced supercells (--ensemble)")
    if ensemble is not None and (relax or relax_cell or supercell is not None):
        raise RequestError("--relax, --relax-cell and --supercell need an engine: displaced supercells are as they are")
    if ensemble is None and drawn_at is not None:
        raise RequestError("--drawn-at is the temperature of displaced supercells: give them with --ensemble")
    if ensemble is not None and not holds_phonons(source):
        raise RequestError(
            f"{source} is a crystal structure: with --ensemble CRYSTAL has to be the phonons whose displacements the "
            "supercells have, a folder or file of phonopy, or dynamical matrices of ph.x"
        )
    if drawn_at is not None:
        check_anharmonic_options(drawn_at)
    for value in temperature or [300.0]:
        check_anharmonic_options(value, snapshots, rounds, tolerance, seed=seed)
    if plot is not None or out is not None:
        check_band_paths()
    names = ("phonopy_params_*K.yaml", _PICTURE)
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always", HarmonicWarning)
        cache = None if out is None else out / "forces"
        if engine is None:
            start = read_phonons(source)
            crystal = start.primitive
            check_before_work(crystal, crystal, None, out, names, overwrite=overwrite)
        else:
            crystal, stored = as_crystal(source)
            check_before_work(crystal, crystal, None, out, names, overwrite=overwrite)
            repeated = stored if supercell is None else supercell
            start = phonons(
                crystal, engine, supercell=repeated, relax=relax, relax_cell=relax_cell, cache=cache, quiet=quiet
            )
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            mark_result_folder(out, crystal)
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
    pictures = [path for path in (plot, None if out is None else out / _PICTURE) if path is not None]
    if pictures:
        from hesse.reports.phonon_figure import draw_phonons

        drawn = {f"{result.temperature:.4g} K": result.phonons for result in results}
        label, *others = drawn
        further = {name: drawn[name] for name in others}
        for path in pictures:
            draw_phonons(path, drawn[label], reference=start, further=further, label=label, reference_label="harmonic")
            typer.echo(f"{path}")
