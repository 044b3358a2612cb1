"""Extended XYZ: reading.

Frames are found here, so that every error can name one; ASE turns each into `Atoms`.
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
from ase.io.extxyz import read_xyz
from ase.stress import voigt_6_to_full_3x3_stress

from hesse.datasets.dataset import Dataset
from hesse.datasets.extxyz.keys import ATTRIBUTE_KEYS, ERROR_KEYS, TEXT_KEYS
from hesse.datasets.transforms import from_units
from hesse.errors import FileFormatError, HesseError, LabelShapeError, LabelValueError, RequestError, nearest_name
from hesse.files import require_file
from hesse.structures import Labels, Structure, from_ase

__all__ = ["read_extxyz"]

_SCALARS: Final = ("energy", *ERROR_KEYS)
_OTHER_KEYS: Final = (
    "numbers", "positions", "charge", "multiplicity", "forces", "stress", "hessian", "atomic_energies", "hvp_error",
    "suspect",
)  # fmt: skip
_PAIR: Final = re.compile(
    r"""([^\s="'\[{]+)                                    # key
    (?:\s*=\s*("[^"\\]*(?:\\.[^"\\]*)*"              # = "text", 'text', {list}, [list] or word
              |'[^'\\]*(?:\\.[^'\\]*)*'|\{[^}]*\}|\[[^\]]*\]|[^\s"']*))?""",
    re.VERBOSE,
)
_PROBE: Final = re.compile(r"(probe|hvp)_(\d+)$")


def read_extxyz(
    path: str | Path,
    *,
    energy_unit: str = "eV",
    length_unit: str = "angstrom",
    rename: Mapping[str, str] | None = None,
) -> Dataset:
    """Read all frames of an extended (or plain) XYZ file; every label is optional. Labels are not judged here.

    Frames without `structure_id` are named after their content. `rename` maps keys and columns of the file to the
    names in docs/formats.md (`{"REF_forces": "forces"}`), and wins over what bears that name already.

    Raises:
        RequestError: a name in `rename` that no frame has.
        FileFormatError: truncated, or lines that are not of the format; the message names frame and line.
        LabelShapeError, LabelValueError: a label that does not fit its frame or is no number.
        GeometryError: a frame that is no structure.
        RequestError: two frames of the same `structure_id`.
    """
    path = Path(path)
    structures: list[Structure] = []
    labels: list[Labels] = []
    attributes: dict[str, set[str]] = {}
    frame_of: dict[str, int] = {}
    unread: dict[str, None] = {}
    missing = set(rename or {})
    for frame in _frames(path):
        atoms = frame.atoms(rename or {}, missing)
        unread |= dict.fromkeys(_unread(atoms))
        try:
            structure = _structure_of(atoms)
            if structure.id in frame_of:
                structure = _renamed(structure, frame, frame_of, named="structure_id" in atoms.info)
            labels.append(_labels_of(atoms, structure.id))
        except HesseError as error:
            raise type(error)(f"{frame.where}: {error}") from None
        frame_of[structure.id] = frame.index
        structures.append(structure)
        for key, value in _attributes_of(atoms.info).items():
            attributes.setdefault(key, set()).add(value)
    if not structures:
        raise FileFormatError(f"{path}: the file is empty; expected at least one frame")
    if missing:
        known = nearest_name(min(missing), unread) if unread else "It has no keys but the known ones."
        raise RequestError(f'{path}: --rename: no frame has "{min(missing)}". {known}')
    found, merged = from_units(structures, Labels.concatenate(labels), energy=energy_unit, length=length_unit)
    joined = {key: "; ".join(sorted(values)) for key, values in attributes.items()}
    return Dataset(found, merged, attributes=joined, source=str(path), unread=tuple(unread))


@dataclass(frozen=True)
class _Frame:
    path: Path
    index: int
    line: int
    lines: list[str]

    @property
    def where(self) -> str:
        return f"{self.path}: frame {self.index} (line {self.line})"

    def atoms(self, rename: Mapping[str, str], missing: set[str]) -> Atoms:
        """The frame as ASE reads it, with keys renamed; those that were found leave `missing`. Raises FileFormatError
        for anything that is not extended XYZ."""
        try:
            info = _parse_comment(self.lines[1], rename)
            missing -= _rename(info, rename)
            properties = info.get("Properties", "species:S:1:pos:R:3")
            columns = sum(int(x) for x in str(properties).split(":")[2::3])
        except ValueError as error:
            raise FileFormatError(f"{self.where}: the comment line cannot be read: {error}") from error
        for i, line in enumerate(self.lines[2:]):
            have = len(line.split())
            if have < columns or (have > columns and "Properties" in info):
                raise FileFormatError(
                    f"{self.path}: frame {self.index}, line {self.line + 2 + i}: expected {columns} columns "
                    f"({properties}), got {have}: {line.strip()[:60]!r}"
                )
        try:
            # The comment line, already parsed, need not be parsed again.
            text = io.StringIO("".join([self.lines[0], "_\n", *self.lines[2:]]))
            return next(iter(read_xyz(text, 0, properties_parser=lambda _: info)))
        except Exception as error:  # ASE raises whatever the line led it to
            reason = f"unknown element {error}" if isinstance(error, KeyError) else str(error)
            raise FileFormatError(f"{self.where}: not extended XYZ: {reason}") from error


def _frames(path: Path) -> Iterator[_Frame]:
    require_file(path)
    number, index = 0, 0
    try:
        with open(path, encoding="utf-8") as handle:
            while head := handle.readline():
                number += 1
                if not head.strip():
                    continue
                start = number
                if not (head.strip().isdecimal() and len(head.strip()) < 12 and int(head) > 0):
                    raise FileFormatError(
                        f"{path}: frame {index}, line {number}: expected the number of atoms, got {head.strip()[:60]!r}"
                    )
                lines = [head]
                for _ in range(int(head) + 1):
                    line = handle.readline()
                    number += 1
                    # A blank comment is legal, a blank atom is not; ASE says so of the latter.
                    if not line:
                        raise FileFormatError(
                            f"{path}: frame {index} (line {start}) is cut off: {int(head)} atoms announced, "
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
    """Keys and values of a comment line. Unlike ASE's parser, texts that look like numbers stay texts where a text is
    meant (an id "0012"), and long lists are read at once. Raises ValueError."""
    found: dict[str, Any] = {}
    for match in _PAIR.finditer(line):
        key, raw = match.group(1), match.group(2)
        found[key] = True if raw is None else _value(rename.get(key, key), raw)
    return found


def _rename(info: dict[str, Any], names: Mapping[str, str]) -> set[str]:
    """Rename keys of a comment line and columns of its `Properties`, in place; returns the old names met."""
    met = {old for old in names if old in info}
    for old in met:
        info[names[old]] = info.pop(old)
    columns = str(info.get("Properties", "")).split(":")
    there = set(columns[::3]) & set(names)
    if there:
        new = {names[old] for old in there}
        columns[::3] = [names[c] if c in there else f"former_{c}" if c in new else c for c in columns[::3]]
        info["Properties"] = ":".join(columns)
    return met | there


def _unread(atoms: Atoms) -> list[str]:
    """Keys and columns of a frame that mean nothing here."""
    results = {} if atoms.calc is None else atoms.calc.results
    known = {*TEXT_KEYS, *ATTRIBUTE_KEYS, *_SCALARS, *_OTHER_KEYS}
    keys = [key for place in (atoms.info, atoms.arrays, results) for key in place]
    return [k for k in keys if k not in known and not k.startswith("hesse_") and not _PROBE.match(k)]


def _value(key: str, raw: str) -> Any:
    text = raw
    if raw[:1] in ('"', "'"):
        text = re.sub(r"\\(.)", r"\1", raw[1:-1])
    elif raw[:1] in ("{", "["):
        text = raw[1:-1]
    if key in TEXT_KEYS or key in ATTRIBUTE_KEYS or key.startswith("hesse_") or key == "Properties":
        return text
    if text.startswith("_JSON "):
        return np.asarray(json.loads(text.removeprefix("_JSON ")))
    parts = text.replace(",", " ").split()
    truths = {"T": True, "True": True, "true": True, "F": False, "False": False, "false": False}
    if parts and all(p in truths for p in parts):
        flags = [truths[p] for p in parts]
        return flags if len(flags) > 1 else flags[0]
    try:
        values = np.array(parts, dtype=float)
    except ValueError:
        if key == "Lattice":
            raise ValueError(f"Lattice needs nine numbers, got {text[:60]!r}") from None
        return text
    if key in ("Lattice", "stress", "virial") and values.size == 9:
        # ASE lays these out by columns.
        return values.reshape(3, 3, order="F")
    if key == "Lattice":
        raise ValueError(f"Lattice needs nine numbers, got {values.size}")
    return values if values.size != 1 else values[0]


def _structure_of(atoms: Atoms) -> Structure:
    for key in ("charge", "multiplicity"):
        value = atoms.info.get(key)
        if value is not None and not (isinstance(value, float) and value.is_integer()):
            raise LabelValueError(f"{key} must be a whole number, got {value!r}")
    return from_ase(atoms)


def _renamed(structure: Structure, frame: _Frame, frame_of: Mapping[str, int], *, named: bool) -> Structure:
    """A name for a frame whose content stood before. Raises RequestError when the file itself gave the name twice."""
    if named:
        raise RequestError(
            f'structure_id "{structure.id}" stands in frame {frame_of[structure.id]} too; ids name structures and must '
            "differ"
        )
    copy = 2
    while f"{structure.id}-{copy}" in frame_of:
        copy += 1
    return structure.moved(structure.positions, id=f"{structure.id}-{copy}")


def _labels_of(atoms: Atoms, structure_id: str) -> Labels:
    n = len(atoms)
    # ASE moves what it knows of (energy, forces, stress) into a calculator.
    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    values: dict[str, Any] = {**atoms.info, **atoms.arrays, **results}
    given: dict[str, Any] = {}
    for key in ("energy", "forces", "atomic_energies", "stress", *ERROR_KEYS):
        if key in values:
            given[key] = _numbers(values[key], key, structure_id)
    if "forces" in given and given["forces"].shape != (n, 3):
        raise LabelShapeError(f'structure "{structure_id}": forces need 3 columns, got shape {given["forces"].shape}')
    if "stress" in given and given["stress"].shape == (6,):
        given["stress"] = voigt_6_to_full_3x3_stress(given["stress"])
    for key in _SCALARS:
        if key in given:
            if given[key].size != 1:
                raise LabelShapeError(f'structure "{structure_id}": {key} must be one number, got {given[key].size}')
            given[key] = float(given[key].item())
    if "hessian" in values:
        flat = _numbers(values["hessian"], "hessian", structure_id).reshape(-1)
        if flat.size != 9 * n * n:
            raise LabelShapeError(
                f'structure "{structure_id}": hessian of {flat.size} numbers, expected 9 × {n}² = {9 * n * n}'
            )
        given["hessian"] = flat.reshape(n, 3, n, 3)
    given |= _pairs_of(atoms, structure_id)
    if "hvp_error" in values:
        given["hvp_error"] = _numbers(values["hvp_error"], "hvp_error", structure_id).reshape(-1)
    if "suspect" in values:
        if not isinstance(values["suspect"], bool | np.bool_):
            raise LabelValueError(f'structure "{structure_id}": suspect must be T or F, got {values["suspect"]!r}')
        given["suspect"] = bool(values["suspect"])
    return Labels.of(n, structure_id=structure_id, **given)


def _pairs_of(atoms: Atoms, structure_id: str) -> dict[str, np.ndarray]:
    found: dict[str, dict[int, np.ndarray]] = {"probe": {}, "hvp": {}}
    for key, column in atoms.arrays.items():
        match = _PROBE.match(key)
        if match:
            values = _numbers(column, key, structure_id)
            if values.shape != (len(atoms), 3):
                raise LabelShapeError(f'structure "{structure_id}": {key} needs 3 columns, got shape {values.shape}')
            found[match.group(1)][int(match.group(2))] = values
    if set(found["probe"]) != set(found["hvp"]) or sorted(found["hvp"]) != list(range(len(found["hvp"]))):
        raise LabelShapeError(
            f'structure "{structure_id}": expected pairs probe_0, hvp_0, probe_1, hvp_1, …; got probes '
            f"{sorted(found['probe'])} and products {sorted(found['hvp'])}"
        )
    if not found["hvp"]:
        return {}
    order = range(len(found["hvp"]))
    return {
        "probes": np.stack([found["probe"][k] for k in order]),
        "hvp": np.stack([found["hvp"][k] for k in order]),
    }


def _numbers(value: Any, key: str, structure_id: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise LabelValueError(f'structure "{structure_id}": {key} is not a number: {str(value)[:60]!r}')
    return array.astype(np.float64)


def _attributes_of(info: Mapping[str, Any]) -> dict[str, str]:
    found = {key: info[key] for key in ATTRIBUTE_KEYS if isinstance(info.get(key), str)}
    return found | {k.removeprefix("hesse_"): v for k, v in info.items() if k.startswith("hesse_") and v}
