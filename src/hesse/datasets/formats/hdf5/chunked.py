"""Reading of parts of a file, for data that exceed the memory."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import h5py
import numpy as np

from hesse.datasets.formats.hdf5.reader import HDF5Reader, open_reader
from hesse.datasets.formats.hdf5.schema import DTYPES, Content, schema
from hesse.errors import FileFormatError

__all__ = ["ChunkedReader"]


class ChunkedReader:
    """Reads any range of structures of a file. Only the offsets are kept in memory.

    Args:
        path: the file; it must not change while it is in use.

    Attributes:
        path: the file.
        units: names of its units.
        attributes: its metadata.
        names: names of its arrays.
        shapes: shapes of its arrays, by name.
        offsets: start of the atoms of each structure, `[structures + 1]`.
        hessian_offsets: start of the elements of each Hessian, `[structures + 1]`; None without Hessians.

    Raises:
        FileFormatError: the file is not valid, see `hesse.datasets.read_hdf5`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with open_reader(self.path) as reader:
            self.units, self.attributes = reader.read_header()
            arrays, content = reader.validated_arrays()
            self.shapes = {name: tuple(data.shape) for name, data in arrays.items()}
        self.names = tuple(self.shapes)
        self.offsets: np.ndarray = content["structures/offsets"].astype(np.int64)
        hessian_offsets = content.get("labels/hessian_offsets")
        self.hessian_offsets: np.ndarray | None = None if hessian_offsets is None else hessian_offsets.astype(np.int64)
        self._opened_state = self._file_state()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def _file_state(self) -> tuple[int, int]:
        state = self.path.stat()
        return state.st_mtime_ns, state.st_size

    def _check_unchanged(self) -> None:
        try:
            unchanged = self._file_state() == self._opened_state
        except OSError:
            unchanged = False
        if not unchanged:
            raise FileFormatError(
                f"{self.path}: the file was changed or removed while it was in use. Start again when "
                "no program writes to it."
            )

    # --- blocks --------------------------------------------------------------------------------------------------

    def read(self, start: int, stop: int, names: Collection[str] | None = None) -> Content:
        """Read a range of structures.

        Args:
            start: first structure.
            stop: end of the range, exclusive.
            names: names of the arrays to read; None for all.

        Returns:
            Arrays by name, like those of a file with these structures only.

        Raises:
            FileFormatError: the file is damaged there, or changed since it was opened.
        """
        self._check_unchanged()
        with open_reader(self.path) as reader:
            selected = [name for name in self.names if names is None or name in names]
            return {name: self._read_slice(reader, name, start, stop) for name in selected}

    def _read_slice(self, reader: HDF5Reader, name: str, start: int, stop: int) -> np.ndarray:
        if name in ("structures/offsets", "labels/hessian_offsets"):
            offsets = self.offsets if name.startswith("structures") else self.hessian_offsets
            assert offsets is not None
            local_offsets: np.ndarray = offsets[start : stop + 1] - offsets[start]
            return local_offsets
        ranges = {"S": (start, stop), "A": (int(self.offsets[start]), int(self.offsets[stop]))}
        if self.hessian_offsets is not None:
            ranges["E"] = (int(self.hessian_offsets[start]), int(self.hessian_offsets[stop]))
        selection = tuple(slice(*ranges.get(str(axis), (None,))) for axis in schema()[name][1])
        return reader.read_values(name, self._open_array(reader, name), selection)

    def _open_array(self, reader: HDF5Reader, name: str) -> h5py.Dataset:
        data = reader.file[name]
        if tuple(data.shape) != self.shapes[name]:
            raise reader.error(f"{name} has another shape than before: the file was changed while it was in use")
        return data

    # --- whole arrays --------------------------------------------------------------------------------------------

    def read_array(self, name: str) -> np.ndarray:
        """Read a whole array; meant for those with one value per structure.

        Args:
            name: name of the array, such as "structures/id".

        Returns:
            The array; text as bytes, flags as booleans.
        """
        with open_reader(self.path) as reader:
            return reader.read_values(name, self._open_array(reader, name))

    def verify_checksum(self) -> None:
        """Compare the content with the checksum that is stored in the file.

        Raises:
            FileFormatError: they differ.
        """
        with open_reader(self.path) as reader:
            reader.verify_checksum()

    def bytes_per_structure(self, names: Collection[str]) -> np.ndarray:
        """Compute the memory of some arrays, with the types that they have in `hesse.structures.Properties`.

        Args:
            names: names of the arrays.

        Returns:
            Bytes for each structure, `[structures]`.
        """
        n = np.diff(self.offsets)
        elements = np.zeros_like(n) if self.hessian_offsets is None else np.diff(self.hessian_offsets)
        total = np.zeros(len(self), dtype=np.int64)
        for name in self.names:
            kind, axes = schema()[name]
            if name in names and "S+1" not in axes:
                per = {"A": n, "E": elements}.get(str(next(a for a in axes if a != "K")), np.ones_like(n))
                probes = self.shapes[name][0] if axes[0] == "K" else 1
                inner = int(np.prod([a for a in axes if isinstance(a, int)]))
                size = np.dtype(DTYPES[kind]).itemsize if kind in DTYPES else 64
                total += per * probes * inner * size
        return total
