"""Geometries in PDB files, with the elements, charges, occupancies and cells that they state."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from hesse.datasets.dataset import Dataset
from hesse.errors import FileFormatError, HesseError
from hesse.runtime.filesystem import check_input_file
from hesse.structures import Properties, Structure, parse_elements

__all__ = ["read_pdb"]

_NO_SYMMETRY: Final = ("", "P1", "P 1")


@dataclass
class _Model:
    names: list[str] = field(default_factory=list)
    positions: list[list[float]] = field(default_factory=list)
    charges: list[int] = field(default_factory=list)


def read_pdb(path: str | Path) -> Dataset:
    """Read the models of a PDB file.

    Args:
        path: the file.

    Returns:
        Structures in Å, in the cell of CRYST1 if there is one; the charge is the sum of the charges of the atoms.

    Raises:
        FileFormatError: not such a file; atoms at alternative places or of partial occupancy; an asymmetric unit.
        GeometryError: what is not an atom.
    """
    path = Path(path)
    check_input_file(path)
    models, cell = [_Model()], np.zeros((3, 3))
    not_read: Counter[str] = Counter()
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as handle:
            for number, line in enumerate(handle, start=1):
                if line.startswith(("ATOM  ", "HETATM")):
                    _add_atom(models[-1], line, f"{path}: line {number}")
                elif line.startswith(("ENDMDL", "END")) and models[-1].names:
                    models.append(_Model())
                elif line.startswith("CRYST1"):
                    cell = _cell(line, path, not_read)
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    models = [model for model in models if model.names]
    if not models:
        raise FileFormatError(f"{path}: holds no structure (no ATOM or HETATM lines)")
    ids = [path.stem] if len(models) == 1 else [f"{path.stem}-{i}" for i in range(len(models))]
    structures = []
    for model, name in zip(models, ids, strict=True):
        try:
            numbers, masses = parse_elements(model.names)
            pbc = (bool(cell.any()),) * 3
            charge = sum(model.charges)
            structures.append(
                Structure(numbers, np.array(model.positions), id=name, cell=cell, pbc=pbc, charge=charge, masses=masses)
            )
        except HesseError as error:
            raise type(error)(f"{path}: {error}") from None
    labels = Properties.concatenate([Properties.single(len(s)) for s in structures])
    return Dataset(tuple(structures), labels, source=str(path), not_read=not_read)


def _add_atom(model: _Model, line: str, place: str) -> None:
    try:
        position = [float(line[k : k + 8]) for k in (30, 38, 46)]
        occupancy = float(line[54:60].strip() or 1)
    except ValueError as error:
        raise FileFormatError(f"{place}: not a line of a PDB file: {error}") from None
    if line[16] not in " A1" or (line[16] != " " and 0 < occupancy < 1):
        raise FileFormatError(
            f"{place}: an atom at alternative places ({line[12:27].strip()}); keep one place of each atom, with the "
            "alternative-location column empty"
        )
    # 0 is what many programs write instead of an occupancy.
    if 0 < occupancy < 1:
        raise FileFormatError(f"{place}: an atom with occupancy {occupancy:g}; a disordered structure is no structure")
    element = line[76:78].strip()
    model.names.append(element if element.isalpha() else _element_of(line[12:16]))
    model.positions.append(position)
    charge = line[78:80].strip()
    if charge and charge[0].isdigit() and charge[1:] in ("+", "-"):
        model.charges.append(int(charge[0]) * (1 if charge[1:] == "+" else -1))
    elif charge and charge[0] in "+-" and charge[1:].isdigit():
        model.charges.append(int(charge))


def _element_of(name: str) -> str:
    """Element by the name of an atom: symbols are right-justified in the first two of its four columns."""
    letters = "".join(c for c in name if c.isalpha())
    is_hydrogen = len(name.strip()) == 4 and name.strip()[0].upper() == "H"
    if name[:1] == " " or name[:1].isdigit() or is_hydrogen:
        return letters[:1]
    return letters[:2]


def _cell(line: str, path: Path, not_read: Counter[str]) -> np.ndarray:
    from ase.geometry import cellpar_to_cell

    try:
        parameters = [float(line[a:b]) for a, b in ((6, 15), (15, 24), (24, 33), (33, 40), (40, 47), (47, 54))]
    except ValueError as error:
        raise FileFormatError(f"{path}: CRYST1 cannot be read: {error}") from None
    if max(parameters[:3]) <= 1.0:  # 1 × 1 × 1 Å stands for "no cell"
        not_read["CRYST1, a placeholder"] += 1
        return np.zeros((3, 3))
    if line[55:66].strip() not in _NO_SYMMETRY:
        raise FileFormatError(
            f"{path}: an asymmetric unit (space group {line[55:66].strip()}), not the content of the cell. Expand it "
            "to P 1, or remove the line CRYST1 to read the molecule alone."
        )
    try:
        return np.asarray(cellpar_to_cell(parameters))
    except (AssertionError, ValueError):
        raise FileFormatError(f"{path}: CRYST1 states lengths and angles that no cell has: {parameters}") from None
