"""What is read of an HDF5 file that somebody else wrote: plain arrays inside the file, of a size the file can hold."""

from __future__ import annotations

from typing import Final

import h5py

__all__ = ["HDF5_ERRORS", "has_plausible_size", "is_self_contained"]

_SAFE_FILTERS: Final = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
"""Filters of HDF5 itself; any other may be a plug-in, which is code found by the file."""
_MAX_COMPRESSION_RATIO: Final = 1100
"""Deflate cannot shrink by more than 1032; a larger declared size is not of this file."""
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
"""What h5py and numpy raise on damaged files."""


def is_self_contained(data: h5py.Dataset) -> bool:
    """Whether the array lies in this file and needs no filter that is a plug-in."""
    creation = data.id.get_create_plist()
    filters = {creation.get_filter(i)[0] for i in range(creation.get_nfilters())}
    return not data.is_virtual and not data.external and filters <= _SAFE_FILTERS


def has_plausible_size(data: h5py.Dataset, file_bytes: int) -> bool:
    """Whether what the array claims to hold can come from a file of `file_bytes`: asked before memory is."""
    stored: int = data.id.get_storage_size()
    return data.nbytes <= _MAX_COMPRESSION_RATIO * stored + 4096 and stored <= file_bytes
