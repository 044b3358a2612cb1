"""A NumPy archive with the structures of all sizes end to end, the plainest thing another program can write: `natoms`
`[S]`, `z` `[A]`, `pos` `[A, 3]`, and where known `energy` `[S]`, `forces` `[A, 3]`, `hessian` (9n² elements of each,
end to end), `ids` and `group` `[S]`. It is what a collated batch of HORM's records holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy import ndarray as Array

from hesse.errors import FileFormatError, HesseError, LabelShapeError
from hesse.structures import Properties, Structure

__all__ = ["is_packed", "read_packed"]

_NUMBERS: Final = ("z", "charges", "numbers", "atomic_numbers")
_POSITIONS: Final = ("pos", "positions", "coordinates")


def is_packed(names: Mapping[str, Array]) -> bool:
    """Whether an archive has this layout."""
    return "natoms" in names


def read_packed(path: Path, archive: Mapping[str, Array], limit: int | None) -> list[tuple[Structure, Properties]]:
    """Structures and labels, in the units of the file.

    Raises:
        FileFormatError: arrays are missing or do not fit each other.
        LabelShapeError: a label of another size.
    """
    sizes = np.asarray(archive["natoms"])
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or (sizes < 1).any():
        raise FileFormatError(f"{path}: natoms must be a list of whole numbers from 1, got {sizes.dtype}{sizes.shape}")
    sizes = sizes.astype(np.int64)
    numbers, positions = (_first_present(path, archive, names) for names in (_NUMBERS, _POSITIONS))
    atoms, elements, count = int(sizes.sum()), int((9 * sizes**2).sum()), len(sizes)
    expected_sizes = {"energy": count, "forces": 3 * atoms, "hessian": elements, "ids": count, "group": count}
    if numbers.size != atoms or positions.size != 3 * atoms:
        raise FileFormatError(
            f"{path}: natoms sums to {atoms}, but there are {numbers.size} atomic numbers and positions of shape "
            f"{positions.shape}"
        )
    arrays = {name: archive[name] for name in expected_sizes if name in archive}
    for name, values in arrays.items():
        if values.size != expected_sizes[name]:
            raise LabelShapeError(f"{path}: {name} holds {values.size} elements, expected {expected_sizes[name]}")
    ends, blocks = np.cumsum(sizes), np.cumsum(9 * sizes**2)
    flat = {name: values.reshape(-1) for name, values in arrays.items()}
    items = []
    for i in range(count)[:limit]:
        n, end, block = int(sizes[i]), int(ends[i]), int(blocks[i])
        name = str(flat["ids"][i]) if "ids" in flat else f"{path.stem}-{i:06d}"
        try:
            structure = Structure(
                numbers.reshape(-1)[end - n : end],
                positions.reshape(-1, 3)[end - n : end],
                id=name,
                group=str(flat["group"][i]) if "group" in flat else "",
            )
            labels = Properties.single(
                n,
                energy=float(flat["energy"][i]) if "energy" in flat else None,
                forces=flat["forces"][3 * (end - n) : 3 * end].reshape(n, 3) if "forces" in flat else None,
                hessian=flat["hessian"][block - 9 * n * n : block].reshape(n, 3, n, 3) if "hessian" in flat else None,
                structure_id=name,
            )
        except HesseError as error:
            raise type(error)(f"{path}: {error}") from None
        items.append((structure, labels))
    return items


def _first_present(path: Path, archive: Mapping[str, Array], names: tuple[str, ...]) -> Array:
    name = next((n for n in names if n in archive), None)
    if name is None:
        raise FileFormatError(f"{path}: natoms is there, but none of {', '.join(names)}")
    return archive[name]
