"""ASE's `VibrationsData`: one geometry and its Hessian (eV/Å², not mass-weighted), in memory and as the JSON file that
`VibrationsData.write` makes.

ASE's JSON decoder makes objects of five fixed types (atoms, cells, vibrations, band paths and structures), and
constraints from a fixed list. It runs no code that a file names.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hesse.datasets.dataset import Dataset
from hesse.errors import FileFormatError, HesseError, RequestError
from hesse.runtime.filesystem import atomic_write, check_input_file
from hesse.structures import Properties, from_ase, to_ase

# ase.vibrations imports matplotlib and half of ASE: only where it is used.
if TYPE_CHECKING:
    from ase.vibrations import VibrationsData

    from hesse.datasets.io import DatasetSource

# What ASE's decoder raises for JSON whose values do not fit together.
_DAMAGE = (KeyError, ValueError, TypeError, IndexError, OverflowError, MemoryError, AttributeError, AssertionError)

__all__ = ["from_vibrations_data", "read_vibrations", "read_vibrations_data", "to_vibrations_data", "write_vibrations"]


def from_vibrations_data(data: VibrationsData, *, id: str | None = None) -> Dataset:
    """Convert ASE's `VibrationsData` to a data set.

    Args:
        data: geometry and Hessian.
        id: id of the structure; by default the one in the atoms' `info`, or one made from the formula.

    Returns:
        One structure with its Hessian in eV/Å².

    Raises:
        RequestError: another object, a Hessian of a part of the atoms (the others were frozen), or one that is not made
            of real numbers.
        GeometryError: invalid atoms or cell.
    """
    from ase.vibrations import VibrationsData

    if not isinstance(data, VibrationsData):
        raise RequestError(f"expected an ase.vibrations.VibrationsData, got {type(data).__name__}")
    atoms = data.get_atoms()
    structure = from_ase(atoms, id=id)
    indices = data.get_indices() % len(structure)
    if sorted(indices) != list(range(len(structure))):
        raise RequestError(
            f"this VibrationsData holds the Hessian of {len(indices)} of {len(structure)} atoms, the others were "
            "frozen: the missing rows are unknown. Calculate the Hessian of all atoms, or remove the frozen ones from "
            "the structure."
        )
    order = np.argsort(indices)
    hessian = data.get_hessian()[order][:, :, order]
    if hessian.dtype.kind not in "fiu":
        raise RequestError(f"this VibrationsData holds a Hessian of {hessian.dtype}, expected real numbers")
    return Dataset.from_pairs(
        [(structure, Properties.single(len(structure), hessian=hessian, structure_id=structure.id))]
    )


def to_vibrations_data(dataset: DatasetSource, index: int = 0) -> VibrationsData:
    """Convert one structure of a data set to ASE's `VibrationsData`.

    Args:
        dataset: structures with Hessians, in any form that `as_dataset` takes.
        index: which structure.

    Returns:
        Geometry and Hessian, from which ASE computes modes and frequencies.

    Raises:
        RequestError: no structure with this index, or something other than a data set.
        LabelShapeError: the structure has no Hessian.
    """
    dataset = _as_dataset(dataset)
    if not -len(dataset) <= index < len(dataset):
        raise RequestError(f"index: expected a number from 0 to {len(dataset) - 1}, got {index}")
    hessian = dataset.labels.hessian_of(index)
    from ase.vibrations import VibrationsData

    return VibrationsData(to_ase(dataset.structures[index]), hessian.double().numpy())


def write_vibrations(path: str | Path, dataset: DatasetSource) -> None:
    """Write one structure and its Hessian as ASE's JSON, with all digits. The file is replaced atomically.

    Energy, forces and other labels are not part of this format and are left out.

    Args:
        path: the file.
        dataset: one structure with a Hessian, in any form that `as_dataset` takes.

    Raises:
        RequestError: more than one structure.
        LabelShapeError: no Hessian.
        WriteError: the file cannot be written.
    """
    dataset = _as_dataset(dataset)
    if len(dataset) != 1:
        raise RequestError(
            f"{path}: VibrationsData holds one structure, got {len(dataset)}. Choose one: `hesse convert --match ID`."
        )
    from ase.io.jsonio import write_json

    data = to_vibrations_data(dataset)
    with atomic_write(path) as temporary:
        write_json(temporary, data)


def read_vibrations_data(path: str | Path) -> VibrationsData:
    """Read ASE's VibrationsData from a JSON file, also one of a part of the atoms.

    Args:
        path: the file.

    Returns:
        Geometry and Hessian.

    Raises:
        FileFormatError: damaged, or JSON of another kind.
    """
    from ase.io.jsonio import decode
    from ase.vibrations import VibrationsData

    path = Path(path)
    check_input_file(path)
    try:
        data = decode(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise FileFormatError(f"{path}: truncated, damaged, or not JSON ({error})") from error
    except _DAMAGE as error:
        raise FileFormatError(
            f"{path}: not in the form that VibrationsData.write makes ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(data, VibrationsData):
        raise FileFormatError(
            f"{path}: JSON, but not of ASE's VibrationsData (expected: atoms and hessian); no other JSON is read"
        )
    return data


def read_vibrations(path: str | Path) -> Dataset:
    """Read a JSON file that `VibrationsData.write` or `write_vibrations` wrote.

    Args:
        path: the file.

    Returns:
        One structure with its Hessian in eV/Å². Its id is the stored one, or the name of the file.

    Raises:
        FileFormatError: damaged, or JSON of another kind.
        RequestError: a Hessian of a part of the atoms.
        GeometryError: invalid atoms or cell.
    """
    path = Path(path)
    data = read_vibrations_data(path)
    try:
        dataset = from_vibrations_data(data, id=str(data.get_atoms().info.get("structure_id") or path.stem))
    except HesseError as error:
        raise type(error)(f"{path}: {error}") from None
    return replace(dataset, source=str(path))


def _as_dataset(data: DatasetSource) -> Dataset:
    from hesse.datasets.io import as_dataset  # here, because that module imports this one

    return as_dataset(data)
