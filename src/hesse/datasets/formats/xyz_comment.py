"""Comment lines of XYZ files: keys and values of extended XYZ, headers of i-PI, and titles."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from hesse.datasets.ase_atoms import ATTRIBUTE_KEYS, TEXT_KEYS
from hesse.datasets.formats.file_units import FileUnits
from hesse.errors import HesseError

__all__ = ["find_title", "has_numbers", "parse_comment", "parse_ipi_comment", "rename_keys"]

_KEY_VALUE: Final = re.compile(
    r"""([^\s="'\[{]+)                                    # key
    (?:\s*=\s*("[^"\\]*(?:\\.[^"\\]*)*"              # = "text", 'text', {list}, [list] or word
              |'[^'\\]*(?:\\.[^'\\]*)*'|\{[^}]*\}|\[(?:[^\[\]]|\[[^\[\]]*\])*\]|[^\s"']*))?""",
    re.VERBOSE,
)
_IPI: Final = re.compile(r"\s*#?\s*CELL[\[({]\s*(\w+)\s*[\])}]\s*:?\s*((?:[-+.\deE]+\s+)+)")
_IPI_UNIT: Final = re.compile(r"(\w+)\{\s*([^}]*?)\s*\}")
_DECIMAL: Final = re.compile(r"(?<![\w.])[-+]?\d+\.\d+")
_MAX_TITLE: Final = 80
"""Longest comment that counts as a title."""


def find_title(line: str) -> str:
    """The title of a structure in a plain XYZ file.

    Args:
        line: the comment line.

    Returns:
        The text of the line if it is short and holds neither keys nor decimal numbers; otherwise an empty text.
    """
    title = " ".join(line.split())
    is_title = title.isprintable() and any(c.isalpha() for c in title) and len(title) <= _MAX_TITLE
    return title if is_title and not has_numbers(line) and "=" not in title else ""


def has_numbers(line: str) -> bool:
    """Whether free text holds decimal numbers, which may be labels.

    Args:
        line: a comment line without keys.

    Returns:
        True for "energy: -5.07".
    """
    return bool(_DECIMAL.search(line))


def parse_ipi_comment(line: str) -> dict[str, Any] | None:
    """Read the header of a structure that i-PI wrote, such as `# CELL(abcABC): 5 5 5 90 90 90 positions{angstrom}`.

    Args:
        line: the comment line.

    Returns:
        Lattice, and the unit of lengths as `length_unit`; None if the line is no such header.

    Raises:
        ValueError: forces or velocities in place of positions, or a cell that cannot be read.
    """
    match = _IPI.match(line)
    if match is None:
        return None
    units = {name.lower(): unit for name, unit in _IPI_UNIT.findall(line)}
    cell_unit = units.pop("cell", "atomic_unit")
    if wrong := sorted(set(units) - {"positions", "x_centroid"}):
        raise ValueError(f"i-PI wrote {wrong[0]} in this file, not positions; give the file of the positions")
    if not units:
        raise ValueError(
            "a header of i-PI that does not state the unit of the positions; write positions{atomic_unit} or "
            "positions{angstrom} at its end"
        )
    unit = next(iter(units.values()))
    try:
        scale = FileUnits(length=cell_unit).value("length") / FileUnits(length=unit).value("length")
    except HesseError as error:
        raise ValueError(str(error)) from None
    cell = _ipi_cell(match.group(1), [float(x) for x in match.group(2).split()])
    info: dict[str, Any] = {"length_unit": unit}
    if cell.any():
        info |= {"Lattice": cell.T * scale, "pbc": [True] * 3}
    return info


def _ipi_cell(form: str, values: list[float]) -> np.ndarray:
    """Lattice vectors as rows, in the unit of the header."""
    from ase.geometry import cellpar_to_cell

    if form == "abcABC" and len(values) >= 6:
        try:
            return np.asarray(cellpar_to_cell(values[:6])) if any(values[:3]) else np.zeros((3, 3))
        except AssertionError:
            raise ValueError(f"no cell has the lengths and angles {values[:6]}") from None
    if form == "H" and len(values) >= 9:
        return np.reshape(values[:9], (3, 3)).T
    raise ValueError(f"a cell in the form {form} with {len(values)} numbers; abcABC (6) and H (9) can be read")


def parse_comment(line: str, rename: Mapping[str, str]) -> dict[str, Any]:
    """Keys and values of a comment line. Unlike ASE's parser, this one keeps an id such as "0012" as text and parses
    long lists of numbers at once. A line without any `=` is free text.

    Args:
        line: the comment line.
        rename: keys of the file and their usual names.

    Returns:
        Values by key; `Lattice` has the lattice vectors as columns, as ASE's reader expects.

    Raises:
        ValueError: a value that cannot be what its key says.
    """
    if (ipi := parse_ipi_comment(line)) is not None:
        return ipi
    if "=" not in line:
        return {}
    info: dict[str, Any] = {}
    for match in _KEY_VALUE.finditer(line):
        key, raw = match.group(1), match.group(2)
        info[key] = True if raw is None else _parse_value(rename.get(key, key), raw)
    return info


def rename_keys(info: dict[str, Any], names: Mapping[str, str]) -> set[str]:
    """Rename keys of a comment line and columns of its `Properties`, in place.

    Args:
        info: keys and values; changed.
        names: old names and new ones.

    Returns:
        The old names that occur.
    """
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
        if "[" in text:  # rows of a matrix
            text = text.replace("[", " ").replace("]", " ")
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
