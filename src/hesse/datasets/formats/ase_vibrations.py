"""ASE's `VibrationsData`: one geometry and its Hessian (eV/Å², not mass-weighted), in memory and as the JSON file that
`VibrationsData.write` makes. The JSON is read by its keys; class names in the file are ignored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.vibrations import VibrationsData
from numpy import ndarray as Array

from hesse.datasets.dataset import Dataset
from hesse.errors import FileFormatError, HesseError, RequestError
from hesse.runtime.filesystem import atomic_write_text, check_input_file
from hesse.structures import Properties, Structure, from_ase, to_ase

if TYPE_CHECKING:
    from hesse.datasets.io import DatasetSource

__all__ = ["from_vibrations_data", "read_vibrations", "to_vibrations_data", "write_vibrations"]


def from_vibrations_data(data: VibrationsData, *, id: str | None = None) -> Dataset:
    """Convert ASE's `VibrationsData` to a data set.

    Args:
        data: geometry and Hessian.
        id: id of the structure; by default the one in the atoms' `info`, or one made from the formula.

    Returns:
        One structure with its Hessian in eV/Å².

    Raises:
        RequestError: another object, or a Hessian of a part of the atoms (the others were frozen).
    """
    if not isinstance(data, VibrationsData):
        raise RequestError(f"expected an ase.vibrations.VibrationsData, got {type(data).__name__}")
    atoms = data.get_atoms()
    structure = from_ase(atoms, id=id)
    _check_all_atoms(data.get_indices(), len(structure), "this VibrationsData")
    order = np.argsort(np.asarray(data.get_indices()) % len(structure))
    hessian = data.get_hessian()[order][:, :, order]
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
    structure, hessian = dataset.structures[0], dataset.labels.hessian_of(0).double().numpy()
    content = {
        "atoms": {
            "numbers": _encode_array(structure.numbers),
            "positions": _encode_array(structure.positions),
            "cell": _encode_array(structure.cell),
            "pbc": _encode_array(np.array(structure.pbc)),
            "info": dict(to_ase(structure).info),
            "__ase_objtype__": "atoms",
        },
        "hessian": _encode_array(hessian),
        "indices": _encode_array(np.arange(len(structure))),
        "__ase_objtype__": "vibrationsdata",
    }
    atomic_write_text(path, json.dumps(content))


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
    check_input_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise FileFormatError(f"{path}: truncated, damaged, or not JSON ({error})") from error
    if not (isinstance(content, dict) and isinstance(content.get("atoms"), dict) and "hessian" in content):
        raise FileFormatError(
            f"{path}: JSON, but not of ASE's VibrationsData (expected: atoms and hessian); no other JSON is read"
        )
    try:
        structure, labels = _parse_json(content, path.stem)
    except HesseError as error:
        raise type(error)(f"{path}: {error}") from None
    except (KeyError, ValueError, TypeError, IndexError, OverflowError, MemoryError, AttributeError) as error:
        raise FileFormatError(
            f"{path}: not in the form that VibrationsData.write makes ({type(error).__name__}: {error})"
        ) from error
    return Dataset((structure,), labels, source=str(path))


def _as_dataset(data: DatasetSource) -> Dataset:
    from hesse.datasets.io import as_dataset  # here, because that module imports this one

    return as_dataset(data)


def _parse_json(content: Mapping[str, Any], stem: str) -> tuple[Structure, Properties]:
    atoms = content["atoms"]
    numbers = _decode_array(atoms["numbers"])
    n = len(numbers)
    cell = atoms.get("cell")
    frame = Atoms(
        numbers=numbers,
        positions=_decode_array(atoms["positions"]).reshape(n, 3),
        cell=None
        if cell is None
        else _decode_array(cell.get("array", cell) if isinstance(cell, dict) else cell).reshape(3, 3),
        pbc=_decode_array(atoms.get("pbc", [False] * 3)).astype(bool),
    )
    info = atoms.get("info")
    simple_info = {k: v for k, v in info.items() if isinstance(v, str | int)} if isinstance(info, dict) else {}
    frame.info.update(simple_info)
    structure = from_ase(frame, id=str(simple_info.get("structure_id") or stem))
    indices = content.get("indices")
    order = np.arange(n)
    if indices is not None:
        atom_indices = _decode_array(indices).astype(np.int64)
        _check_all_atoms(atom_indices, n, "the file")
        order = np.argsort(atom_indices % n)
    hessian = _decode_array(content["hessian"])
    if hessian.size != 9 * n * n:
        raise FileFormatError(f"a Hessian of {hessian.size} elements; {n} atoms need {9 * n * n}")
    hessian = hessian.reshape(n, 3, n, 3)[order][:, :, order]
    return structure, Properties.single(n, hessian=hessian, structure_id=structure.id)


def _check_all_atoms(indices: Array, n: int, source: str) -> None:
    if sorted(set((np.asarray(indices) % n).tolist())) != list(range(n)) or len(indices) != n:
        raise RequestError(
            f"{source} holds the Hessian of {len(indices)} of {n} atoms, the others were frozen: the missing rows "
            "are unknown. Calculate the Hessian of all atoms, or remove the frozen ones from the structure."
        )


def _encode_array(values: Array) -> dict[str, Any]:
    """Encode an array as in ASE's JSON."""
    return {"__ndarray__": [list(values.shape), values.dtype.name, values.ravel().tolist()]}


def _decode_array(value: Any) -> Array:
    """Decode an array of ASE's JSON, or a plain list."""
    if isinstance(value, dict):
        shape, kind, flat = value["__ndarray__"]
        if kind not in ("float64", "float32", "int64", "int32", "bool"):
            raise FileFormatError(f"an array of {kind}, expected numbers")
        array = np.asarray(flat, dtype=kind).reshape([int(k) for k in shape])
    else:
        array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise FileFormatError(f"an array of {array.dtype}, expected numbers")
    return array
