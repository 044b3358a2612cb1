"""`hesse thermo`: enthalpies, entropies and Gibbs energies, from stored Hessians or from an engine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from hesse.cli.common_options import MAX_SHOWN, QUIET, SCHEDULER, STRICT, WORKERS
from hesse.cli.vibration_options import (
    Atoms,
    Engine,
    Fmax,
    Folder,
    Isotopes,
    Masses,
    Minimize,
    RetryFailed,
    Reuse,
    Source,
    Steps,
    Timeout,
    compute_vibrations,
    print_warnings,
)


class _Method(StrEnum):
    rrho = "rrho"
    grimme = "grimme"
    truhlar = "truhlar"


_ROW_NAMES = ("temperature", "pressure", "method", "zpe", "enthalpy", "entropy", "gibbs")


class _Enthalpy(StrEnum):
    rrho = "rrho"
    head_gordon = "head-gordon"


def thermo(
    source: Source,
    engine: Engine = None,
    temperature: Annotated[
        list[float] | None, typer.Option(help="K; may be given several times. [default: 298.15]")
    ] = None,
    pressure: Annotated[float | None, typer.Option(help="Pa. [default: 101325]")] = None,
    concentration: Annotated[
        float | None, typer.Option(help="mol/L, instead of the pressure: 1 for the standard state of solutions.")
    ] = None,
    method: Annotated[
        _Method,
        typer.Option(help="Entropy: harmonic, soft modes as free rotors (Grimme), or raised to the cutoff (Truhlar)."),
    ] = _Method.rrho,
    enthalpy: Annotated[
        _Enthalpy, typer.Option(help="Thermal energy: harmonic, or soft modes as free rotors (Head-Gordon).")
    ] = _Enthalpy.rrho,
    cutoff: Annotated[float, typer.Option(help="cm⁻¹; of the methods for soft modes.")] = 100.0,
    symmetry: Annotated[str, typer.Option(help="Rotational symmetry number; auto finds it.")] = "auto",
    degeneracy: Annotated[
        int | None, typer.Option(help="Of the electronic state. [default: the spin multiplicity]")
    ] = None,
    scale: Annotated[float, typer.Option(help="Factor for all frequencies.")] = 1.0,
    invert_below: Annotated[
        float, typer.Option(help="cm⁻¹; imaginary modes of smaller magnitude count as real ones.")
    ] = 0.0,
    minimize: Minimize = False,
    fmax: Fmax = 0.005,
    steps: Steps = 500,
    atoms: Atoms = None,
    masses: Masses = "average",
    isotope: Isotopes = None,
    out: Folder = None,
    reuse: Reuse = True,
    workers: Annotated[int | None, WORKERS] = None,
    scheduler: Annotated[str | None, SCHEDULER] = None,
    timeout: Timeout = None,
    retry_failed: RetryFailed = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N structures.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the rows as JSON.")] = None,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Compute enthalpies, entropies and Gibbs energies: ideal gas, rigid rotor, harmonic or quasi-harmonic modes.

    Hessians in IN are used; an engine computes others, as in `hesse vibrations`. Crystals and structures with frozen
    atoms only vibrate. Imaginary modes do not contribute."""
    from hesse.harmonic.thermochemistry import ThermoSettings
    from hesse.recipes.vibrations_of_many import in_order, require_results
    from hesse.runtime.filesystem import write_rows

    settings = ThermoSettings(
        temperature=temperature or [298.15],
        pressure=pressure,
        concentration=concentration,
        method=method.value,
        enthalpy=enthalpy.value,
        cutoff=cutoff,
        symmetry=_parse_symmetry(symmetry),
        degeneracy=degeneracy,
        scale=scale,
        invert_below=invert_below,
    )
    report = compute_vibrations(
        source,
        engine=engine,
        folder=out,
        json_file=json,
        atoms=atoms,
        isotopes=isotope,
        limit=limit,
        masses=masses,
        minimize=minimize,
        fmax=fmax,
        steps=steps,
        reuse=reuse,
        workers=workers,
        scheduler=scheduler,
        timeout=timeout,
        retry_failed=retry_failed,
        quiet=quiet,
    )
    results = report.thermo(settings)
    if json is not None:
        rows = in_order(report.ids, {result.id: result.rows() for result in results}, report.failures, _ROW_NAMES)
        write_rows(json, rows)
    for result in results[:MAX_SHOWN]:
        typer.echo(result.table())
    if len(results) > MAX_SHOWN:
        typer.echo(f"... and {len(results) - MAX_SHOWN} more{'' if json else ' (--json FILE has all)'}")
    print_warnings(report)
    require_results(report)
    if len(report.ids) > 1:
        typer.echo(f"{len(results)} of {len(report.ids)} structures")


def _parse_symmetry(text: str) -> int | Literal["auto"]:
    """A symmetry number, or "auto". Raises ConfigError."""
    from hesse.errors import ConfigError

    if text.strip() == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f'--symmetry: expected a whole number or auto, got "{text}"') from None
