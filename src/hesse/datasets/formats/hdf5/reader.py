"""Reading: type, shape, size and location of every array are checked before it is used; links are not followed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import h5py
import numpy as np

from hesse.datasets.dataset import Dataset
from hesse.datasets.formats.hdf5.content import labels_from_content, structures_from_content
from hesse.datasets.formats.hdf5.schema import (
    FORMAT,
    NATIVE_UNITS,
    REQUIRED,
    VERSION,
    ArrayStream,
    Content,
    content_checksum,
    schema,
    stream_checksum,
)
from hesse.datasets.formats.safety import has_plausible_size, hdf5_passes, is_self_contained, open_hdf5
from hesse.datasets.transforms import convert_units
from hesse.errors import FileFormatError, HesseError, UnitError, did_you_mean

__all__ = ["HDF5Reader", "is_hesse_hdf5", "open_reader", "read_hdf5"]


_CHUNK_ELEMENTS: Final = 1 << 20
"""Number of elements that are read at once where the whole content need not be in memory."""


def is_hesse_hdf5(path: Path) -> bool:
    """Recognize an HDF5 file that states its format.

    Args:
        path: the file; it need not exist.

    Returns:
        True if it has the attribute `format`, whatever its value, which the reader checks.
    """
    return path.suffix.lower() in (".h5", ".hdf5") and hdf5_passes(path, lambda file: "format" in file.attrs)


def read_hdf5(path: str | Path, *, energy_unit: str | None = None, length_unit: str | None = None) -> Dataset:
    """Read a data set. Labels are not checked for plausibility here (see `check_dataset`).

    Args:
        path: the file.
        energy_unit: energy unit of a file that does not state it.
        length_unit: length unit of a file that does not state it.

    Returns:
        Structures and labels in eV and Å.

    Raises:
        FileFormatError: not such a file, a newer version, or a truncated, damaged or inconsistent file.
        UnitError: units that are missing, unknown, or different from those that the file states.
        GeometryError: an invalid structure.
    """
    path = Path(path)
    with open_reader(path) as reader:
        content, file_units, attributes = reader.load()
    requested_units = {"energy_unit": energy_unit, "length_unit": length_unit}
    units: dict[str, str] = {}
    for key, requested in requested_units.items():
        unit = file_units.get(key, requested)
        option = f"--{key.replace('_', '-')}"
        if unit is None:
            raise UnitError(
                f"{path}: the attribute {key} is missing, so the unit is unknown. State it: `hesse convert "
                f"{path.name} OUT {option} …`, or add the attribute to the file."
            )
        if requested is not None and requested.strip().lower() != unit.strip().lower():
            raise UnitError(f"{path}: {option} {requested} was given, but the file states {unit}")
        units[key] = unit
    try:
        structures, labels = tuple(structures_from_content(content)), labels_from_content(content)
        if units != NATIVE_UNITS:
            structures, labels = convert_units(
                structures, labels, energy=units["energy_unit"], length=units["length_unit"]
            )
        return Dataset(structures, labels, metadata=attributes, source=str(path))
    except HesseError as error:
        message = str(error)
        raise type(error)(message if message.startswith(str(path)) else f"{path}: {message}") from None


@contextmanager
def open_reader(path: Path) -> Iterator[HDF5Reader]:
    """Open a file for reading, as a context; errors of HDF5 within it are reported as damage to the file.

    Args:
        path: the file.

    Raises:
        FileFormatError: the file cannot be read.
    """
    with open_hdf5(path) as file:
        yield HDF5Reader(path, file)


class HDF5Reader:
    """Reader that checks type, shape, size and link of every array before it is used.

    Args:
        path: the file, for messages.
        file: the same file, open.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path, self.file = path, file
        self.file_bytes = path.stat().st_size
        self.schema = schema()

    def error(self, what: str) -> FileFormatError:
        """Make an error that names the file.

        Args:
            what: the problem.

        Returns:
            The error, to be raised.
        """
        return FileFormatError(f"{self.path}: {what}")

    def load(self) -> tuple[Content, dict[str, str], dict[str, str]]:
        """Read the whole file and verify its checksum.

        Returns:
            Arrays by name, units and metadata.
        """
        units, attributes = self.read_header()
        arrays, content = self.validated_arrays()
        content |= {name: self.read_values(name, data) for name, data in arrays.items() if name not in content}
        self.verify_checksum(content_checksum(content, units, attributes))
        return content, units, attributes

    def read_header(self) -> tuple[dict[str, str], dict[str, str]]:
        """Check format and version, and read units and metadata.

        Returns:
            Names of the units, and metadata of the data set.
        """
        attrs = dict(self.file.attrs)
        kind = _to_str(attrs.get("format", ""))
        if kind != FORMAT:
            raise self.error(
                f'not a Hesse data set: expected the attribute format="{FORMAT}", found "{kind}" '
                f"(groups: {', '.join(list(self.file)[:8]) or 'none'})"
            )
        version = attrs.get("version")
        if not isinstance(version, int | np.integer) or version < 1:
            raise self.error(f"the attribute version must be a whole number from 1, got {version!r}")
        if version > VERSION:
            raise self.error(f"version {version} of the format; this Hesse reads up to {VERSION}. Install a newer one.")
        units = {key: _to_str(attrs[key]) for key in ("energy_unit", "length_unit") if key in attrs}
        group = self.file.get("attributes")
        return units, {k: _to_str(v) for k, v in group.attrs.items()} if isinstance(group, h5py.Group) else {}

    def verify_checksum(self, computed: str | None = None) -> None:
        """Compare the content with the checksum that is stored in the file, if there is one.

        Args:
            computed: the checksum of the content; by default it is computed here.

        Raises:
            FileFormatError: they differ.
        """
        stored = self.file.attrs.get("checksum")
        if stored is not None and _to_str(stored) != (computed or self.compute_checksum()):
            raise self.error(
                "the content does not match its checksum: the file was damaged, or changed by a program that did not "
                "remove the attribute checksum"
            )

    def compute_checksum(self) -> str:
        """Compute the checksum of the whole file, reading about a million elements at once.

        Returns:
            32 hexadecimal digits, as `content_checksum` gives for the whole content in memory.
        """
        units, attributes = self.read_header()
        types = {"text": np.dtype("S1"), "flag": np.dtype(np.bool_)}
        streams = {
            name: ArrayStream(types.get(self.schema[name][0], data.dtype), data.shape, self._iter_chunks(name, data))
            for name, data in ((name, self.file[name]) for name in self.array_names())
        }
        return stream_checksum(streams, units, attributes)

    def _iter_chunks(self, name: str, data: h5py.Dataset) -> Iterator[np.ndarray]:
        """Consecutive elements of an array; of arrays over probes those of the first probe, of the second, ..."""
        over_probes = self.schema[name][1][0] == "K"
        length, *inner = data.shape[1:] if over_probes else data.shape
        rows = max(1, _CHUNK_ELEMENTS // max(1, math.prod(inner)))
        for first in [(k,) for k in range(data.shape[0])] if over_probes else [()]:
            for start in range(0, length, rows):
                yield self.read_values(name, data, (*first, slice(start, start + rows)))

    def validated_arrays(self) -> tuple[dict[str, h5py.Dataset], Content]:
        """Check type, shape and size of all arrays.

        Returns:
            All arrays, not yet read, and the content of those with offsets.
        """
        names = self.array_names()
        sizes: dict[str, int] = {}
        if "structures/offsets" not in names:
            raise self.error("structures/offsets is missing")
        arrays = {"structures/offsets": self._validated("structures/offsets", sizes)}
        content = {"structures/offsets": self._read_offsets("structures/offsets", arrays["structures/offsets"])}
        sizes |= {"S": len(content["structures/offsets"]) - 1, "A": int(content["structures/offsets"][-1])}
        for name in REQUIRED:
            if name not in names:
                raise self.error(f"{name} is missing")
        if ("labels/hessian" in names) != ("labels/hessian_offsets" in names):
            raise self.error("labels/hessian and labels/hessian_offsets belong together; one is missing")
        if "labels/hessian" in names:
            name = "labels/hessian_offsets"
            sizes["S+1"] = len(content["structures/offsets"])
            arrays[name] = self._validated(name, sizes)
            content[name] = self._read_offsets(name, arrays[name])
            sizes["E"] = int(content[name][-1])
        return arrays | {name: self._validated(name, sizes) for name in names if name not in content}, content

    def array_names(self) -> list[str]:
        """List the names of all arrays; links to other places are refused.

        Returns:
            The names, in the order of `schema`.
        """
        names, known = [], self.schema
        for group_name in ("structures", "labels"):
            link = self.file.get(group_name, getlink=True)
            if link is None:
                continue
            self._check_hard_link(link, group_name)
            group = self.file[group_name]
            if not isinstance(group, h5py.Group):
                raise self.error(f"{group_name} must be a group")
            for key in group:
                name = f"{group_name}/{key}"
                if name not in known:
                    valid = [n.partition("/")[2] for n in known if n.startswith(group_name)]
                    hint = did_you_mean(key, valid).replace('mean "', f'mean "{group_name}/')
                    if group_name == "labels":
                        hint += " Quantities of your own: register them before (hesse.register_quantity)."
                    raise self.error(f'not part of the format: "{name}". {hint}')
                self._check_hard_link(group.get(key, getlink=True), name)
                names.append(name)
        return sorted(names, key=list(known).index)

    def _check_hard_link(self, link: object, name: str) -> None:
        if not isinstance(link, h5py.HardLink):
            raise self.error(f"{name} is a {type(link).__name__}, which leads elsewhere; only plain arrays are read")

    def _read_offsets(self, name: str, data: h5py.Dataset) -> np.ndarray:
        """Read the start of each structure."""
        values = self.read_values(name, data)
        if len(values) < 2 or values[0] != 0 or (np.diff(values) < 0).any():
            raise self.error(f"{name} must start at 0, never decrease, and describe at least one structure")
        return values

    def _validated(self, name: str, sizes: dict[str, int]) -> h5py.Dataset:
        """An array with a valid type, shape and size; `sizes` has the known dimensions and gets that of the probes."""
        kind, axes = self.schema[name]
        data = self.file[name]
        if not isinstance(data, h5py.Dataset):
            raise self.error(f"{name} must be an array")
        if not is_self_contained(data):
            raise self.error(f"{name} is stored outside the file or by a plug-in; store it plainly or with gzip")
        shape = tuple(a if isinstance(a, int) else sizes.get(a) for a in axes)
        fits = data.shape is not None and len(data.shape) == len(shape)
        if not fits or any(want not in (None, got) for want, got in zip(shape, data.shape, strict=True)):
            expected = ", ".join(str(a) if want is None else str(want) for a, want in zip(axes, shape, strict=True))
            raise self.error(f"{name} has shape {data.shape}, expected ({expected})")
        if axes[0] == "K":
            # The first array over probes defines their number.
            sizes["K"] = data.shape[0]
        dtype = data.dtype
        is_valid: Mapping[str, Callable[[], bool]] = {
            "integer": lambda: dtype.kind in "iu",
            "real": lambda: dtype.kind == "f",
            "flag": lambda: dtype.kind == "b" or (dtype.kind in "iu" and dtype.itemsize == 1),
            "text": lambda: h5py.check_string_dtype(dtype) is not None,
        }
        if not is_valid[kind]():
            raise self.error(
                f"{name} holds {dtype}, expected {'UTF-8 strings' if kind == 'text' else kind + ' numbers'}"
            )
        if not has_plausible_size(data, self.file_bytes):
            stored = data.id.get_storage_size()
            raise self.error(
                f"{name} declares {data.nbytes} bytes, of which the file holds {stored}: truncated or damaged"
            )
        return data

    def read_values(self, name: str, data: h5py.Dataset, selection: tuple[slice | int, ...] = ()) -> np.ndarray:
        """Read an array or a part of it.

        Args:
            name: name of the array.
            data: the array.
            selection: indices and slices; all by default.

        Returns:
            The values; text as bytes, flags as booleans.
        """
        kind = self.schema[name][0]
        values = data[selection]
        if kind == "text":
            return _to_bytes(values)
        return values.astype(np.bool_) if kind == "flag" else values


def _to_bytes(values: np.ndarray) -> np.ndarray:
    # h5py returns text of variable length as objects, text of fixed length as bytes.
    items = [v if isinstance(v, bytes) else str(v).encode() for v in values.tolist()]
    for item in items:
        item.decode()
    return np.array(items, dtype=bytes)


def _to_str(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
