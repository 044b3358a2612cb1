"""Data sets in extended XYZ, with ASE's conventions (eV, Å); the keys are listed in docs/formats.md.

The reader splits the file into frames, so that every error names one, and lets ASE turn each frame into `Atoms`. The
writer keeps all digits: what is read back is bit by bit what was written.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from hesse.datasets.ase_atoms import ATTRIBUTE_KEYS, TEXT_KEYS, AtomsReader, label_columns, label_info
from hesse.datasets.dataset import Dataset
from hesse.datasets.transforms import convert_units
from hesse.errors import FileFormatError, HesseError, RequestError, did_you_mean
from hesse.runtime.filesystem import atomic_write, check_input_file
from hesse.structures import Properties, Structure

__all__ = ["read_extxyz", "write_extxyz"]

_KEY_VALUE: Final = re.compile(
    r"""([^\s="'\[{]+)                                    # key
    (?:\s*=\s*("[^"\\]*(?:\\.[^"\\]*)*"              # = "text", 'text', {list}, [list] or word
              |'[^'\\]*(?:\\.[^'\\]*)*'|\{[^}]*\}|\[[^\]]*\]|[^\s"']*))?""",
    re.VERBOSE,
)


def read_extxyz(
    path: str | Path,
    *,
    energy_unit: str = "eV",
    length_unit: str = "angstrom",
    rename: Mapping[str, str] | None = None,
) -> Dataset:
    """Read all frames of an extended (or plain) XYZ file; every label is optional. Labels are not checked for
    plausibility here (see `check_dataset`).

    Args:
        path: the file.
        energy_unit: unit of energies in the file.
        length_unit: unit of lengths in the file; forces are in energy/length.
        rename: keys and columns of the file and the names of docs/formats.md under which to read them
            (`{"REF_forces": "forces"}`); they take precedence over keys that have these names already.

    Returns:
        The data set, in eV and Å. A frame without `structure_id` gets an id made of formula and content.

    Raises:
        FileFormatError: the file is empty, truncated or not extended XYZ; the message names frame and line.
        LabelShapeError, LabelValueError: a label of a wrong shape, or not a number.
        GeometryError: a frame that is not a valid structure.
        RequestError: two frames with the same `structure_id`, or a name in `rename` that no frame has.
    """
    path = Path(path)
    reader = AtomsReader()
    missing = set(rename or {})
    for frame in _iter_frames(path):
        atoms = frame.to_atoms(rename or {}, missing)
        try:
            reader.add(atoms)
        except HesseError as error:
            raise type(error)(f"{frame.location}: {error}") from None
    if not reader.structures:
        raise FileFormatError(f"{path}: the file is empty; expected at least one frame")
    if missing:
        keys = reader.not_read
        hint = did_you_mean(min(missing), keys) if keys else "It has no keys but the known ones."
        raise RequestError(f'{path}: --rename: no frame has "{min(missing)}". {hint}')
    structures, labels = convert_units(
        reader.structures, Properties.concatenate(reader.labels), energy=energy_unit, length=length_unit
    )
    return Dataset(structures, labels, metadata=reader.metadata(), source=str(path), not_read=reader.not_read)


@dataclass(frozen=True)
class _Frame:
    path: Path
    index: int
    line: int
    lines: list[str]

    @property
    def location(self) -> str:
        return f"{self.path}: frame {self.index} (line {self.line})"

    def to_atoms(self, rename: Mapping[str, str], missing: set[str]) -> Atoms:
        """The frame as ASE reads it, with keys renamed; the old names that it has are removed from `missing`. Raises
        FileFormatError for anything that is not extended XYZ."""
        from ase.io.extxyz import read_xyz  # imports half of ASE

        try:
            info = _parse_comment(self.lines[1], rename)
            missing -= _rename_keys(info, rename)
            properties = info.get("Properties", "species:S:1:pos:R:3")
            expected = sum(int(x) for x in str(properties).split(":")[2::3])
        except ValueError as error:
            raise FileFormatError(f"{self.location}: the comment line cannot be read: {error}") from error
        for i, line in enumerate(self.lines[2:]):
            n_columns = len(line.split())
            if n_columns < expected or (n_columns > expected and "Properties" in info):
                raise FileFormatError(
                    f"{self.path}: frame {self.index}, line {self.line + 2 + i}: expected {expected} columns "
                    f"({properties}), got {n_columns}: {line.strip()[:60]!r}"
                )
        try:
            # The comment line is parsed already.
            text = io.StringIO("".join([self.lines[0], "_\n", *self.lines[2:]]))
            return next(iter(read_xyz(text, 0, properties_parser=lambda _: info)))
        except Exception as error:  # ASE raises errors of many types
            reason = f"unknown element {error}" if isinstance(error, KeyError) else str(error)
            raise FileFormatError(f"{self.location}: not extended XYZ: {reason}") from error


def _iter_frames(path: Path) -> Iterator[_Frame]:
    check_input_file(path)
    number, index = 0, 0
    try:
        with open(path, encoding="utf-8") as handle:
            while count_line := handle.readline():
                number += 1
                if not count_line.strip():
                    continue
                start = number
                if not (count_line.strip().isdecimal() and len(count_line.strip()) < 12 and int(count_line) > 0):
                    raise FileFormatError(
                        f"{path}: frame {index}, line {number}: expected the number of atoms, got "
                        f"{count_line.strip()[:60]!r}"
                    )
                lines = [count_line]
                for _ in range(int(count_line) + 1):
                    line = handle.readline()
                    number += 1
                    # A blank comment is valid; ASE reports blank atom lines.
                    if not line:
                        raise FileFormatError(
                            f"{path}: frame {index} (line {start}) is cut off: {int(count_line)} atoms announced, "
                            f"{max(len(lines) - 2, 0)} found. The file is truncated; remove the last frame, or write "
                            "it again."
                        )
                    lines.append(line)
                yield _Frame(path, index, start, lines)
                index += 1
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path}: frame {index}, after line {number}: not text in UTF-8 ({error})") from error
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror or error}") from error


def _parse_comment(line: str, rename: Mapping[str, str]) -> dict[str, Any]:
    """Keys and values of a comment line. Unlike ASE's parser, this one keeps an id such as "0012" as text and
    parses long lists of numbers at once. Raises ValueError."""
    info: dict[str, Any] = {}
    for match in _KEY_VALUE.finditer(line):
        key, raw = match.group(1), match.group(2)
        info[key] = True if raw is None else _parse_value(rename.get(key, key), raw)
    return info


def _rename_keys(info: dict[str, Any], names: Mapping[str, str]) -> set[str]:
    """Rename keys of a comment line and columns of its `Properties`, in place; returns the old names that occur."""
    renamed = {old for old in names if old in info}
    for old in renamed:
        info[names[old]] = info.pop(old)
    columns = str(info.get("Properties", "")).split(":")
    renamed_columns = set(columns[::3]) & set(names)
    if renamed_columns:
        new = {names[old] for old in renamed_columns}
        columns[::3] = [names[c] if c in renamed_columns else f"former_{c}" if c in new else c for c in columns[::3]]
        info["Properties"] = ":".join(columns)
    return renamed | renamed_columns


def _parse_value(key: str, raw: str) -> Any:
    text = raw
    if raw[:1] in ('"', "'"):
        text = re.sub(r"\\(.)", r"\1", raw[1:-1])
    elif raw[:1] in ("{", "["):
        text = raw[1:-1]
    if key in TEXT_KEYS or key in ATTRIBUTE_KEYS or key.startswith("hesse_") or key == "Properties":
        return text
    if text.startswith("_JSON "):
        return np.asarray(json.loads(text.removeprefix("_JSON ")))
    words = text.replace(",", " ").split()
    booleans = {"T": True, "True": True, "true": True, "F": False, "False": False, "false": False}
    if words and all(p in booleans for p in words):
        flags = [booleans[p] for p in words]
        return flags if len(flags) > 1 else flags[0]
    try:
        values = np.array(words, dtype=float)
    except ValueError:
        if key == "Lattice":
            raise ValueError(f"Lattice needs nine numbers, got {text[:60]!r}") from None
        return text
    if key in ("Lattice", "stress", "virial") and values.size == 9:
        # Column by column, as in ASE.
        return values.reshape(3, 3, order="F")
    if key == "Lattice":
        raise ValueError(f"Lattice needs nine numbers, got {values.size}")
    return values if values.size != 1 else values[0]


def write_extxyz(path: str | Path, dataset: Dataset) -> None:
    """Write a data set in eV and Å, one frame per structure, with all digits.

    Args:
        path: the new file; an existing one is replaced.
        dataset: the data.

    Raises:
        RequestError: an id, tag, group or metadata with a line break, which the format cannot hold.
        WriteError: the disk is full, or the folder is missing or not writable.
    """
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as handle:
        for i, structure in enumerate(dataset.structures):
            handle.writelines(_frame_lines(dataset, i, structure))


def _frame_lines(dataset: Dataset, i: int, structure: Structure) -> Iterator[str]:
    masses = {} if structure.masses is None else {"masses": structure.masses[:, None]}
    columns = {"pos": structure.positions, **masses, **label_columns(dataset.labels, i)}
    info = {**_cell_info(structure), **label_info(structure, dataset.labels, i, dataset.metadata)}
    properties = "".join(f":{name}:R:{values.shape[1]}" for name, values in columns.items())
    entries = [f"Properties=species:S:1{properties}", *(f"{key}={_format(value)}" for key, value in info.items())]
    yield f"{len(structure)}\n{' '.join(entries)}\n"
    table = np.concatenate(list(columns.values()), axis=1).tolist()
    for number, row in zip(structure.numbers.tolist(), table, strict=True):
        yield f"{chemical_symbols[number]:<2} {' '.join(map(repr, row))}\n"


def _cell_info(structure: Structure) -> dict[str, Any]:
    info: dict[str, Any] = {}
    if structure.cell.any():
        info["Lattice"] = structure.cell.reshape(-1)
    if structure.cell.any() or structure.periodic:
        info["pbc"] = " ".join("T" if p else "F" for p in structure.pbc)
    return info


def _format(value: Any) -> str:
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, str):
        if any(c in value for c in "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"):
            raise RequestError(f"extended XYZ cannot hold the line break in {value[:60]!r}; write HDF5 (.h5) instead")
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    numbers = " ".join(map(repr, np.atleast_1d(value).tolist()))
    return f'"{numbers}"' if np.ndim(value) else numbers
