"""`hesse tc`: critical temperatures of superconductors from α²F."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer


def tc(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="ALPHA2F", help="a2F.dos of matdyn.x, alpha2F.dat of lambda.x, .a2f of EPW, or columns."
        ),
    ],
    mu_star: Annotated[
        list[float] | None, typer.Option(help="Coulomb pseudopotential; may be given several times. [default: 0.1]")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="Unit of frequencies in plain columns: eV, meV, Ry, Ha, THz, cm-1, K.")
    ] = None,
    column: Annotated[int | None, typer.Option(min=1, help="Column of α²F, if there are several.")] = None,
    allow_negative: Annotated[bool, typer.Option(help="Compute with an α²F that is negative beyond noise.")] = False,
    mu_star_at: Annotated[
        str,
        typer.Option(
            metavar="WHERE",
            help="Frequency at which μ* of the Eliashberg equations is defined: phonons (their highest frequency), "
            "cutoff (the highest Matsubara frequency), or a number in meV.",
        ),
    ] = "phonons",
    json: Annotated[Path | None, typer.Option(help="Write a row for each μ* to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw α²F and λ(ω): .svg or .png.")] = None,
) -> None:
    """Critical temperature of a superconductor from its electron-phonon spectral function: McMillan, Allen and Dynes,
    isotropic Eliashberg equations."""
    from hesse.errors import RequestError
    from hesse.runtime.filesystem import check_output_path, check_picture_path, write_rows
    from hesse.superconductivity import tc as compute_tc

    if json is not None:
        check_output_path(json, file)
    if plot is not None:
        check_picture_path(plot, file)
    at: float | str = mu_star_at
    if mu_star_at not in ("phonons", "cutoff"):
        try:
            at = 1e-3 * float(mu_star_at)
        except ValueError:
            raise RequestError(
                f"--mu-star-at: expected phonons, cutoff or a number in meV, got {mu_star_at!r}"
            ) from None
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        result = compute_tc(
            file, mu_star or [0.1], unit=unit, column=column, allow_negative=allow_negative, mu_star_at=at
        )
    typer.echo(result.summary())
    for remark in remarks:
        typer.echo(f"warning: {remark.message}", err=True)
    for note in result.spectrum.notes:
        typer.echo(f"note: {note}")
    if json is not None:
        write_rows(json, result.to_dicts())
    if plot is not None:
        from hesse.reports.alpha2f_figure import draw_alpha2f

        draw_alpha2f(plot, result.spectrum, title=file.name)
