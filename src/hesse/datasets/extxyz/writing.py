"""Extended XYZ: writing. Numbers keep all their digits: what is read back is bit by bit what was written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from hesse.datasets.dataset import Dataset
from hesse.datasets.extxyz.keys import ATTRIBUTE_KEYS, ERROR_KEYS
from hesse.errors import RequestError
from hesse.files import atomic_write
from hesse.structures import Structure

__all__ = ["write_extxyz"]


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
