"""Records of a ledger: labels of a structure as bytes, attempts to compute them, and the key of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hesse.structures import Structure

__all__ = ["Attempt", "Record", "StructureKey", "description_digest", "geometry_digest"]

StructureKey = tuple[str, str]
"""Structure id and geometry digest."""


@dataclass(frozen=True)
class Record:
    """One quantity of one structure.

    Attributes:
        payload: its labels as bytes.
        suspect_reason: why they are suspect; empty if they are not.
    """

    payload: bytes
    suspect_reason: str = ""


@dataclass(frozen=True)
class Attempt:
    """One computation of one structure.

    Attributes:
        key: key of the structure.
        quantities: the quantities that were requested together.
        atoms: number of atoms.
        seconds: time of the engine, s.
        reason: why there is no result; empty if there is one.
        records: the results by quantity; empty in attempts that are read from a ledger.
    """

    key: StructureKey
    quantities: tuple[str, ...]
    atoms: int
    seconds: float
    reason: str = ""
    records: Mapping[str, Record] = field(default_factory=dict)


def geometry_digest(structure: Structure) -> str:
    """Digest of everything in a structure that an engine uses.

    Args:
        structure: the structure.

    Returns:
        32 hexadecimal digits that depend on elements, positions, cell, periodicity, charge and multiplicity.
    """
    digest = hashlib.blake2b(digest_size=16)
    for array in (structure.numbers, structure.positions, structure.cell):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(f"{structure.pbc}/{structure.charge}/{structure.multiplicity}".encode())
    return digest.hexdigest()


def description_digest(description: Mapping[str, object]) -> str:
    """Digest of a description.

    Args:
        description: values that JSON can hold, by name.

    Returns:
        32 hexadecimal digits that do not depend on the order of the keys.
    """
    return hashlib.blake2b(json.dumps(description, sort_keys=True).encode(), digest_size=16).hexdigest()
