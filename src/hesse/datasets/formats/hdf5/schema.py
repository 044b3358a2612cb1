"""Arrays of the format `hesse-dataset`, and the checksum of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hesse.structures import is_bead
from hesse.structures.quantities import COLUMNS

__all__ = [
    "DTYPES",
    "FORMAT",
    "NATIVE_UNITS",
    "REQUIRED",
    "VERSION",
    "ArrayStream",
    "Content",
    "compact_numbers",
    "content_checksum",
    "schema",
    "stream_checksum",
    "version_of",
    "version_of_content",
]

FORMAT: Final = "hesse-dataset"
VERSION: Final = 5
"""The newest version that can be read. Version 2 added `labels/suspect`, version 3 weights and registered quantities,
version 4 masses of isotopes, version 5 numbers of bead types. A file is written in the lowest version that holds its
arrays, so that older releases can read it."""

NATIVE_UNITS: Final = {"energy_unit": "eV", "length_unit": "angstrom"}
"""Units in which Hesse writes; files of other programs may state others."""

Content = dict[str, np.ndarray]

_STRUCTURES: Final[Mapping[str, tuple[str, tuple[str | int, ...]]]] = {
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
    "structures/masses": ("real", ("A",)),
}
_AXES: Final = {
    "structure": ("S",),
    "atom": ("A",),
    "probe atom": ("K", "A"),
    "probe structure": ("K", "S"),
    "element": ("E",),
}


def schema() -> dict[str, tuple[str, tuple[str | int, ...]]]:
    """Kind and shape of every array of the format: S structures, A atoms, K probes, E elements of Hessians.

    Returns:
        Kind ("integer", "real", "flag", "text") and axes by name; arrays of labels follow from the table of quantities.
    """
    arrays = dict(_STRUCTURES)
    for name, column in COLUMNS.items():
        # Structures without a Hessian are those of length zero in the offsets.
        if column.quantity.role == "output" or name == "hessian_mask":
            continue
        arrays[f"labels/{name}"] = ("flag" if column.is_flag else "real", (*_AXES[column.axes], *column.components))
        if column.axes == "element":
            arrays[f"labels/{name}_offsets"] = ("integer", ("S+1",))
    return arrays


def version_of(name: str) -> int:
    """The version of the format that introduced an array.

    Args:
        name: name of the array.

    Returns:
        The version.
    """
    if name == "structures/masses":
        return 4
    if name in _STRUCTURES or name.removeprefix("labels/") in _FIRST_LABELS:
        return 1
    return 2 if name == "labels/suspect" else 3


def version_of_content(content: Content) -> int:
    """The lowest version of the format that holds some arrays.

    Args:
        content: all arrays by name.

    Returns:
        The version.
    """
    lowest = max(version_of(name) for name in content)
    return max(lowest, 5) if is_bead(content["structures/numbers"]).any() else lowest


def compact_numbers(numbers: np.ndarray) -> np.ndarray:
    """Atomic numbers as bytes; with bead types, whose numbers are larger, as integers of 64 bits.

    Args:
        numbers: numbers of elements and bead types.

    Returns:
        The same numbers.
    """
    return numbers.astype(np.int64 if is_bead(numbers).any() else np.uint8)


_FIRST_LABELS: Final = frozenset(
    f"{name}{suffix}"
    for name in ("energy", "forces", "probes", "hvp", "hessian", "atomic_energies", "stress")
    for suffix in ("", "_mask", "_error", "_offsets")
)
REQUIRED: Final = ("structures/offsets", "structures/id", "structures/numbers", "structures/positions")
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
