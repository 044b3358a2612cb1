"""The keys of the comment line that have a meaning of their own."""

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
from ase.io.extxyz import read_xyz
from ase.stress import voigt_6_to_full_3x3_stress

from hesse.datasets.dataset import Dataset
from hesse.datasets.transforms import convert_units
from hesse.errors import FileFormatError, HesseError, LabelShapeError, LabelValueError, RequestError, did_you_mean
from hesse.runtime.filesystem import atomic_write, check_input_file
from hesse.structures import Properties, Structure, from_ase

__all__ = ["ATTRIBUTE_KEYS", "ERROR_KEYS", "TEXT_KEYS", "read_extxyz", "write_extxyz"]

TEXT_KEYS: Final = ("structure_id", "tag", "group")
ATTRIBUTE_KEYS: Final = ("level", "engine", "step", "code_version")
"""Attributes of the data set with a key of their own; others are written as `hesse_NAME`."""
ERROR_KEYS: Final = ("energy_error", "forces_error", "hessian_error")


_SCALARS: Final = ("energy", *ERROR_KEYS)
_OTHER_KEYS: Final = (
    "numbers", "positions", "charge", "multiplicity", "forces", "stress", "hessian", "atomic_energies", "hvp_error",
    "suspect",
)  # fmt: skip
_KEY_VALUE: Final = re.compile(
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
    labels: list[Properties] = []
    attributes: dict[str, set[str]] = {}
    frame_of: dict[str, int] = {}
    unknown_keys: dict[str, None] = {}
    missing = set(rename or {})
    for frame in _iter_frames(path):
        atoms = frame.to_atoms(rename or {}, missing)
        unknown_keys |= dict.fromkeys(_unknown_keys(atoms))
        try:
            structure = _to_structure(atoms)
            if structure.id in frame_of:
                structure = _deduplicate_id(structure, frame, frame_of, explicit="structure_id" in atoms.info)
            labels.append(_to_labels(atoms, structure.id))
        except HesseError as error:
            raise type(error)(f"{frame.location}: {error}") from None
        frame_of[structure.id] = frame.index
        structures.append(structure)
        for key, value in _read_attributes(atoms.info).items():
            attributes.setdefault(key, set()).add(value)
    if not structures:
        raise FileFormatError(f"{path}: the file is empty; expected at least one frame")
    if missing:
        hint = did_you_mean(min(missing), unknown_keys) if unknown_keys else "It has no keys but the known ones."
        raise RequestError(f'{path}: --rename: no frame has "{min(missing)}". {hint}')
    converted, merged = convert_units(
        structures, Properties.concatenate(labels), energy=energy_unit, length=length_unit
    )
    joined = {key: "; ".join(sorted(values)) for key, values in attributes.items()}
    return Dataset(converted, merged, metadata=joined, source=str(path), unknown_keys=tuple(unknown_keys))


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
        """The frame as ASE reads it, with keys renamed; those that were found leave `missing`. Raises FileFormatError
        for anything that is not extended XYZ."""
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
            # The comment line, already parsed, need not be parsed again.
            text = io.StringIO("".join([self.lines[0], "_\n", *self.lines[2:]]))
            return next(iter(read_xyz(text, 0, properties_parser=lambda _: info)))
        except Exception as error:  # ASE raises whatever the line led it to
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
                        f"{path}: frame {index}, line {number}: expected the number of atoms, got {count_line.strip()[:60]!r}"
                    )
                lines = [count_line]
                for _ in range(int(count_line) + 1):
                    line = handle.readline()
                    number += 1
                    # A blank comment is legal, a blank atom is not; ASE says so of the latter.
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
    """Keys and values of a comment line. Unlike ASE's parser, texts that look like numbers stay texts where a text is
    meant (an id "0012"), and long lists are read at once. Raises ValueError."""
    info: dict[str, Any] = {}
    for match in _KEY_VALUE.finditer(line):
        key, raw = match.group(1), match.group(2)
        info[key] = True if raw is None else _parse_value(rename.get(key, key), raw)
    return info


def _rename_keys(info: dict[str, Any], names: Mapping[str, str]) -> set[str]:
    """Rename keys of a comment line and columns of its `Properties`, in place; returns the old names met."""
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


def _unknown_keys(atoms: Atoms) -> list[str]:
    """Keys and columns of a frame that mean nothing here."""
    results = {} if atoms.calc is None else atoms.calc.results
    known = {*TEXT_KEYS, *ATTRIBUTE_KEYS, *_SCALARS, *_OTHER_KEYS}
    keys = [key for place in (atoms.info, atoms.arrays, results) for key in place]
    return [k for k in keys if k not in known and not k.startswith("hesse_") and not _PROBE.match(k)]


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
        # ASE lays these out by columns.
        return values.reshape(3, 3, order="F")
    if key == "Lattice":
        raise ValueError(f"Lattice needs nine numbers, got {values.size}")
    return values if values.size != 1 else values[0]


def _to_structure(atoms: Atoms) -> Structure:
    for key in ("charge", "multiplicity"):
        value = atoms.info.get(key)
        if value is not None and not (isinstance(value, float) and value.is_integer()):
            raise LabelValueError(f"{key} must be a whole number, got {value!r}")
    return from_ase(atoms)


def _deduplicate_id(structure: Structure, frame: _Frame, frame_of: Mapping[str, int], *, explicit: bool) -> Structure:
    """A name for a frame whose content stood before. Raises RequestError when the file itself gave the name twice."""
    if explicit:
        raise RequestError(
            f'structure_id "{structure.id}" stands in frame {frame_of[structure.id]} too; ids name structures and must '
            "differ"
        )
    copy = 2
    while f"{structure.id}-{copy}" in frame_of:
        copy += 1
    return structure.with_positions(structure.positions, id=f"{structure.id}-{copy}")


def _to_labels(atoms: Atoms, structure_id: str) -> Properties:
    n = len(atoms)
    # ASE moves what it knows of (energy, forces, stress) into a calculator.
    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    values: dict[str, Any] = {**atoms.info, **atoms.arrays, **results}
    fields: dict[str, Any] = {}
    for key in ("energy", "forces", "atomic_energies", "stress", *ERROR_KEYS):
        if key in values:
            fields[key] = _to_floats(values[key], key, structure_id)
    if "forces" in fields and fields["forces"].shape != (n, 3):
        raise LabelShapeError(f'structure "{structure_id}": forces need 3 columns, got shape {fields["forces"].shape}')
    if "stress" in fields and fields["stress"].shape == (6,):
        fields["stress"] = voigt_6_to_full_3x3_stress(fields["stress"])
    for key in _SCALARS:
        if key in fields:
            if fields[key].size != 1:
                raise LabelShapeError(f'structure "{structure_id}": {key} must be one number, got {fields[key].size}')
            fields[key] = float(fields[key].item())
    if "hessian" in values:
        flat = _to_floats(values["hessian"], "hessian", structure_id).reshape(-1)
        if flat.size != 9 * n * n:
            raise LabelShapeError(
                f'structure "{structure_id}": hessian of {flat.size} numbers, expected 9 × {n}² = {9 * n * n}'
            )
        fields["hessian"] = flat.reshape(n, 3, n, 3)
    fields |= _read_probe_pairs(atoms, structure_id)
    if "hvp_error" in values:
        fields["hvp_error"] = _to_floats(values["hvp_error"], "hvp_error", structure_id).reshape(-1)
    if "suspect" in values:
        if not isinstance(values["suspect"], bool | np.bool_):
            raise LabelValueError(f'structure "{structure_id}": suspect must be T or F, got {values["suspect"]!r}')
        fields["suspect"] = bool(values["suspect"])
    return Properties.single(n, structure_id=structure_id, **fields)


def _read_probe_pairs(atoms: Atoms, structure_id: str) -> dict[str, np.ndarray]:
    columns: dict[str, dict[int, np.ndarray]] = {"probe": {}, "hvp": {}}
    for key, column in atoms.arrays.items():
        match = _PROBE.match(key)
        if match:
            values = _to_floats(column, key, structure_id)
            if values.shape != (len(atoms), 3):
                raise LabelShapeError(f'structure "{structure_id}": {key} needs 3 columns, got shape {values.shape}')
            columns[match.group(1)][int(match.group(2))] = values
    if set(columns["probe"]) != set(columns["hvp"]) or sorted(columns["hvp"]) != list(range(len(columns["hvp"]))):
        raise LabelShapeError(
            f'structure "{structure_id}": expected pairs probe_0, hvp_0, probe_1, hvp_1, …; got probes '
            f"{sorted(columns['probe'])} and products {sorted(columns['hvp'])}"
        )
    if not columns["hvp"]:
        return {}
    order = range(len(columns["hvp"]))
    return {
        "probes": np.stack([columns["probe"][k] for k in order]),
        "hvp": np.stack([columns["hvp"][k] for k in order]),
    }


def _to_floats(value: Any, key: str, structure_id: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise LabelValueError(f'structure "{structure_id}": {key} is not a number: {str(value)[:60]!r}')
    return array.astype(np.float64)


def _read_attributes(info: Mapping[str, Any]) -> dict[str, str]:
    attributes = {key: info[key] for key in ATTRIBUTE_KEYS if isinstance(info.get(key), str)}
    return attributes | {k.removeprefix("hesse_"): v for k, v in info.items() if k.startswith("hesse_") and v}


def write_extxyz(path: str | Path, dataset: Dataset) -> None:
    """Write `dataset` in eV and Å, one frame per structure, all digits.

    Raises:
        RequestError: an id, tag, group or attribute with a line break, which the format cannot hold.
        WriteError: the disk is full, the folder is missing or not writable.
    """
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as handle:
        for i, structure in enumerate(dataset.structures):
            handle.writelines(_frame_lines(dataset, i, structure))


def _frame_lines(dataset: Dataset, i: int, structure: Structure) -> Iterator[str]:
    columns, info = _frame_columns(dataset, i), _frame_info(dataset, i)
    properties = "".join(f":{name}:R:{values.shape[1]}" for name, values in columns.items())
    entries = [f"Properties=species:S:1{properties}", *(f"{key}={_format(value)}" for key, value in info.items())]
    yield f"{len(structure)}\n{' '.join(entries)}\n"
    table = np.concatenate(list(columns.values()), axis=1).tolist()
    for number, row in zip(structure.numbers.tolist(), table, strict=True):
        yield f"{chemical_symbols[number]:<2} {' '.join(map(repr, row))}\n"


def _frame_columns(dataset: Dataset, i: int) -> dict[str, np.ndarray]:
    labels, atoms = dataset.labels, dataset.labels.atom_slice(i)
    columns = {"pos": dataset.structures[i].positions}
    if labels.forces is not None and labels.mask("forces")[i]:
        columns["forces"] = labels.forces[atoms].numpy()
    if labels.atomic_energies is not None and labels.mask("atomic_energies")[i]:
        columns["atomic_energies"] = labels.atomic_energies[atoms, None].numpy()
    if labels.hvp is not None and labels.probes is not None:
        for slot, k in enumerate(labels.mask("hvp")[:, i].nonzero()[:, 0].tolist()):
            columns[f"probe_{slot}"] = labels.probes[k, atoms].numpy()
            columns[f"hvp_{slot}"] = labels.hvp[k, atoms].numpy()
    return columns


def _frame_info(dataset: Dataset, i: int) -> dict[str, Any]:
    """Keys and values of the comment line; what is absent or says nothing is left out."""
    structure, labels = dataset.structures[i], dataset.labels
    info: dict[str, Any] = {}
    if structure.cell.any():
        info["Lattice"] = structure.cell.reshape(-1)
    if structure.cell.any() or structure.periodic:
        info["pbc"] = " ".join("T" if p else "F" for p in structure.pbc)
    info["structure_id"] = structure.id
    info |= {key: value for key in ("tag", "group") if (value := getattr(structure, key))}
    if structure.charge:
        info["charge"] = np.int64(structure.charge)
    if structure.multiplicity != 1:
        info["multiplicity"] = np.int64(structure.multiplicity)
    for key, value in dataset.metadata.items():
        info[key if key in ATTRIBUTE_KEYS else f"hesse_{key}"] = value
    if labels.energy is not None and labels.mask("energy")[i]:
        info["energy"] = labels.energy[i].numpy()
    if labels.stress is not None and labels.mask("stress")[i]:
        info["stress"] = labels.stress[i].T.reshape(-1).numpy()
    if labels.hessian is not None and labels.mask("hessian")[i]:
        info["hessian"] = labels.hessian_of(i).reshape(-1).numpy()
    for key in ERROR_KEYS:
        error = getattr(labels, key)
        if error is not None and not error[i].isnan():
            info[key] = error[i].numpy()
    if labels.hvp_error is not None:
        has_hvp = labels.mask("hvp")[:, i]
        if has_hvp.any() and not labels.hvp_error[has_hvp, i].isnan().any():
            info["hvp_error"] = labels.hvp_error[has_hvp, i].numpy()
    if bool(labels.suspect_mask()[i]):
        info["suspect"] = True
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


# MERGED DOCSTRING (fold into the module docstring): """Extended XYZ: reading. Frames are found here, so that every error can name one; ASE turns each into `Atoms`. """

# MERGED DOCSTRING (fold into the module docstring): """Extended XYZ: writing. Numbers keep all their digits: what is read back is bit by bit what was written."""
