"""Files of unknown origin: formats that are never read because loading them can run code, and checks of HDF5 files, of
which only plain arrays inside the file are read, of a size that it can contain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

import h5py

from hesse.errors import FileFormatError
from hesse.runtime.filesystem import check_input_file

__all__ = ["UNSAFE_SUFFIXES", "has_plausible_size", "hdf5_passes", "is_self_contained", "open_hdf5", "refuse_unsafe"]

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
_SAFE_FILTERS: Final = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
"""Filters that are part of HDF5; any other filter may be a plug-in, which is code that opening the file would run."""
_MAX_COMPRESSION_RATIO: Final = 1100
"""Deflate compresses by at most 1032; an array that declares a larger size is invalid."""
_HDF5_ERRORS: Final = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    IndexError,
    OverflowError,
    MemoryError,
    NotImplementedError,
)
"""Errors that h5py and numpy raise for damaged files."""


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


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, as a context; errors of HDF5 within it are reported as damage to the file.

    Args:
        path: the file.

    Yields:
        The open file.

    Raises:
        FileFormatError: the file cannot be read.
    """
    check_input_file(path)
    try:
        # No lock is needed: files are replaced, never changed in place. Shared file systems often cannot lock.
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except _HDF5_ERRORS as error:
        raise FileFormatError(
            f"{path}: cannot be read as HDF5; it is truncated, damaged or another kind of file ({error})"
        ) from error


def hdf5_passes(path: Path, test: Callable[[h5py.File], bool]) -> bool:
    """Whether the content of an HDF5 file passes a test.

    Args:
        path: the file; it need not exist, nor be HDF5.
        test: called with the open file.

    Returns:
        What `test` returns; False for a file that cannot be read as HDF5.
    """
    try:
        with open_hdf5(path) as file:
            return test(file)
    except FileFormatError:
        return False


def is_self_contained(data: h5py.Dataset) -> bool:
    """Check that an array is stored in the HDF5 file itself and without plug-in filters.

    Args:
        data: the array.

    Returns:
        True if it can be read without opening other files or running code.
    """
    creation = data.id.get_create_plist()
    filters = {creation.get_filter(i)[0] for i in range(creation.get_nfilters())}
    return not data.is_virtual and not data.external and filters <= _SAFE_FILTERS


def has_plausible_size(data: h5py.Dataset, file_bytes: int) -> bool:
    """Check that the declared size of an array can be true, before memory is allocated for it.

    Args:
        data: the array.
        file_bytes: size of the file.

    Returns:
        True if a file of this size can contain the array.
    """
    stored: int = data.id.get_storage_size()
    return data.nbytes <= _MAX_COMPRESSION_RATIO * stored + 4096 and stored <= file_bytes
