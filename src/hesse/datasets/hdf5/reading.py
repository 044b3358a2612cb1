"""Reading: nothing is believed before it is checked, and nothing in the file is run or followed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from hesse.datasets.dataset import Dataset
from hesse.datasets.hdf5.layout import DTYPES, FORMAT, LAYOUT, REQUIRED, VERSION, Content, checksum_of
from hesse.datasets.hdf5.plain import DAMAGE, has_possible_size, is_plain
from hesse.datasets.transforms import from_units
from hesse.errors import FileFormatError, HesseError, UnitError, nearest_name
from hesse.files import require_file
from hesse.structures import Labels, Structure

__all__ = ["Reader", "labels_of", "load_content", "opened", "read_hdf5", "structures_of"]


def read_hdf5(path: str | Path, *, energy_unit: str | None = None, length_unit: str | None = None) -> Dataset:
    """Read a data set; other units than eV and Å are converted. Labels are not judged here (see `read_dataset`).

    Args:
        energy_unit: for files that do not state it; contradicting a stated unit is an error.
        length_unit: likewise.

    Raises:
        FileFormatError: not such a file, of a newer version, truncated, damaged, or not consistent in itself.
        UnitError: the file does not state its units, or states unknown ones.
        GeometryError: a structure that is none.
    """
    path = Path(path)
    content, stated, attributes = load_content(path)
    wanted = {"energy_unit": energy_unit, "length_unit": length_unit}
    units: dict[str, str] = {}
    for key, said in wanted.items():
        given = stated.get(key, said)
        option = f"--{key.replace('_', '-')}"
        if given is None:
            raise UnitError(
                f"{path}: the attribute {key} is missing, so the numbers mean nothing. State it: `hesse convert "
                f"{path.name} OUT {option} …`, or add the attribute to the file."
            )
        if said is not None and said.strip().lower() != given.strip().lower():
            raise UnitError(f"{path}: {option} {said} was given, but the file says that it is in {given}")
        units[key] = given
    try:
        structures, labels = from_units(
            tuple(structures_of(content)),
            labels_of(content),
            energy=units["energy_unit"],
            length=units["length_unit"],
        )
        return Dataset(structures, labels, attributes=attributes, source=str(path))
    except HesseError as error:
        message = str(error)
        raise type(error)(message if message.startswith(str(path)) else f"{path}: {message}") from None


def load_content(path: Path) -> tuple[Content, dict[str, str], dict[str, str]]:
    """Everything in the file, checked for shape and damage: arrays, units, attributes."""
    with opened(path) as reader:
        return reader.load()


@contextmanager
def opened(path: Path) -> Iterator[Reader]:
    """The file for reading; what breaks meanwhile is reported as damage to it."""
    require_file(path)
    try:
        # Locks are a nuisance on shared file systems, and a file in its place is never written to.
        with h5py.File(path, "r", locking="best-effort") as file:
            yield Reader(path, file)
    except DAMAGE as error:
        raise FileFormatError(
            f"{path}: cannot be read as HDF5; it is truncated, damaged or another kind of file ({error})"
        ) from error


class Reader:
    """A file of the format, believed in nothing."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path, self.file = path, file
        self.bytes = path.stat().st_size

    def fail(self, what: str) -> FileFormatError:
        return FileFormatError(f"{self.path}: {what}")

    def load(self) -> tuple[Content, dict[str, str], dict[str, str]]:
        """All of it."""
        units, attributes = self.header()
        arrays, content = self.arrays()
        content |= {name: self.values(name, data) for name, data in arrays.items() if name not in content}
        checksum = self.checksum()
        if checksum is not None and checksum != checksum_of(content, units, attributes):
            raise self.changed()
        return content, units, attributes

    def header(self) -> tuple[dict[str, str], dict[str, str]]:
        """Units and attributes of a file of this format and of a version that is known."""
        attrs = dict(self.file.attrs)
        kind = _as_text(attrs.get("format", ""))
        if kind != FORMAT:
            raise self.fail(
                f'not a Hesse data set: expected the attribute format="{FORMAT}", found "{kind}" '
                f"(groups: {', '.join(list(self.file)[:8]) or 'none'})"
            )
        version = attrs.get("version")
        if not isinstance(version, int | np.integer) or version < 1:
            raise self.fail(f"the attribute version must be a whole number from 1, got {version!r}")
        if version > VERSION:
            raise self.fail(f"version {version} of the format; this Hesse reads up to {VERSION}. Install a newer one.")
        units = {key: _as_text(attrs[key]) for key in ("energy_unit", "length_unit") if key in attrs}
        notes = self.file.get("attributes")
        return units, {k: _as_text(v) for k, v in notes.attrs.items()} if isinstance(notes, h5py.Group) else {}

    def checksum(self) -> str | None:
        """The one that is written there."""
        stated = self.file.attrs.get("checksum")
        return None if stated is None else _as_text(stated)

    def changed(self) -> FileFormatError:
        """To be raised when the content has another checksum."""
        return self.fail(
            "the content does not match its checksum: the file was damaged, or changed by a program that did not "
            "remove the attribute checksum"
        )

    def arrays(self) -> tuple[dict[str, h5py.Dataset], Content]:
        """All arrays, of possible types, shapes and sizes; and the offsets, read."""
        names = self.names()
        sizes: dict[str, int] = {}
        if "structures/offsets" not in names:
            raise self.fail("structures/offsets is missing")
        found = {"structures/offsets": self.checked("structures/offsets", sizes)}
        content = {"structures/offsets": self.offsets("structures/offsets", found["structures/offsets"])}
        sizes |= {"S": len(content["structures/offsets"]) - 1, "A": int(content["structures/offsets"][-1])}
        for name in REQUIRED:
            if name not in names:
                raise self.fail(f"{name} is missing")
        if ("labels/hessian" in names) != ("labels/hessian_offsets" in names):
            raise self.fail("labels/hessian and labels/hessian_offsets belong together; one is missing")
        if "labels/hessian" in names:
            name = "labels/hessian_offsets"
            sizes["S+1"] = len(content["structures/offsets"])
            found[name] = self.checked(name, sizes)
            content[name] = self.offsets(name, found[name])
            sizes["E"] = int(content[name][-1])
        return found | {name: self.checked(name, sizes) for name in names if name not in content}, content

    def names(self) -> list[str]:
        """Names of all arrays, in the order of the layout; anything that leads elsewhere is refused."""
        found = []
        for group_name in ("structures", "labels"):
            link = self.file.get(group_name, getlink=True)
            if link is None:
                continue
            self.require_hard(link, group_name)
            group = self.file[group_name]
            if not isinstance(group, h5py.Group):
                raise self.fail(f"{group_name} must be a group")
            for key in group:
                name = f"{group_name}/{key}"
                if name not in LAYOUT:
                    valid = [n for n in LAYOUT if n.startswith(group_name)]
                    raise self.fail(f'no part of the format: "{name}". {nearest_name(name, valid)}')
                self.require_hard(group.get(key, getlink=True), name)
                found.append(name)
        return sorted(found, key=list(LAYOUT).index)

    def require_hard(self, link: object, name: str) -> None:
        if not isinstance(link, h5py.HardLink):
            raise self.fail(f"{name} is a {type(link).__name__}, which leads elsewhere; only plain arrays are read")

    def offsets(self, name: str, data: h5py.Dataset) -> np.ndarray:
        """Read where each structure begins."""
        values = self.values(name, data)
        if len(values) < 2 or values[0] != 0 or (np.diff(values) < 0).any():
            raise self.fail(f"{name} must start at 0, never fall, and describe at least one structure")
        return values

    def checked(self, name: str, sizes: dict[str, int]) -> h5py.Dataset:
        """One array whose type, shape and size on disk are possible."""
        kind, axes = LAYOUT[name]
        data = self.file[name]
        if not isinstance(data, h5py.Dataset):
            raise self.fail(f"{name} must be an array")
        if not is_plain(data):
            raise self.fail(f"{name} is stored outside the file or by a plug-in; store it plainly or with gzip")
        shape = tuple(a if isinstance(a, int) else sizes.get(a) for a in axes)
        fits = data.shape is not None and len(data.shape) == len(shape)
        if not fits or any(want not in (None, got) for want, got in zip(shape, data.shape, strict=True)):
            wanted = ", ".join(str(a) if want is None else str(want) for a, want in zip(axes, shape, strict=True))
            raise self.fail(f"{name} has shape {data.shape}, expected ({wanted})")
        if axes[0] == "K":
            # Known from the first array that has it.
            sizes["K"] = data.shape[0]
        dtype = data.dtype
        ok: Mapping[str, Callable[[], bool]] = {
            "integer": lambda: dtype.kind in "iu",
            "real": lambda: dtype.kind == "f",
            "flag": lambda: dtype.kind == "b" or (dtype.kind in "iu" and dtype.itemsize == 1),
            "text": lambda: h5py.check_string_dtype(dtype) is not None,
        }
        if not ok[kind]():
            raise self.fail(
                f"{name} holds {dtype}, expected {'UTF-8 strings' if kind == 'text' else kind + ' numbers'}"
            )
        if not has_possible_size(data, self.bytes):
            stored = data.id.get_storage_size()
            raise self.fail(
                f"{name} claims {data.nbytes} bytes, of which the file holds {stored}: truncated or damaged"
            )
        return data

    def values(self, name: str, data: h5py.Dataset, part: tuple[slice | int, ...] = ()) -> np.ndarray:
        """Read an array, or a part of it: texts as bytes, flags as booleans."""
        kind = LAYOUT[name][0]
        values = data[part]
        if kind == "text":
            return _texts_in(values)
        return values.astype(np.bool_) if kind == "flag" else values


def _texts_in(values: np.ndarray) -> np.ndarray:
    # Texts of variable length arrive as objects, those of fixed length as bytes.
    items = [v if isinstance(v, bytes) else str(v).encode() for v in values.tolist()]
    for item in items:
        item.decode()
    return np.array(items, dtype=bytes)


def _as_text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def structures_of(content: Content) -> list[Structure]:
    """The structures in `content`, checked one by one."""
    offsets = content["structures/offsets"].tolist()
    count = len(offsets) - 1
    blank = {"tag": b"", "group": b"", "charge": 0, "multiplicity": 1}
    columns: dict[str, Any] = {
        name: content[f"structures/{name}"].tolist() if f"structures/{name}" in content else [empty] * count
        for name, empty in blank.items()
    }
    numbers = content["structures/numbers"]
    positions = content["structures/positions"]
    cells = content.get("structures/cell", np.zeros((count, 3, 3)))
    pbc = content.get("structures/pbc", np.zeros((count, 3), dtype=bool))
    ids = content["structures/id"].tolist()
    return [
        Structure(
            numbers[start:end],
            positions[start:end],
            id=ids[i].decode(),
            cell=cells[i],
            pbc=tuple(pbc[i].tolist()),
            charge=columns["charge"][i],
            multiplicity=columns["multiplicity"][i],
            tag=columns["tag"][i].decode(),
            group=columns["group"][i].decode(),
        )
        for i, (start, end) in enumerate(pairwise(offsets))
    ]


def labels_of(content: Content) -> Labels:
    """The labels in `content`."""
    n_atoms = np.diff(content["structures/offsets"])
    fields: dict[str, Any] = {"n_atoms": torch.from_numpy(n_atoms.astype(np.int64))}
    for name, array in content.items():
        owner, key = name.split("/")
        if owner == "labels" and key != "hessian_offsets":
            fields[key] = torch.from_numpy(array.astype(DTYPES[LAYOUT[name][0]], copy=False))
    if "hessian" in fields:
        lengths = np.diff(content["labels/hessian_offsets"])
        wrong = (lengths != 0) & (lengths != 9 * n_atoms**2)
        if wrong.any():
            i = int(wrong.argmax())
            raise FileFormatError(
                f'structure "{content["structures/id"][i].decode()}": a Hessian of {lengths[i]} elements; '
                f"{n_atoms[i]} atoms need {9 * n_atoms[i] ** 2}, or 0 for none"
            )
        if (lengths == 0).any():
            fields["hessian_mask"] = torch.from_numpy(lengths > 0)
    return Labels(**fields)
