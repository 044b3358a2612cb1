"""`hesse phonons`: phonons of crystals, from an engine or from files of phonopy."""

from __future__ import annotations

import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hesse.cli.common_options import QUIET

if TYPE_CHECKING:
    from hesse.lattice import Phonons

_OUT = "Folder of the files of --write, and of all products and forces: the same command continues."


class _File(StrEnum):
    params = "params"
    text = "text"
    hdf5 = "hdf5"
    picture = "picture"


_NAMES = {
    _File.params: "phonopy_params.yaml",
    _File.text: "FORCE_CONSTANTS",
    _File.hdf5: "force_constants.hdf5",
    _File.picture: "bands.png",
}


def phonons(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CRYSTAL",
            help="POSCAR, .cif, .extxyz, ...; or files or a folder of phonopy, or dynamical matrices of ph.x.",
        ),
    ],
    engine: Annotated[
        str | None,
        typer.Option(help="MODEL.hesse, ase:package.module:factory, ... Without it force constants are read."),
    ] = None,
    supercell: Annotated[
        tuple[int, int, int] | None,
        typer.Option(help="Repetitions of the cell. [default: at least 10 Å, or that of phonopy's files]"),
    ] = None,
    supercell_matrix: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help='Nine numbers, "-1 1 1 1 -1 1 1 1 -1": rows are its lattice vectors.'),
    ] = None,
    displacement: Annotated[
        float | None, typer.Option(help="Å; finite displacements in place of Hessian-vector products.")
    ] = None,
    relax: Annotated[bool, typer.Option("--relax", help="Relax the atoms first, with the engine.")] = False,
    relax_cell: Annotated[bool, typer.Option("--relax-cell", help="Relax atoms and cell first.")] = False,
    fmax: Annotated[float, typer.Option(help="eV/Å; largest force of relaxations.")] = 1e-3,
    steps: Annotated[int, typer.Option(min=1, help="Largest number of steps of relaxations.")] = 300,
    primitive: Annotated[str, typer.Option(help="auto; P: the cell itself; or a centering: F, I, A, C, R.")] = "auto",
    symmetry: Annotated[
        bool | None, typer.Option(help="Use the space group. [default: where that is quicker]", show_default=False)
    ] = None,
    symprec: Annotated[float, typer.Option(help="Å; tolerance of the space group.")] = 1e-5,
    symmetrize: Annotated[
        bool, typer.Option("--symmetrize", help="Impose sum rule and symmetries on force constants that were stored.")
    ] = False,
    masses: Annotated[str, typer.Option(help="average, or principal: the most abundant isotopes.")] = "average",
    born: Annotated[
        Path | None, typer.Option(metavar="FILE", help="BORN file of phonopy: Born charges, dielectric constant.")
    ] = None,
    mesh: Annotated[
        tuple[int, int, int] | None, typer.Option(help="Wave vectors of densities of states and averages.")
    ] = None,
    temperature: Annotated[list[float] | None, typer.Option(help="K; may be given several times.")] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Files or a folder of phonopy, to compare with.")
    ] = None,
    grueneisen: Annotated[
        bool, typer.Option("--grueneisen", help="Also mode Grüneisen parameters, from three volumes.")
    ] = False,
    qha: Annotated[bool, typer.Option("--qha", help="Also thermal expansion, from eight volumes.")] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help=_OUT)] = None,
    write: Annotated[
        list[_File] | None,
        typer.Option(
            help="Files in DIR: params (phonopy_params.yaml), text (FORCE_CONSTANTS), hdf5 (force_constants.hdf5), "
            "picture (bands.png); may be given several times. [default: params and picture]"
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also curvature labels of the supercell: probes and products, .h5 or .extxyz."
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=0, help="Images by the space group of each label of --labels.")] = 8,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Picture of the bands, .png or .svg.")] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace results of another crystal in DIR; those of the same always are."),
    ] = False,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the numbers as JSON.")] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Compute phonons of a crystal: bands, density of states, free energy, imaginary modes.

    Force constants are exact Hessian-vector products of models, one per symmetry-distinct displacement, and
    differences of the forces of other engines. Without an engine they are read from files of phonopy, or from
    dynamical matrices of Quantum ESPRESSO."""
    from hesse.cli.crystal_checks import check_band_paths, check_before_work, primitive_cell
    from hesse.datasets import check_writable_suffix, write_dataset
    from hesse.errors import HarmonicWarning, RequestError
    from hesse.lattice import DEFAULT_MESH, compare_phonons, crystal_labels, holds_phonons, read_phonons
    from hesse.lattice.phonon_calculation import as_crystal
    from hesse.lattice.phonons_result import as_mesh
    from hesse.lattice.result_folders import mark_result_folder
    from hesse.lattice.thermal import as_temperatures
    from hesse.reports.phonon_figure import draw_phonons
    from hesse.reports.phonon_table import phonon_row, phonon_table
    from hesse.runtime.filesystem import check_output_path, check_picture_path, write_rows

    cell = _supercell(supercell, supercell_matrix)
    inputs = [path for path in (source, born, reference) if path is not None]
    for path in (json, labels):
        if path is not None:
            check_output_path(path, *inputs)
    if plot is not None:
        check_picture_path(plot, *inputs)
    if labels is not None:
        check_writable_suffix(labels, complete=True)
    if write and out is None:
        raise RequestError("--write: give the folder of the files with --out DIR")
    if engine is None and source.exists() and not holds_phonons(source):
        raise RequestError(
            f"{source} is a crystal structure: give an engine or a model (--engine), or, for stored force constants, a "
            "folder or file of phonopy, or dynamical matrices of ph.x"
        )
    if engine is None and (grueneisen or qha or relax or relax_cell or displacement is not None):
        raise RequestError("--relax, --displacement, --grueneisen and --qha need an engine: --engine")
    grid = DEFAULT_MESH if mesh is None else mesh
    temperatures = temperature or [300.0]
    as_mesh(grid)
    as_temperatures(temperatures)
    check_band_paths()
    files = list(dict.fromkeys(write or [_File.params, _File.picture])) if out is not None else []
    expected = None if reference is None else read_phonons(reference, supercell=cell)
    options: dict[str, Any] = {
        "supercell": cell,
        "displacement": displacement,
        "primitive": primitive,
        "symmetry": symmetry,
        "symprec": symprec,
        "masses": masses,
        "born": born,
        "cache": None if out is None else out / "products",
        "quiet": quiet,
    }
    names = [_NAMES[kind] for kind in files]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HarmonicWarning)  # printed below
        if engine is None:
            result = read_phonons(source, supercell=cell, primitive=primitive, born=True if born is None else born)
            crystal = result.primitive
            check_before_work(crystal, crystal, expected, out, names, overwrite=overwrite)
            result = result.symmetrized() if symmetrize else result
        else:
            from hesse.lattice import phonons as compute

            crystal, stored = as_crystal(source)
            options["supercell"] = stored if cell is None else cell
            own = crystal if expected is None else primitive_cell(crystal, primitive, symprec)
            check_before_work(crystal, own, expected, out, names, overwrite=overwrite)
            result = compute(crystal, engine, relax=relax, relax_cell=relax_cell, fmax=fmax, steps=steps, **options)
    thermal = result.thermal(temperatures, grid)
    bands = result.bands()
    comparison = None if expected is None else compare_phonons(result, expected, temperatures=temperatures, mesh=grid)
    typer.echo(phonon_table(result, thermal, bands, comparison))
    for text in result.warnings():
        typer.echo(f"warning: {text}", err=True)
    row = phonon_row(result, thermal, bands, comparison)
    if engine is not None and (grueneisen or qha):
        relaxation = {"fmax": fmax, "steps": steps}
        row |= _volume_properties(result, engine, temperatures, grid, grueneisen, qha, options | relaxation)
    if json is not None:
        write_rows(json, [row])
    if labels is not None:
        pairs = crystal_labels(result, images=images)
        write_dataset(labels, pairs.dataset)
        typer.echo(f"{labels}: {pairs}")
    pictures = [plot] if plot is not None else []
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        mark_result_folder(out, crystal)
        for kind in files:
            if kind is _File.picture:
                pictures.append(out / _NAMES[kind])
            else:
                result.save(out / _NAMES[kind], kind.value)  # type: ignore[arg-type]
                typer.echo(f"{out / _NAMES[kind]}")
    for path in pictures:
        name = "" if reference is None else reference.resolve().name
        draw_phonons(path, result, reference=expected, bands=bands, mesh=grid, reference_label=name or "reference")
        typer.echo(f"{path}")


def _supercell(three: tuple[int, int, int] | None, text: str | None) -> Any:
    """The supercell from one of the two options. Raises RequestError."""
    from hesse.errors import RequestError

    if text is None:
        return three
    if three is not None:
        raise RequestError("give either --supercell or --supercell-matrix")
    words = text.replace(",", " ").split()
    try:
        numbers = [int(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != 9:
        raise RequestError(
            f'--supercell-matrix: expected nine whole numbers, such as "2 0 0 0 2 0 0 0 2"; got "{text}"'
        )
    return [numbers[:3], numbers[3:6], numbers[6:]]


def _volume_properties(
    result: Phonons,
    engine: str,
    temperatures: list[float],
    mesh: Any,
    grueneisen: bool,
    qha: bool,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Grüneisen parameters and thermal expansion, printed; returns their columns."""
    from hesse.engines import as_engine
    from hesse.lattice import GRUENEISEN_VOLUMES, QUASIHARMONIC_VOLUMES, phonons_at_volumes, quasiharmonic
    from hesse.lattice import grueneisen as grueneisen_parameters

    calculator, row = as_engine(engine), dict[str, Any]()
    if grueneisen:
        three = phonons_at_volumes(result.structure, calculator, GRUENEISEN_VOLUMES, **options)
        parameters = grueneisen_parameters(three[1], three[0], three[2], mesh=mesh)
        averages = parameters.average(temperatures)
        row["grueneisen"] = averages.tolist()
        shown = ", ".join(f"{value:.3f} at {t:g} K" for value, t in zip(averages, temperatures, strict=True))
        typer.echo(f"Grüneisen parameter: {shown}")
    if qha:
        several = phonons_at_volumes(result.structure, calculator, QUASIHARMONIC_VOLUMES, **options)
        expansion = quasiharmonic(several, sorted(temperatures), mesh)
        row["quasiharmonic"] = expansion.rows()
        typer.echo("quasi-harmonic, per primitive cell:\n  T (K)   V (Å³)   B (GPa)   α (10⁻⁶/K)")
        for line in expansion.rows():
            typer.echo(
                f"{line['temperature']:7g} {line['volume']:9.4f} {line['bulk_modulus']:8.2f} "
                f"{1e6 * line['expansion']:10.3f}"
            )
    return row
