"""Checks of HDF5 files of unknown origin: only plain arrays inside the file are read, of a size that it can contain."""

from __future__ import annotations

from typing import Final

import h5py

__all__ = ["HDF5_ERRORS", "has_plausible_size", "is_self_contained"]

_SAFE_FILTERS: Final = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
"""Filters that are part of HDF5; any other filter may be a plug-in, which is code that opening the file would run."""
_MAX_COMPRESSION_RATIO: Final = 1100
"""Deflate compresses by at most 1032; an array that declares a larger size is invalid."""
HDF5_ERRORS: Final = (
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


def is_self_contained(data: h5py.Dataset) -> bool:
    """Check that an array is stored in the file itself and without plug-in filters.

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
