"""Options that determine how a data file is read: units, names, and which structures."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "CurvatureUnit",
    "EnergyUnit",
    "ForcesUnit",
    "LengthUnit",
    "Limit",
    "Match",
    "Rename",
    "Sample",
    "SampleSeed",
    "StressUnit",
    "parse_renames",
]

EnergyUnit = Annotated[
    str | None, typer.Option(help="Energy unit, if the file does not state it: eV, Hartree, kcal/mol, …")
]
LengthUnit = Annotated[str | None, typer.Option(help="Length unit, if the file does not state it: angstrom, bohr, nm.")]
ForcesUnit = Annotated[str | None, typer.Option(help="Unit of forces, if it is not energy/length: hartree/bohr.")]
CurvatureUnit = Annotated[
    str | None, typer.Option(help="Unit of Hessians and H v, if it is not energy/length²: hartree/bohr^2.")
]
StressUnit = Annotated[
    str | None, typer.Option(help="Unit of the stress, if it is not energy/length³: GPa, kbar, eV/angstrom^3.")
]
Rename = Annotated[
    list[str] | None,
    typer.Option(
        metavar="OLD=NEW",
        help="Rename a key of extended XYZ or grouped HDF5: REF_forces=forces; may be given several times.",
    ),
]
Match = Annotated[str | None, typer.Option(metavar="PATTERN", help="Only structures whose ids match: 'C2H6O/*'.")]
Sample = Annotated[int | None, typer.Option(min=1, help="Only N random structures (of those that match).")]
SampleSeed = Annotated[int, typer.Option("--seed", min=0, help="Seed of --sample.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N structures (of the sample).")]


def parse_renames(pairs: list[str], *, option: str = "--rename", example: str = "REF_forces=forces") -> dict[str, str]:
    """New names by old ones, from texts OLD=NEW of an option. Raises ConfigError with an example of that option."""
    from hesse.errors import ConfigError

    renames = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not (old and equals and new):
            raise ConfigError(f'{option}: expected OLD=NEW, for example {example}, got "{pair}"')
        renames[old] = new
    return renames
