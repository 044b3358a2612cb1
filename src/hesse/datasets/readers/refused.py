"""Files that are not read, because reading them means running what is in them; and what to do instead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from hesse.errors import FileFormatError

__all__ = ["REFUSED", "refuse_if_it_runs_code"]

_EXPORT: Final = (
    "Where you trust its origin, open it with the program that wrote it and export plain arrays: "
    "np.savez('data.npz', natoms=…, z=…, pos=…, energy=…, forces=…, hessian=…), all structures end to end; "
    "then `hesse convert data.npz data.h5 --energy-unit eV --length-unit angstrom`."
)

REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys((".pkl", ".pickle", ".p"), "a pickle"),
        **dict.fromkeys((".pt", ".pth", ".ckpt"), "a PyTorch archive, which holds a pickle"),
        ".lmdb": "an LMDB, whose records are pickles (HORM, OCP) or compressed text of a layout of their own",
        ".mdb": "an LMDB, whose records are pickles (HORM, OCP) or compressed text of a layout of their own",
        ".aselmdb": "an ASE LMDB data base, which needs the package that wrote it",
        ".joblib": "a joblib archive, which is a pickle",
        ".npy": "a single array, and no set of structures; one with objects is a pickle",
    }
)
"""What the files of a suffix are, in words."""

_PICKLES: Final = frozenset(bytes([0x80, protocol]) for protocol in range(2, 6))
"""How pickles of the protocols in use begin."""
_HARMLESS: Final = frozenset({".npy"})


def refuse_if_it_runs_code(path: Path) -> None:
    """Raise FileFormatError for kinds of files that are never read, by suffix or by how they begin.

    A folder is looked into for an LMDB (`data.mdb`).
    """
    if path.is_dir():
        if (path / "data.mdb").is_file():
            raise FileFormatError(f"{path}: this folder is {REFUSED['.mdb']}; it is not read. {_EXPORT}")
        return
    suffix = path.suffix.lower()
    what = REFUSED.get(suffix)
    if what is None and path.is_file():
        with open(path, "rb") as handle:
            if handle.read(2) in _PICKLES:
                what = "a pickle"
    if what is not None:
        why = "" if suffix in _HARMLESS else ": loading a pickle runs whatever program it holds"
        raise FileFormatError(f"{path}: {what}. It is not read{why}. {_EXPORT}")
