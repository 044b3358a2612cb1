"""Arrays of the format `hesse-dataset`, and the checksum of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

__all__ = [
    "ADDED_IN",
    "DTYPES",
    "FORMAT",
    "REQUIRED",
    "SCHEMA",
    "VERSION",
    "ArrayStream",
    "Content",
    "content_checksum",
    "stream_checksum",
]

FORMAT: Final = "hesse-dataset"
VERSION: Final = 2
"""The newest version that can be read. Version 2 added `labels/suspect`; files without it are written as version 1, so
that older releases can read them."""

Content = dict[str, np.ndarray]

# Kind and shape of every array: S structures, A atoms, K probes, E elements of Hessians.
SCHEMA: Final[Mapping[str, tuple[str, tuple[str | int, ...]]]] = {
    "structures/offsets": ("integer", ("S+1",)),
    "structures/id": ("text", ("S",)),
    "structures/numbers": ("integer", ("A",)),
    "structures/positions": ("real", ("A", 3)),
    "structures/cell": ("real", ("S", 3, 3)),
    "structures/pbc": ("flag", ("S", 3)),
    "structures/charge": ("integer", ("S",)),
    "structures/multiplicity": ("integer", ("S",)),
    "structures/tag": ("text", ("S",)),
    "structures/group": ("text", ("S",)),
    "labels/energy": ("real", ("S",)),
    "labels/forces": ("real", ("A", 3)),
    "labels/probes": ("real", ("K", "A", 3)),
    "labels/hvp": ("real", ("K", "A", 3)),
    "labels/hessian": ("real", ("E",)),
    "labels/hessian_offsets": ("integer", ("S+1",)),
    "labels/atomic_energies": ("real", ("A",)),
    "labels/stress": ("real", ("S", 3, 3)),
    "labels/energy_mask": ("flag", ("S",)),
    "labels/forces_mask": ("flag", ("S",)),
    "labels/hvp_mask": ("flag", ("K", "S")),
    "labels/atomic_energies_mask": ("flag", ("S",)),
    "labels/stress_mask": ("flag", ("S",)),
    "labels/energy_error": ("real", ("S",)),
    "labels/forces_error": ("real", ("S",)),
    "labels/hvp_error": ("real", ("K", "S")),
    "labels/hessian_error": ("real", ("S",)),
    "labels/suspect": ("flag", ("S",)),
}
REQUIRED: Final = ("structures/offsets", "structures/id", "structures/numbers", "structures/positions")
ADDED_IN: Final[Mapping[str, int]] = {"labels/suspect": 2}
"""The version of the format that introduced an array, if it is not the first."""
DTYPES: Final[Mapping[str, Any]] = {"integer": np.int64, "real": np.float64, "flag": np.bool_}


@dataclass(frozen=True)
class ArrayStream:
    """An array that is read in chunks.

    Attributes:
        dtype: type of the elements; bytes for text.
        shape: shape of the whole array.
        chunks: the elements, in order.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    chunks: Iterable[np.ndarray]


def content_checksum(content: Content, units: Mapping[str, str], attributes: Mapping[str, str]) -> str:
    """Compute the checksum of the content of a file.

    Args:
        content: all arrays by name.
        units: names of the units.
        attributes: metadata of the data set.

    Returns:
        32 hexadecimal digits.
    """
    streams = {name: ArrayStream(array.dtype, array.shape, [array]) for name, array in content.items()}
    return stream_checksum(streams, units, attributes)


def stream_checksum(content: Mapping[str, ArrayStream], units: Mapping[str, str], attributes: Mapping[str, str]) -> str:
    """Compute `content_checksum` of arrays that are read in chunks.

    Args:
        content: all arrays by name.
        units: names of the units.
        attributes: metadata of the data set.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for title, table in (("units", units), ("attributes", attributes)):
        digest.update(f"{title}{sorted((str(k), str(v)) for k, v in table.items())}".encode())
    for name in sorted(content):
        stream = content[name]
        # The type of a text array contains the length of its longest text, which is not part of the content.
        kind = "text" if stream.dtype.kind == "S" else stream.dtype.str
        digest.update(f"{name}{kind}{stream.shape}".encode())
        separator = b""
        for chunk in stream.chunks:
            array = np.ascontiguousarray(chunk)
            if kind != "text":
                digest.update(array.data)
            elif array.size:
                digest.update(separator + b"\0".join(array.tolist()))
                separator = b"\0"
    return digest.hexdigest()
