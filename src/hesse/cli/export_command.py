"""`hesse export`: a model for the programs in which people run dynamics."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hesse.cli.common_options import OVERWRITE, QUIET


class _Target(StrEnum):
    metatomic = "metatomic"
    i_pi = "i-pi"
    lammps = "lammps"
    openmm = "openmm"
    torch_sim = "torch-sim"
    orca = "orca"


class _DType(StrEnum):
    float32 = "float32"
    float64 = "float64"


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="MODEL.hesse, or mace:FILE, torchani:FILE, ...")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The file (metatomic), or a folder.")],
    to: Annotated[_Target, typer.Option("--to", help="The program.")] = _Target.metatomic,
    structure: Annotated[
        Path | None, typer.Option(help="The atoms at the start: a file with one structure. Not for metatomic.")
    ] = None,
    dtype: Annotated[_DType | None, typer.Option(help="Precision. [that of the model]")] = None,
    device: Annotated[str | None, typer.Option(help="Device of a metatomic file: cpu, cuda. [cpu]")] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compiled forces in LAMMPS and i-PI, for long runs of small systems.")
    ] = False,
    overwrite: Annotated[bool, OVERWRITE] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Write a model for LAMMPS, i-PI, OpenMM, torch-sim, ORCA, or metatomic. Elements and geometry are checked before
    the program starts."""
    from hesse.deploy.engine_export import export as write_export

    text = write_export(
        model,
        to.value,
        output,
        structure=structure,
        dtype=None if dtype is None else dtype.value,
        device=device,
        compile=compile,
        overwrite=overwrite,
    )
    if not quiet:
        typer.echo(text)
