"""Conversion of ASE atoms, lists, files and data sets to structures, for every public function."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from ase import Atoms

from hesse.datasets.dataset import Dataset
from hesse.datasets.io import as_dataset
from hesse.errors import RequestError
from hesse.structures import Properties, Structure, from_ase

__all__ = ["StructuresLike", "as_structure", "as_structures"]

StructuresLike: TypeAlias = (
    "Structure | Atoms | Dataset | str | Path | tuple[Structure, Properties] "
    "| Iterable[Structure | Atoms | tuple[Structure, Properties]]"
)
"""Geometries: a Structure, ASE Atoms, a list of either, a Dataset or its items, or the path of a file."""

_STRUCTURES = "structures: a hesse.Structure, ASE Atoms, a list of them, a Dataset, or the path of a file"


def as_structures(structures: StructuresLike) -> tuple[Structure, ...]:
    """The structures in `structures`, in order.

    Args:
        structures: a Structure, ASE Atoms, an iterable of them, a Dataset or items of it, the path of a file in any
            format that `read_dataset` knows, or a result that has a `structure` (of `minimize`, `saddle`, ...).

    Returns:
        The structures. Atoms get the id in `atoms.info["structure_id"]`, or one made of formula and content; copies of
        the same atoms in one list get the suffixes "-2", "-3", ...

    Raises:
        RequestError: an argument of another type, or no structure at all.
        HesseError: the file cannot be read.
    """
    if isinstance(structures, str | Path):
        return as_dataset(structures).structures
    if isinstance(structures, Structure | Atoms):
        return (_structure(structures),)
    if isinstance(structures, Dataset):
        return structures.structures
    if isinstance(getattr(structures, "structure", None), Structure) or _is_pair(structures):
        return (_structure(structures),)
    if not isinstance(structures, Iterable):
        got = f"the class {structures.__name__}" if isinstance(structures, type) else type(structures).__name__
        raise RequestError(f"expected {_STRUCTURES}; got {got}")
    result = _distinct([(_structure(item), isinstance(item, Atoms)) for item in structures])
    if not result:
        raise RequestError(f"expected {_STRUCTURES}; got an empty {type(structures).__name__}")
    return result


def as_structure(structure: StructuresLike) -> Structure:
    """The only structure in `structure`.

    Args:
        structure: as for `as_structures`, holding exactly one structure.

    Returns:
        That structure.

    Raises:
        RequestError: several structures, or none.
    """
    structures = as_structures(structure)
    if len(structures) != 1:
        raise RequestError(f"expected one structure, got {len(structures)}: pass one of them, such as structures[0]")
    return structures[0]


def _structure(item: object) -> Structure:
    if isinstance(item, Structure):
        return item
    if isinstance(item, Atoms):
        return from_ase(item)
    if isinstance(inner := getattr(item, "structure", None), Structure):
        return inner
    if _is_pair(item):
        return item[0]  # type: ignore[index]
    raise RequestError(f"expected {_STRUCTURES}; one item of the list is {type(item).__name__}")


def _is_pair(item: object) -> bool:
    """True for an item of a data set."""
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], Properties)


def _distinct(items: list[tuple[Structure, bool]]) -> tuple[Structure, ...]:
    """Structures with different ids: generated ids that repeat get a suffix; ids that the caller chose are not
    changed."""
    seen: dict[str, int] = {}
    result = []
    for structure, made_here in items:
        count = seen[structure.id] = seen.get(structure.id, 0) + 1
        if count > 1 and made_here:
            structure = structure.with_positions(structure.positions, id=f"{structure.id}-{count}")
        result.append(structure)
    return tuple(result)
