"""Molecules in SDF and MOL files (V2000 and V3000), with the charges, radicals and isotopes that they state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase.data import atomic_masses, chemical_symbols

from hesse.datasets.dataset import Dataset
from hesse.errors import FileFormatError, GeometryError, HesseError
from hesse.runtime.filesystem import check_input_file
from hesse.structures import Properties, Structure, is_charge_key, parse_elements, read_charge_state

__all__ = ["read_molfile"]

_COLUMN_CHARGES: Final = {1: 3, 2: 2, 3: 1, 5: -1, 6: -2, 7: -3}
"""Meaning of the charge column of V2000; 4 is a doublet radical."""
_ISOTOPES: Final = {
    (1, 2): 2.01410177812,
    (1, 3): 3.0160492779,
    (6, 12): 12.0,
    (6, 13): 13.0033548351,
    (6, 14): 14.0032419884,
    (7, 14): 14.0030740043,
    (7, 15): 15.0001088989,
    (8, 16): 15.9949146196,
    (8, 17): 16.9991317565,
    (8, 18): 17.9991596129,
    (16, 34): 33.967867,
    (17, 35): 34.968852682,
    (17, 37): 36.965902602,
    (35, 79): 78.9183376,
    (35, 81): 80.9162897,
    (1, 1): 1.00782503223,
}
"""Masses of isotopes in u, by atomic number and mass number (AME2020)."""


@dataclass
class _Record:
    """One molecule as it is written; charges, radicals and mass numbers by index of the atom."""

    title: str
    names: list[str] = field(default_factory=list)
    positions: list[list[float]] = field(default_factory=list)
    charges: dict[int, int] = field(default_factory=dict)
    radicals: dict[int, int] = field(default_factory=dict)
    isotopes: dict[int, int] = field(default_factory=dict)
    mass_differences: dict[int, int] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    is_drawing: bool = False


def read_molfile(path: str | Path) -> Dataset:
    """Read the molecules of an SDF or MOL file. Geometries only; data fields other than charge and spin are not read.

    Args:
        path: the file.

    Returns:
        Structures in Å. Titles are ids if all differ, otherwise the name of the file and a number.

    Raises:
        FileFormatError: not such a file, truncated, or a drawing in two dimensions.
        GeometryError: what is not an atom, or an isotope of unknown mass.
        LabelValueError: charges that contradict each other.
    """
    path = Path(path)
    check_input_file(path)
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    structures: list[Structure] = []
    titles: list[str] = []
    not_read: Counter[str] = Counter()
    for number, record in enumerate(_split(lines)):
        try:
            parsed = _parse_record(record)
            structures.append(_to_structure(parsed, f"{path.stem}-{number}", not_read))
        except HesseError as error:
            raise type(error)(f"{path}: molecule {number}: {error}") from None
        except (ValueError, IndexError) as error:
            raise FileFormatError(f"{path}: molecule {number}: truncated or not in V2000 or V3000 ({error})") from error
        titles.append(parsed.title)
    if not structures:
        raise FileFormatError(f"{path}: holds no structure")
    if not (all(titles) and len(set(titles)) == len(titles)):
        titles = [path.stem] if len(structures) == 1 else [s.id for s in structures]
    named = [_renamed(s, name) for s, name in zip(structures, titles, strict=True)]
    labels = Properties.concatenate([Properties.single(len(s)) for s in named])
    return Dataset(tuple(named), labels, source=str(path), not_read=not_read)


def _renamed(structure: Structure, name: str) -> Structure:
    return structure if structure.id == name else structure.with_positions(structure.positions, id=name)


def _split(lines: Sequence[str]) -> Iterator[list[str]]:
    record: list[str] = []
    for line in lines:
        if line.startswith("$$$$"):
            yield record
            record = []
        else:
            record.append(line)
    if any(line.strip() for line in record):
        yield record


def _parse_record(lines: list[str]) -> _Record:
    if len(lines) < 4:
        raise FileFormatError("cut off: four header lines expected")
    title = " ".join(lines[0].split())[:80]
    record = _Record(title=title if title.isprintable() else "", is_drawing=lines[1][20:22].upper() == "2D")
    if "V3000" in lines[3]:
        _parse_v3000(record, lines[4:])
    else:
        _parse_v2000(record, lines[3], lines[4:])
    name = ""
    for line in lines[4:]:
        if line.startswith(">") and "<" in line:
            name = line.partition("<")[2].partition(">")[0]
        elif name and line.strip():
            record.fields.setdefault(name, line.strip())
            name = ""
    return record


def _parse_v2000(record: _Record, counts: str, lines: list[str]) -> None:
    n_atoms, n_bonds = int(counts[0:3]), int(counts[3:6] or 0)
    if len(lines) < n_atoms:
        raise FileFormatError(f"cut off: {n_atoms} atoms announced, {len(lines)} lines follow")
    column_charges, column_radicals = {}, {}
    for i, line in enumerate(lines[:n_atoms]):
        position, name, difference, code = _v2000_atom(line)
        record.positions.append(position)
        record.names.append(name)
        if difference:
            record.mass_differences[i] = difference
        if code == 4:
            column_radicals[i] = 2
        elif code:
            column_charges[i] = _COLUMN_CHARGES[code] if code in _COLUMN_CHARGES else _refuse_code(code)
    supersedes = False
    for line in lines[n_atoms + n_bonds :]:
        if line.startswith("M  END"):
            break
        for key, values in (("CHG", record.charges), ("RAD", record.radicals), ("ISO", record.isotopes)):
            if line.startswith(f"M  {key}"):
                numbers = [int(x) for x in line[9:].split()]
                pairs = zip(numbers[::2], numbers[1::2], strict=True)
                values |= {_atom_index(atom, n_atoms): value for atom, value in pairs}
                supersedes |= key != "ISO"
    if not supersedes:  # as the format says: one of these lines makes the column void
        record.charges, record.radicals = column_charges, column_radicals


def _v2000_atom(line: str) -> tuple[list[float], str, int, int]:
    """Position, name, difference of the mass number, code of the charge."""
    try:
        position = [float(line[k : k + 10]) for k in (0, 10, 20)]
        return position, line[31:34].strip(), int(line[34:36].strip() or 0), int(line[36:39].strip() or 0)
    except ValueError:  # not in the columns of the format
        words = line.split()
        return [float(x) for x in words[:3]], words[3], *(int(w) for w in (*words[4:6], "0", "0")[:2])  # type: ignore[return-value]


def _refuse_code(code: int) -> int:
    raise FileFormatError(f"{code} in the column of charges; 0 to 7 are known")


def _atom_index(number: int, n_atoms: int) -> int:
    if not 1 <= number <= n_atoms:
        raise FileFormatError(f"a property of atom {number}, but there are {n_atoms} atoms")
    return number - 1


def _parse_v3000(record: _Record, lines: list[str]) -> None:
    inside, text = False, ""
    for line in lines:
        if not line.startswith("M  V30 "):
            continue
        text += line[7:].strip()
        if text.endswith("-"):  # goes on in the next line
            text = text[:-1]
            continue
        words, text = text.split(), ""
        if words[:2] in (["BEGIN", "ATOM"], ["END", "ATOM"]):
            inside = words[0] == "BEGIN"
        elif inside:
            i = len(record.names)
            record.names.append(words[1])
            record.positions.append([float(x) for x in words[2:5]])
            options = dict(word.upper().split("=", 1) for word in words[6:] if "=" in word)
            for key, values in (("CHG", record.charges), ("RAD", record.radicals), ("MASS", record.isotopes)):
                if key in options:
                    values[i] = int(options[key])
    if inside or not record.names:
        raise FileFormatError("cut off: the block of atoms does not end")


def _to_structure(record: _Record, name: str, not_read: Counter[str]) -> Structure:
    if not record.names:
        raise FileFormatError("no atoms")
    positions = np.array(record.positions)
    if record.is_drawing and len(positions) > 1 and not positions[:, 2].any():
        raise FileFormatError(
            "a drawing in two dimensions (2D in its second line), not a geometry. Build a geometry first"
        )
    numbers, masses = parse_elements(record.names)
    isotopes = {i: round(atomic_masses[numbers[i]]) + d for i, d in record.mass_differences.items()}
    for i, mass_number in (record.isotopes or isotopes).items():
        if mass_number == 0:
            continue
        key = (int(numbers[i]), mass_number)
        if key not in _ISOTOPES:
            raise GeometryError(
                f"atom {i}: the mass of {mass_number}{chemical_symbols[key[0]]} is not in Hesse's table of isotopes; "
                "remove the isotope, and set the mass in extended XYZ (column masses)"
            )
        masses = np.array(atomic_masses[numbers]) if masses is None else masses
        masses[i] = _ISOTOPES[key]
    stated: dict[str, Any] = {key: _number(value) for key, value in record.fields.items() if is_charge_key(key)}
    if total := sum(record.charges.values()):
        stated["CHARGE"] = total  # of the atoms; a field of another value contradicts it
        if "CHARGE" in record.fields and _number(record.fields["CHARGE"]) != total:
            stated["charge"] = _number(record.fields["CHARGE"])
    state = read_charge_state(stated, numbers)
    multiplicity = state.multiplicity
    radicals = [value for value in record.radicals.values() if value]
    if len(radicals) == 1:
        multiplicity = radicals[0]
    elif radicals:
        not_read["radicals of several atoms, whose coupling is not stated (state the multiplicity)"] += 1
    not_read.update({f"data field {key}": 1 for key in record.fields if key not in state.read})
    return Structure(numbers, positions, id=name, charge=state.charge, multiplicity=multiplicity, masses=masses)


def _number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text
