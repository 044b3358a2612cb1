"""`hesse check`: numerical checks of a potential."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hesse.cli.common_options import QUIET, STRICT

if TYPE_CHECKING:
    from hesse.structures import Structure

MAX_STRUCTURES = 16
MAX_ATOMS = 64
"""A check needs hundreds of evaluations: larger structures would take minutes and show nothing more."""
COMPILE_NOTE = "note: compilation takes minutes; --no-compile skips it"


class _DType(StrEnum):
    float32 = "float32"
    float64 = "float64"


def check(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="MODEL.hesse, mace:FILE, torchani:FILE, ..., python:package.module:factory."
        ),
    ] = None,
    structures: Annotated[
        Path | None, typer.Option(help="Check it on the structures of this file. [default: built-in ones]")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the results to this file, as a list of rows.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this check; may be given several times.")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Leave out this check; may be given several times.")] = None,
    compile: Annotated[bool, typer.Option("--compile/--no-compile", help="Also check compilation (minutes).")] = True,
    dtype: Annotated[_DType, typer.Option(help="Precision of the checks.")] = _DType.float64,
    device: Annotated[str, typer.Option(help="Device: cpu, cuda, cuda:1, ...")] = "cpu",
    list_: Annotated[
        bool, typer.Option("--list", help="List the checks and what their failures mean, without MODEL.")
    ] = False,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Check derivatives, smoothness and symmetries of a potential. Also its precision, singular geometries and
    compilation. The exit code is 1 if a check fails; each failure explains what it means for training on curvature."""
    import torch

    from hesse.checks import CHECKS, check_potential, select_checks
    from hesse.engines import make_potential
    from hesse.engines.names import path_in_name
    from hesse.errors import ConfigError
    from hesse.runtime.devices import device_from_name
    from hesse.runtime.filesystem import check_output_path, write_rows
    from hesse.runtime.progress import track

    skipped = [*(skip or []), *([] if compile else ["compile"])]
    selected_checks = select_checks(only or None, skipped)
    if list_:
        for item in CHECKS:
            typer.echo(f"{item.name}: {item.question}\n    A failure means: {item.consequence}")
        return
    if model is None:
        raise ConfigError("expected a MODEL: hesse check run/model.hesse, or --list alone")
    if not selected_checks:
        raise ConfigError("no check is left: --skip and --no-compile exclude everything that --only names")
    if json is not None:
        inputs = [file for file in (structures, path_in_name(model)) if file is not None]
        check_output_path(json, *inputs)
    torch_device = device_from_name(device)
    potential = make_potential(model, device=torch_device)
    test_structures = None if structures is None else _spread_sample(structures, quiet=quiet)
    if not quiet and any(item.name == "compile" for item in selected_checks):
        typer.echo(COMPILE_NOTE, err=True)
    with track("checking", len(selected_checks), quiet=quiet) as advance:
        results = check_potential(
            potential,
            test_structures,
            only=[item.name for item in selected_checks],
            dtype=getattr(torch, dtype),
            device=torch_device,
            on_start=lambda item: advance(1 if item in selected_checks else 0, item.name),
        )
    if json is not None:
        write_rows(json, results)
    results.model = model
    typer.echo(results.table())
    if results.failed:
        raise typer.Exit(1)


def _spread_sample(file: Path, *, quiet: bool) -> list[Structure]:
    """At most `MAX_STRUCTURES` small structures, evenly spread over a file."""
    import numpy as np

    from hesse.datasets import read_dataset
    from hesse.errors import RequestError

    structures = read_dataset(file, check=False).structures
    small = [s for s in structures if len(s) <= MAX_ATOMS]
    if not small:
        raise RequestError(f"{file}: no structure has at most {MAX_ATOMS} atoms; give a file with smaller ones")
    for structure in small:
        structure.check_no_overlap()
    indices = np.unique(np.linspace(0, len(small) - 1, min(len(small), MAX_STRUCTURES)).round().astype(int))
    if not quiet and len(indices) < len(structures):
        typer.echo(
            f"note: {len(indices)} of {len(structures)} structures are used, none over {MAX_ATOMS} atoms", err=True
        )
    return [small[k] for k in indices]
