"""`hesse minimize` and `hesse neb`: minima, and the paths between them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hesse.cli.common_options import (
    ENGINE,
    OVERWRITE,
    QUIET,
    STRICT,
    WORKERS,
    outside_text,
    print_failures,
    workers_for,
)
from hesse.cli.reaction_commands import failed_output, level_text, open_starts, write_results

_UNUSUAL = 6
"""Number of bonds that change from reactant to product, above which the order of atoms may be wrong."""


class _Optimizer(StrEnum):
    bfgs = "bfgs"
    lbfgs = "lbfgs"
    fire = "fire"


def minimize(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Structures: .extxyz, .xyz, .h5, ...")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help=".extxyz or .h5")],
    engine: Annotated[str, ENGINE] = "gfn2",
    fmax: Annotated[float, typer.Option(help="eV/Å; largest force at the end.")] = 0.005,
    steps: Annotated[int, typer.Option(min=1, help="Largest number of steps.")] = 500,
    optimizer: Annotated[_Optimizer, typer.Option(help="As in ASE.")] = _Optimizer.bfgs,
    remove_imaginary: Annotated[
        bool, typer.Option("--remove-imaginary", help="Displace along imaginary modes and relax again.")
    ] = False,
    workers: Annotated[int | None, WORKERS] = None,
    overwrite: Annotated[bool, OVERWRITE] = False,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the rows as JSON.")] = None,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Relax structures; cells stay as they are. A model relaxes all of them together.

    The last geometries of those that did not converge are written too: for OUT = min.h5, to min.failed.h5. The same
    command continues after an interruption: finished relaxations are kept in min.h5.searches.jsonl."""
    from hesse.cli.option_checks import check_positive
    from hesse.datasets import write_dataset
    from hesse.sampling import search_minima

    check_positive("eV/Å", fmax=fmax)
    failed_file = failed_output(source, output, json, overwrite)
    starts = open_starts(source, output, json, overwrite)
    result = search_minima(
        starts,
        engine,
        output,
        remove_imaginary=remove_imaginary,
        workers=workers_for(workers, engine, starts.structures),
        quiet=quiet,
        fmax=fmax,
        steps=steps,
        optimizer=optimizer.value,
    )
    print_failures([f"{failure.id}: not relaxed: {failure.reason}" for failure in result.failures])
    if result.failed is not None:
        write_dataset(failed_file, result.failed)
        typer.echo(f"{failed_file}: the last geometries of {len(result.failed)} that did not converge", err=True)
    if len(result.rows) == 1 and result.rows[0]["converged"]:
        typer.echo(_line(result.rows[0]))
    write_results(output, json, result, "relaxation")
    converged = [row for row in result.rows if row["converged"]]
    typer.echo(f"{output}: {len(converged)} of {len(result.rows)} structures relaxed{level_text(result)}")
    if any(s.periodic for s in starts.structures):
        typer.echo("  cells were not relaxed")
    changed = [(row, text) for row in converged if (text := _bonds_text(row))]
    if changed and len(result.rows) > 1:
        typer.echo(f"  {len(changed)} with other bonds than before, such as {changed[0][0]['id']}: {changed[0][1]}")
    outside = [row for row in converged if row.get("outside_training")]
    if outside and len(result.rows) > 1:
        typer.echo(
            f"  {len(outside)} outside the training data of the model, such as {outside[0]['id']}: "
            f"{outside[0]['extrapolation']}"
        )
    displaced = sum(row.get("rounds", 0) > 0 for row in converged)
    if remove_imaginary:
        typer.echo(f"  {displaced} were displaced along an imaginary mode")
    if result.n_reused:
        typer.echo(f"  {result.n_reused} searches were finished before")


def _line(row: dict[str, Any]) -> str:
    modes = ""
    if row.get("lowest_frequency") is not None:
        modes = f", lowest mode {row['lowest_frequency']:.0f} cm⁻¹ after {row['rounds']} displacements"
    bonds = f"; bonds changed: {text}" if (text := _bonds_text(row)) else ""
    return (
        f"{row['id']}: {row['energy']:.6f} eV, {row['steps']} steps, {row['rmsd']:.2f} Å from the start{modes}{bonds}"
        f"{outside_text(row)}"
    )


def _bonds_text(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {what}" for what in ("formed", "broken") for name in row[f"bonds_{what}"])


def neb(
    reactant: Annotated[Path, typer.Argument(metavar="R", help="Reactant, or reactants.")],
    product: Annotated[Path, typer.Argument(metavar="P", help="Product, or products in the same order.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help=".extxyz or .h5")],
    engine: Annotated[str, ENGINE] = "gfn2",
    images: Annotated[int, typer.Option(min=1, help="Images between the ends.")] = 8,
    fmax: Annotated[float, typer.Option(help="eV/Å; largest force on an image at the end.")] = 0.1,
    steps: Annotated[int, typer.Option(min=1, help="Largest number of iterations.")] = 200,
    climb: Annotated[bool, typer.Option(help="The highest image climbs to the saddle point.")] = True,
    spring: Annotated[float, typer.Option(help="eV/Å²; stiffness of the springs between images.")] = 1.0,
    relax_ends: Annotated[bool, typer.Option(help="Relax the ends first.")] = True,
    workers: Annotated[int | None, WORKERS] = None,
    overwrite: Annotated[bool, OVERWRITE] = False,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the rows as JSON.")] = None,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Find the path between two geometries by a nudged elastic band. Atom k of R becomes atom k of P.

    A model evaluates all images of an iteration in one pass. The same command continues after an interruption, also in
    the middle of a path. `hesse saddle --from-path` starts at the highest image."""
    from hesse.cli.option_checks import check_positive
    from hesse.datasets import read_dataset
    from hesse.sampling import reaction_pairs, search_bands

    check_positive("eV/Å", fmax=fmax)
    check_positive("eV/Å²", spring=spring)
    first = open_starts(reactant, output, json, overwrite, product)
    pairs = reaction_pairs(first, read_dataset(product, check=False))
    result = search_bands(
        pairs,
        engine,
        output,
        workers=workers_for(workers, engine, first.structures),
        quiet=quiet,
        images=images,
        fmax=fmax,
        steps=steps,
        climb=climb,
        spring=spring,
        relax_ends=relax_ends,
    )
    failed = {failure.id for failure in result.failures}
    for row in result.rows:
        if row["id"] not in failed:
            typer.echo(_path_line(row))
    print_failures([f"{failure.id}: no path: {failure.reason}" for failure in result.failures])
    write_results(output, json, result, "elastic bands")
    n_converged = sum(row["converged"] for row in result.rows)
    typer.echo(f"{output}: {n_converged} of {len(result.rows)} paths converged{level_text(result)}")
    if result.n_reused:
        typer.echo(f"  {result.n_reused} searches were finished before")


def _path_line(row: dict[str, Any]) -> str:
    parts = [
        f"highest image {row['highest']}, {row['barrier']:.3f} eV above the reactant",
        f"product {row['reaction_energy']:+.3f} eV",
        f"{row['steps']} iterations, {row['gradients']} gradients",
        f"bonds changed: {_bonds_text(row) or 'none'}",
    ]
    parts += [] if row["has_barrier"] else ["no image is higher than both ends"]
    n_bonds = len(row["bonds_formed"]) + len(row["bonds_broken"])
    parts += [f"{n_bonds} bonds change: is the order of the atoms right?"] if n_bonds > _UNUSUAL else []
    parts += [f"not converged: {row['reason']}"] if not row["converged"] else []
    return f"{row['id']}: " + "; ".join(parts) + outside_text(row)
