"""Formats that are never read because loading them can run code, and the message that names the alternative."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from hesse.errors import FileFormatError

__all__ = ["UNSAFE_SUFFIXES", "refuse_unsafe"]

_EXPORT_HINT: Final = (
    "If you trust its origin, open it with the program that wrote it and export plain arrays: "
    "np.savez('data.npz', natoms=…, z=…, pos=…, energy=…, forces=…, hessian=…), all structures end to end; "
    "then `hesse convert data.npz data.h5 --energy-unit eV --length-unit angstrom`."
)

UNSAFE_SUFFIXES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys((".pkl", ".pickle", ".p"), "a pickle"),
        **dict.fromkeys((".pt", ".pth", ".ckpt"), "a PyTorch archive, which holds a pickle"),
        ".lmdb": "an LMDB, whose records are pickles (HORM, OCP) or compressed text in other layouts",
        ".mdb": "an LMDB, whose records are pickles (HORM, OCP) or compressed text in other layouts",
        ".aselmdb": "an ASE LMDB data base, which needs the package that wrote it",
        ".joblib": "a joblib archive, which is a pickle",
        ".npy": "a single array, not a set of structures; one with objects is a pickle",
    }
)
"""Description of the format by file suffix, for error messages."""

_PICKLE_PREFIXES: Final = frozenset(bytes([0x80, protocol]) for protocol in range(2, 6))
"""First two bytes of pickles of protocols 2 to 5."""
_RUNS_NO_CODE: Final = frozenset({".npy"})


def refuse_unsafe(path: Path) -> None:
    """Raise FileFormatError for files that could run code when loaded.

    They are recognized by their suffix or by the first bytes of a pickle, a folder by an LMDB inside (`data.mdb`).

    Args:
        path: file or folder; it need not exist.

    Raises:
        FileFormatError: the file is of such a format. The message shows how to export plain arrays instead.
    """
    if path.is_dir():
        if (path / "data.mdb").is_file():
            raise FileFormatError(f"{path}: this folder is {UNSAFE_SUFFIXES['.mdb']}; it is not read. {_EXPORT_HINT}")
        return
    suffix = path.suffix.lower()
    description = UNSAFE_SUFFIXES.get(suffix)
    if description is None and path.is_file():
        with open(path, "rb") as handle:
            if handle.read(2) in _PICKLE_PREFIXES:
                description = "a pickle"
    if description is not None:
        reason = "" if suffix in _RUNS_NO_CODE else ": loading a pickle runs any program that it holds"
        raise FileFormatError(f"{path}: {description}. It is not read{reason}. {_EXPORT_HINT}")
