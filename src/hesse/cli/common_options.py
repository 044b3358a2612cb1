"""Options and messages that several verbs share."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from hesse.datasets import Dataset
    from hesse.structures import Structure

__all__ = [
    "ENGINE",
    "MAX_SHOWN",
    "OVERWRITE",
    "QUIET",
    "SCHEDULER",
    "STRICT",
    "WORKERS",
    "open_input",
    "outside_text",
    "print_failures",
    "print_remaining",
    "workers_for",
]

ENGINE = typer.Option("--engine", help="gfn2, gfn1, pyscf:METHOD/BASIS, ase:package.module:factory, MODEL.hesse, ...")
WORKERS = typer.Option("--workers", min=1, help="Processes, one thread each.")
SCHEDULER = typer.Option(
    "--scheduler", metavar="ADDRESS", help="A dask cluster instead: tcp://host:8786, or its scheduler file."
)
OVERWRITE = typer.Option("--overwrite", help="Replace OUT if it exists.")
QUIET = typer.Option("--quiet", help="No progress.")


def _refuse_what_is_not_read(requested: bool) -> bool:
    if requested:
        from hesse.errors import NotReadWarning

        warnings.simplefilter("error", NotReadWarning)
    return requested


STRICT = typer.Option(
    "--strict", callback=_refuse_what_is_not_read, help="Refuse files of which something is not read."
)

_FEW_STRUCTURES = 4
_FEW_ATOMS = 100
_STEADY_ENGINES = ("gfn1", "gfn2")
"""Engines that do not crash and do not print."""


def workers_for(
    workers: int | None, engine: str, structures: Sequence[Structure], *, processes: bool = False
) -> int | None:
    """Choose whether a command starts worker processes, which takes a second of processor time each.

    A handful of small molecules with an engine that does not crash and does not print is computed in this process, by
    one thread, as in a worker.

    Args:
        workers: the number that was given, if any.
        engine: name of the engine.
        structures: the structures.
        processes: processes are needed anyway (a cluster, a limit of time).

    Returns:
        Number of processes; 0 for this process, None for the default.
    """
    few = len(structures) <= _FEW_STRUCTURES and sum(len(s) for s in structures) <= _FEW_ATOMS
    steady = engine.partition("?")[0].lower().removesuffix("-xtb") in _STEADY_ENGINES or engine.endswith(".hesse")
    steady = steady or Path(engine).is_dir()  # of a run
    if workers is not None or processes or not few or not steady or any(s.periodic for s in structures):
        return workers
    import torch

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of libraries that are not loaded yet
    return 0


MAX_SHOWN = 10
"""Number of failures that are printed one by one."""


def print_remaining(count: int) -> None:
    """Print how many of `count` failures were not printed one by one."""
    if count > MAX_SHOWN:
        typer.echo(f"  ... and {count - MAX_SHOWN} more", err=True)


def print_failures(lines: Sequence[str]) -> None:
    """Print the first lines to standard error, and the number of the others."""
    for line in lines[:MAX_SHOWN]:
        typer.echo(line, err=True)
    print_remaining(len(lines))


def outside_text(row: Mapping[str, Any]) -> str:
    """The end of a line about a result that lies outside the training data of the model, if it does."""
    return f"; outside the training data of the model: {row['extrapolation']}" if row.get("outside_training") else ""


def open_input(output: Path, source: Path, *, overwrite: bool) -> Dataset:
    """Read the input of a verb, after checks that the output can be written.

    Raises:
        RequestError: OUT exists and may not be replaced, is the same file as IN, or has an unknown ending.
        FileFormatError: IN cannot be read.
    """
    from hesse.datasets import check_writable_suffix, read_dataset
    from hesse.runtime.filesystem import check_new_file, check_output_path

    check_writable_suffix(output, complete=True)
    check_output_path(output, source)
    check_new_file(output, overwrite=overwrite)
    return read_dataset(source, check=False)
