"""Writing: the file is composed in memory, written under a temporary name, read again and its checksum compared, then
renamed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from hesse.datasets.dataset import Dataset
from hesse.datasets.formats.hdf5.reader import open_reader
from hesse.datasets.formats.hdf5.schema import (
    DTYPES,
    FORMAT,
    NATIVE_UNITS,
    Content,
    compact_numbers,
    content_checksum,
    schema,
    version_of_content,
)
from hesse.errors import FileFormatError, RequestError, WriteError
from hesse.runtime.filesystem import atomic_write
from hesse.structures import segment_offsets

__all__ = ["write_hdf5"]

_CHUNK_ELEMENTS: Final = 1 << 17
"""Number of elements that are compressed together."""


def write_hdf5(path: str | Path, dataset: Dataset) -> None:
    """Write a data set in eV and Å.

    The file is composed in memory and then written by plain system calls, because HDF5's own writer crashes the process
    when the disk is full. It is read again and its checksum compared before it replaces an existing file.

    Args:
        path: the new file; an existing one does not change if writing fails.
        dataset: the data.

    Raises:
        RequestError: an id, tag or group that ends with a zero byte.
        WriteError: the disk is full, the folder is missing or not writable, or the disk returned other data.
    """
    path = Path(path)
    content = _collect_content(dataset)
    checksum = content_checksum(content, NATIVE_UNITS, dataset.metadata)
    image = io.BytesIO()
    with h5py.File(image, "w", libver=("v110", "v110")) as file:
        _write_attribute(file, "format", FORMAT)
        file.attrs["version"] = version_of_content(content)
        for key, unit in NATIVE_UNITS.items():
            _write_attribute(file, key, unit)
        _write_attribute(file, "checksum", checksum)
        attributes_group = file.create_group("attributes", track_order=True)
        for key, value in dataset.metadata.items():
            _write_attribute(attributes_group, key, value)
        for name, array in content.items():
            _write_array(file, name, array)
    with atomic_write(path) as temporary:
        temporary.write_bytes(image.getbuffer())
        del image  # frees the second copy of a large data set
        try:
            with open_reader(temporary) as reader:
                problem = "" if reader.compute_checksum() == checksum else "the content does not match its checksum"
        except FileFormatError as error:
            problem = str(error)
        if problem:
            raise WriteError(f"cannot write {path}: the data read back from the disk differ ({problem})")


def _write_attribute(target: h5py.Group, key: str, text: str) -> None:
    """Write text of fixed length, which HDF5 protects by checksums. Text of variable length is stored on a heap without
    checksums, where a flipped bit can make the library loop forever."""
    encoded = str(text).encode()
    target.attrs.create(key, encoded, dtype=h5py.string_dtype("utf-8", max(1, len(encoded))))


def _write_array(file: h5py.File, name: str, array: np.ndarray) -> None:
    dtype: Any = array.dtype
    if array.dtype.kind == "S":
        dtype = h5py.string_dtype("utf-8", array.dtype.itemsize)
    options: dict[str, Any] = {}
    if array.size:
        rows = max(1, min(len(array), _CHUNK_ELEMENTS // max(1, array[0].size)))
        # Long second axes (probes of many atoms) are divided as well.
        chunk = (rows, *(min(n, _CHUNK_ELEMENTS) for n in array.shape[1:]))
        options = {
            "chunks": chunk,
            "compression": "gzip",
            "compression_opts": 1,
            "shuffle": array.dtype.kind != "S",
            "fletcher32": True,
        }
    file.create_dataset(name, data=array.astype(dtype, copy=False), track_times=False, **options)


def _collect_content(dataset: Dataset) -> Content:
    structures, labels = dataset.structures, dataset.labels
    content: Content = {
        "structures/offsets": segment_offsets(labels.n_atoms).numpy(),
        "structures/id": _encode([s.id for s in structures]),
        "structures/numbers": compact_numbers(np.concatenate([s.numbers for s in structures])),
        "structures/positions": np.concatenate([s.positions for s in structures]),
    }
    # Arrays of default values are left out.
    if any(s.cell.any() for s in structures):
        content["structures/cell"] = np.stack([s.cell for s in structures])
    if any(s.periodic for s in structures):
        content["structures/pbc"] = np.array([s.pbc for s in structures], dtype=bool)
    if any(s.charge for s in structures):
        content["structures/charge"] = np.array([s.charge for s in structures])
    if any(s.multiplicity != 1 for s in structures):
        content["structures/multiplicity"] = np.array([s.multiplicity for s in structures])
    for name in ("tag", "group"):
        values = [getattr(s, name) for s in structures]
        if any(values):
            content[f"structures/{name}"] = _encode(values)
    if any(s.masses is not None for s in structures):
        # Zeros for structures with the standard masses.
        own = [np.zeros(len(s)) if s.masses is None else s.masses for s in structures]
        content["structures/masses"] = np.concatenate(own)
    arrays = schema()
    for column, value in labels.items():
        key = f"labels/{column.name}"
        if key in arrays and not (column.name == "suspect" and not bool(value.any())):
            content[key] = value.detach().cpu().numpy().astype(DTYPES[arrays[key][0]], copy=False)
    if labels.hessian is not None:
        content["labels/hessian_offsets"] = segment_offsets(labels.hessian_lengths()).numpy()
    return content


def _encode(values: list[str]) -> np.ndarray:
    for value in values:
        if value.endswith("\0"):
            raise RequestError(f"HDF5 cannot hold the zero at the end of {value!r}; rename it")
    return np.array([v.encode() for v in values], dtype=bytes)
