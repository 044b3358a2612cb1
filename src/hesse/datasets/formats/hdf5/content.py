"""Structures and labels from the arrays that a file, or a part of one, holds."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch

from hesse.datasets.formats.hdf5.schema import DTYPES, Content, schema
from hesse.errors import FileFormatError
from hesse.structures import Properties, Structure

__all__ = ["labels_from_content", "structures_from_content"]


def structures_from_content(content: Content) -> list[Structure]:
    """Create the structures that arrays describe; each is checked.

    Args:
        content: arrays by name, see `schema`.

    Returns:
        The structures, in the units of the arrays.
    """
    offsets = content["structures/offsets"].tolist()
    count = len(offsets) - 1
    defaults = {"tag": b"", "group": b"", "charge": 0, "multiplicity": 1}
    columns: dict[str, Any] = {
        name: content[f"structures/{name}"].tolist() if f"structures/{name}" in content else [empty] * count
        for name, empty in defaults.items()
    }
    numbers = content["structures/numbers"]
    positions = content["structures/positions"]
    cells = content.get("structures/cell", np.zeros((count, 3, 3)))
    pbc = content.get("structures/pbc", np.zeros((count, 3), dtype=bool))
    masses = content.get("structures/masses", np.zeros(len(numbers)))
    ids = content["structures/id"].tolist()
    return [
        Structure(
            numbers[start:end],
            positions[start:end],
            id=ids[i].decode(),
            cell=cells[i],
            pbc=tuple(pbc[i].tolist()),
            charge=columns["charge"][i],
            multiplicity=columns["multiplicity"][i],
            tag=columns["tag"][i].decode(),
            group=columns["group"][i].decode(),
            masses=masses[start:end] if masses[start:end].any() else None,
        )
        for i, (start, end) in enumerate(pairwise(offsets))
    ]


def labels_from_content(content: Content) -> Properties:
    """Create the labels that arrays describe.

    Args:
        content: arrays by name, see `schema`.

    Returns:
        The labels, in the units of the arrays.

    Raises:
        FileFormatError: a Hessian that does not fit its structure.
    """
    n_atoms = np.diff(content["structures/offsets"])
    arrays = schema()
    fields: dict[str, Any] = {"n_atoms": torch.from_numpy(n_atoms.astype(np.int64))}
    for name, array in content.items():
        group, key = name.split("/")
        if group == "labels" and key != "hessian_offsets":
            fields[key] = torch.from_numpy(array.astype(DTYPES[arrays[name][0]], copy=False))
    if "hessian" in fields:
        lengths = np.diff(content["labels/hessian_offsets"])
        invalid = (lengths != 0) & (lengths != 9 * n_atoms**2)
        if invalid.any():
            i = int(invalid.argmax())
            raise FileFormatError(
                f'structure "{content["structures/id"][i].decode()}": a Hessian of {lengths[i]} elements; '
                f"{n_atoms[i]} atoms need {9 * n_atoms[i] ** 2}, or 0 for none"
            )
        if (lengths == 0).any():
            fields["hessian_mask"] = torch.from_numpy(lengths > 0)
    return Properties(**fields)
