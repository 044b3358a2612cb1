"""Data sets in extended XYZ, with ASE's conventions (eV, Å); the keys are listed in docs/formats.md.

The reader splits the file into frames, so that every error names one, and lets ASE turn each frame into `Atoms`. The
writer keeps all digits: what is read back is bit by bit what was written.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from hesse.datasets.ase_atoms import AtomsReader, label_columns, label_info
from hesse.datasets.dataset import Dataset
from hesse.datasets.formats.file_units import FileUnits
from hesse.datasets.formats.stated_units import check_derived_units, merge_units, pop_stated_units
from hesse.datasets.formats.xyz_comment import find_title, has_numbers, parse_comment, rename_keys
from hesse.errors import FileFormatError, GeometryError, HesseError, RequestError, UnitError, did_you_mean
from hesse.runtime.filesystem import atomic_write, check_input_file
from hesse.structures import BEAD_COLUMN, NO_BEAD, Properties, Structure, is_bead, parse_elements, species_names

__all__ = ["read_extxyz", "write_extxyz"]

_PLAIN_COLUMNS: Final = "species:S:1:pos:R:3"
_SYMBOLS: Final = frozenset(chemical_symbols[1:])
_BEAD_SYMBOL: Final = chemical_symbols[0]
"""X, which ASE reads; the names of bead types are in a column of their own."""
_SPECIES: Final = ("species", "symbols", "symbol", "element")
_BYTE_ORDER_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")


def read_extxyz(
    path: str | Path,
    *,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    forces_unit: str | None = None,
    curvature_unit: str | None = None,
    stress_unit: str | None = None,
    rename: Mapping[str, str] | None = None,
) -> Dataset:
    """Read all frames of an extended (or plain) XYZ file; every label is optional. Labels are not checked for
    plausibility here (see `check_dataset`).

    Args:
        path: the file.
        energy_unit, length_unit: units of energies and lengths, if the file does not state them; by default eV and Å.
        forces_unit, curvature_unit, stress_unit: units of derivatives, if they do not follow from the two above.
        rename: keys and columns of the file and the names of docs/formats.md under which to read them
            (`{"REF_forces": "forces"}`); they take precedence over keys that have these names already.

    Returns:
        The data set, in eV and Å. Without `structure_id`, the titles in the comment lines are the ids if all differ; a
        single structure gets the name of the file, others an id made of formula and content.

    Raises:
        FileFormatError: the file is empty, truncated or not extended XYZ; the message names frame and line.
        LabelShapeError, LabelValueError: a label of a wrong shape, or not a number.
        GeometryError: a frame that is not a valid structure.
        UnitError: units that the file states and that contradict the arguments, or are unknown.
        RequestError: two frames with the same `structure_id`, or a name in `rename` that no frame has.
    """
    path = Path(path)
    options = {
        "energy": energy_unit,
        "length": length_unit,
        "forces": forces_unit,
        "curvature": curvature_unit,
        "stress": stress_unit,
    }
    reader = AtomsReader()
    missing = set(rename or {})
    units: list[FileUnits] = []
    titles: list[str | None] = []
    for frame in _iter_frames(path):
        atoms, stated = frame.to_atoms(rename or {}, missing, reader.not_read)
        try:
            reader.add(atoms)
            frame_units = merge_units(stated, options)
            check_derived_units(stated, frame_units, reader.labels[-1])
        except HesseError as error:
            raise type(error)(f"{frame.location}: {error}") from None
        units.append(frame_units)
        titles.append(None if "structure_id" in atoms.info else find_title(frame.lines[1]))
    if not reader.structures:
        raise FileFormatError(f"{path}: the file is empty; expected at least one frame")
    if missing:
        keys = reader.not_read
        hint = did_you_mean(min(missing), keys) if keys else "It has no keys but the known ones."
        raise RequestError(f'{path}: --rename: no frame has "{min(missing)}". {hint}')
    structures, labels = _convert(reader.structures, reader.labels, units)
    structures = _named(structures, titles, path)
    return Dataset(structures, labels, metadata=reader.metadata(), source=str(path), not_read=reader.not_read)


def _convert(
    structures: list[Structure], labels: list[Properties], units: list[FileUnits]
) -> tuple[tuple[Structure, ...], Properties]:
    """Convert to eV and Å; frames may state different units."""
    if len(set(units)) == 1:
        return units[0].to_internal(structures, Properties.concatenate(labels))
    pairs = [u.to_internal([s], label) for s, label, u in zip(structures, labels, units, strict=True)]
    return tuple(s for (s,), _ in pairs), Properties.concatenate([label for _, label in pairs])


def _named(structures: tuple[Structure, ...], titles: list[str | None], path: Path) -> tuple[Structure, ...]:
    """Structures with the titles of the file as ids, if all have different ones; a single one has at least the name of
    the file. None stands for structures with an id."""
    if titles == [""]:
        titles = [path.stem]
    if all(titles) and len(set(titles)) == len(titles):
        return tuple(replace(s, id=title or s.id) for s, title in zip(structures, titles, strict=True))
    return structures


@dataclass(frozen=True)
class _Frame:
    path: Path
    index: int
    line: int
    lines: list[str]

    @property
    def location(self) -> str:
        return f"{self.path}: frame {self.index} (line {self.line})"

    def to_atoms(
        self, rename: Mapping[str, str], missing: set[str], not_read: Counter[str]
    ) -> tuple[Atoms, dict[str, str]]:
        """The frame as ASE reads it, with keys renamed, and the units that it states; the old names that it has are
        removed from `missing`. Raises FileFormatError for anything that is not extended XYZ."""
        from ase.io.extxyz import read_xyz  # imports half of ASE

        try:
            info = parse_comment(self.lines[1], rename)
            missing -= rename_keys(info, rename)
            stated = pop_stated_units(info)
            properties = str(info.get("Properties", _PLAIN_COLUMNS))
            expected = sum(int(x) for x in properties.split(":")[2::3])
        except ValueError as error:
            raise FileFormatError(f"{self.location}: the comment line cannot be read: {error}") from error
        except UnitError as error:
            raise UnitError(f"{self.location}: {error}") from None
        if not info and has_numbers(self.lines[1]):
            not_read["numbers in the comment"] += 1
        extra = 0
        for i, line in enumerate(self.lines[2:]):
            n_columns = len(line.split())
            if n_columns < expected or (n_columns > expected and "Properties" in info):
                raise FileFormatError(
                    f"{self.path}: frame {self.index}, line {self.line + 2 + i}: expected {expected} columns "
                    f"({properties}), got {n_columns}: {line.strip()[:60]!r}"
                )
            extra = max(extra, n_columns - expected)
        if extra:
            not_read[f"{extra} columns without a name" if extra > 1 else "a column without a name"] += 1
        lines, masses = self._with_symbols(properties)
        try:
            # The comment line is parsed already.
            text = io.StringIO("".join([self.lines[0], "_\n", *lines]))
            atoms = next(iter(read_xyz(text, 0, properties_parser=lambda _: info)))
        except Exception as error:  # ASE raises errors of many types
            reason = f"unknown element {error}" if isinstance(error, KeyError) else str(error)
            raise FileFormatError(f"{self.location}: not extended XYZ: {reason}") from error
        if masses is not None and not atoms.has("masses"):
            atoms.set_masses(masses)
        return atoms, stated

    def _with_symbols(self, properties: str) -> tuple[list[str], NDArray[np.float64] | None]:
        """Lines of the atoms with symbols that ASE knows, and the masses of isotopes."""
        names, counts = properties.split(":")[::3], [int(x) for x in properties.split(":")[2::3]]
        column = next((sum(counts[:i]) for i, name in enumerate(names) if name in _SPECIES), None)
        lines = self.lines[2:]
        if column is None:
            return lines, None
        rows = [line.split() for line in lines]
        is_atom = [True] * len(rows)
        if BEAD_COLUMN in names:  # beads have the symbol X, and are no ghost atoms
            of_beads = sum(counts[: names.index(BEAD_COLUMN)])
            is_atom = [row[of_beads] == NO_BEAD for row in rows]
        atoms = [row for row, flag in zip(rows, is_atom, strict=True) if flag]
        for row, flag in zip(rows, is_atom, strict=True):
            row[column] = row[column] if flag else _BEAD_SYMBOL
        if all(row[column] in _SYMBOLS for row in atoms):
            return lines, None
        try:
            numbers, masses = parse_elements([row[column] for row in atoms])
        except GeometryError as error:
            raise GeometryError(f"{self.location}: {error}") from None
        for row, number in zip(atoms, numbers.tolist(), strict=True):
            row[column] = chemical_symbols[number]
        return [" ".join(row) + "\n" for row in rows], masses


def _iter_frames(path: Path) -> Iterator[_Frame]:
    check_input_file(path)
    number, index = 0, 0
    try:
        _check_encoding(path)
        # Bytes that are not UTF-8 occur in comments (Å in Latin-1) and matter to nobody.
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as handle:
            while count_line := handle.readline():
                number += 1
                if not count_line.strip():
                    continue
                start = number
                if count_line.strip().isdecimal() and not count_line.strip().strip("0"):
                    raise FileFormatError(
                        f"{path}: frame {index} (line {number}) is empty: it announces 0 atoms. Remove its two lines."
                    )
                if not (count_line.strip().isdecimal() and len(count_line.strip()) < 12 and int(count_line) > 0):
                    raise FileFormatError(
                        f"{path}: frame {index}, line {number}: expected the number of atoms, got "
                        f"{count_line.strip()[:60]!r}"
                    )
                lines = [count_line]
                for _ in range(int(count_line) + 1):
                    line = handle.readline()
                    number += 1
                    if not line.isascii():
                        line = _as_latin1(line)
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
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror or error}") from error


def _as_latin1(line: str) -> str:
    """Text whose bytes are not UTF-8, read as Latin-1."""
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return line.encode("utf-8", errors="surrogateescape").decode("latin-1")
    return line


def _check_encoding(path: Path) -> None:
    with open(path, "rb") as handle:
        if handle.read(2) in _BYTE_ORDER_MARKS:
            raise FileFormatError(f"{path}: text in UTF-16; save it as UTF-8")


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
    bead = is_bead(structure.numbers)
    of_beads = f":{BEAD_COLUMN}:S:1" if bead.any() else ""
    entries = [
        f"Properties=species:S:1{of_beads}{properties}",
        *(f"{key}={_format(value)}" for key, value in info.items()),
    ]
    yield f"{len(structure)}\n{' '.join(entries)}\n"
    table = np.concatenate(list(columns.values()), axis=1).tolist()
    names = species_names(structure.numbers)
    if bead.any():
        names = [f"{_BEAD_SYMBOL} {n}" if b else f"{n} {NO_BEAD}" for n, b in zip(names, bead.tolist(), strict=True)]
    for name, row in zip(names, table, strict=True):
        yield f"{name:<2} {' '.join(map(repr, row))}\n"


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
