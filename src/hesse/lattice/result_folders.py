"""Folders of results of one crystal: results of another one are not replaced silently."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase.symbols import Symbols

from hesse.errors import HesseError, RequestError
from hesse.lattice.files import read_cell
from hesse.runtime.filesystem import atomic_write_text
from hesse.structures import Structure

__all__ = ["CrystalIdentity", "check_result_folder", "crystal_identity", "mark_result_folder"]

_MARK: Final = ".crystal.json"
_TOLERANCE: Final = 0.01
"""Å; of the space group: positions in files are rounded, and relaxed ones noisy."""
_MAX_EXPANSION: Final = 0.25
"""Largest relative difference of the volume of what counts as the same crystal at another pressure or level."""


@dataclass(frozen=True)
class CrystalIdentity:
    """The identity of a crystal, whatever cell it is given in.

    Attributes:
        formula: of the primitive cell.
        space_group: its international number; 0 if it is not known.
        volume: of the primitive cell, Å³.
    """

    formula: str
    space_group: int
    volume: float

    def __str__(self) -> str:
        group = f", space group {self.space_group}" if self.space_group else ""
        return f"{self.formula}{group}, {self.volume:.1f} Å³"

    def is_same(self, other: CrystalIdentity) -> bool:
        """Whether two descriptions are of the same crystal, at any pressure.

        Args:
            other: the other description.

        Returns:
            True for the same formula and space group, and volumes that differ by at most a quarter.
        """
        groups = {self.space_group, other.space_group} - {0}
        ratio = self.volume / other.volume
        near = 1 / (1 + _MAX_EXPANSION) <= ratio <= 1 + _MAX_EXPANSION
        return self.formula == other.formula and len(groups) <= 1 and near


def crystal_identity(structure: Structure) -> CrystalIdentity:
    """Find out what a crystal is.

    Args:
        structure: the crystal, in any cell.

    Returns:
        Formula, space group and volume of its primitive cell.
    """
    import spglib

    cell: Any = (structure.cell, structure.positions @ np.linalg.inv(structure.cell), structure.numbers)
    dataset = spglib.get_symmetry_dataset(cell, symprec=_TOLERANCE)
    primitive = spglib.find_primitive(cell, symprec=_TOLERANCE)
    lattice, _, numbers = cell if primitive is None else primitive
    formula = str(Symbols(np.sort(numbers)).get_chemical_formula("metal"))
    return CrystalIdentity(formula, 0 if dataset is None else int(dataset.number), abs(float(np.linalg.det(lattice))))


def check_result_folder(folder: Path, crystal: Structure, names: Iterable[str], *, overwrite: bool = False) -> None:
    """Check before a computation that a folder is not one with results of another crystal.

    Args:
        folder: the folder; it need not exist.
        crystal: the crystal whose results will be written there.
        names: names of the files that will be written, or patterns. A folder of unknown origin is refused only if it
            has such files.
        overwrite: replace results of other crystals.

    Raises:
        RequestError: results of another crystal would be replaced, or `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"--out: {folder} is a file; expected a folder, which is created if it is missing")
    replaced = any(path for name in names for path in folder.glob(name))
    if overwrite or not (replaced or (folder / _MARK).exists()):
        return
    found = _identity_in(folder)
    own = crystal_identity(crystal)
    if found is not None and not own.is_same(found[0]):
        raise RequestError(
            f"{folder} has results of another crystal ({found[1].name}: {found[0]}; now {own}): choose another --out, "
            "or give --overwrite to replace them"
        )


def mark_result_folder(folder: Path, crystal: Structure) -> None:
    """Note in a folder whose results it has, for formats that do not say it.

    Args:
        folder: the folder, which exists.
        crystal: the crystal.

    Raises:
        WriteError: the note cannot be written.
    """
    atomic_write_text(folder / _MARK, json.dumps(asdict(crystal_identity(crystal))) + "\n")


def _identity_in(folder: Path) -> tuple[CrystalIdentity, Path] | None:
    """The crystal of the results in a folder, and the file that tells it."""
    mark = folder / _MARK
    try:
        return CrystalIdentity(**json.loads(mark.read_text(encoding="utf-8"))), mark
    except (OSError, ValueError, TypeError):
        pass
    for path in sorted(folder.glob("phonopy*.yaml")):
        try:
            return crystal_identity(read_cell(path)[0]), path
        except HesseError:
            continue
    return None
