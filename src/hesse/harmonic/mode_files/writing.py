"""Writing normal modes to a file whose suffix says the format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from hesse.errors import FileFormatError, RequestError
from hesse.harmonic.mode_files.gaussian_text import gaussian_text
from hesse.harmonic.mode_files.molden import molden_text
from hesse.harmonic.mode_files.movie import mode_movie
from hesse.harmonic.normal_modes import NormalModes
from hesse.runtime.filesystem import atomic_write, atomic_write_text
from hesse.structures import Structure

__all__ = ["MODE_FILE_SUFFIXES", "check_mode_file", "write_modes"]

MODE_FILE_SUFFIXES: Final[Mapping[str, str]] = MappingProxyType({
    ".molden": "molden", ".xyz": "movie", ".extxyz": "movie", ".log": "gaussian", ".out": "gaussian",
})  # fmt: skip
"""The kind of file by its suffix."""


def check_mode_file(path: str | Path) -> str:
    """The kind of a file of modes, by its suffix.

    Args:
        path: the file.

    Returns:
        "molden", "movie" or "gaussian".

    Raises:
        RequestError: not a path.
        FileFormatError: another suffix.
    """
    if not isinstance(path, str | Path):
        raise RequestError(f"expected the path of a file of modes, got {path!r}")
    suffix = Path(path).suffix.lower()
    if suffix not in MODE_FILE_SUFFIXES:
        raise FileFormatError(
            f"{path}: modes are written as .molden, .xyz or .extxyz (geometries that move) and .log or .out (text like "
            "that of Gaussian)"
        )
    return MODE_FILE_SUFFIXES[suffix]


def write_modes(
    path: str | Path, structure: Structure, modes: NormalModes, *, energy: float | None = None, level: str = ""
) -> None:
    """Write normal modes for viewers and other programs.

    Args:
        path: `.molden`; `.xyz` or `.extxyz` for all modes one after the other as moving geometries; `.log` or `.out`
            for text like that of Gaussian. An existing file is replaced in one step.
        structure: the geometry.
        modes: its normal modes.
        energy: eV, for the text.
        level: level of theory, for the text.

    Raises:
        FileFormatError: another suffix.
        WriteError: the file cannot be written.
    """
    kind = check_mode_file(path)
    if kind == "movie":
        from ase.io import write

        frames = [atoms for k in range(len(modes)) for atoms in mode_movie(structure, modes, k)]
        with atomic_write(path) as temporary:
            write(temporary, frames, format="extxyz")
    elif kind == "molden":
        atomic_write_text(path, molden_text(structure, modes))
    else:
        atomic_write_text(path, gaussian_text(structure, modes, energy=energy, level=level))
