"""To and from ASE's `Atoms`: geometry only. Labels travel through the readers in `hesse.datasets`."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from hesse.errors import GeometryError
from hesse.structures.structure import Structure

__all__ = ["from_ase", "to_ase"]


def from_ase(atoms: Atoms, *, id: str | None = None) -> Structure:
    """A `Structure` with the atoms' geometry.

    `atoms.info` may hold `structure_id`, `tag`, `group`, `charge`, and `multiplicity`; an argument wins over it.

    Raises:
        GeometryError: the atoms make no structure, or charge and multiplicity are not whole numbers.
    """
    info = atoms.info
    try:
        charge, multiplicity = int(info.get("charge", 0)), int(info.get("multiplicity", 1))
    except (TypeError, ValueError) as error:
        raise GeometryError(f"charge and multiplicity must be whole numbers: {error}") from error
    return Structure(
        atoms.numbers,
        atoms.positions,
        id=id or str(info.get("structure_id", "")),
        cell=np.asarray(atoms.cell),
        pbc=tuple(bool(p) for p in atoms.pbc),  # type: ignore[arg-type]
        charge=charge,
        multiplicity=multiplicity,
        tag=str(info.get("tag", "")),
        group=str(info.get("group", "")),
    )


def to_ase(structure: Structure) -> Atoms:
    """ASE `Atoms` with the structure's geometry; id, tag, group, charge and multiplicity go to `atoms.info`."""
    atoms = Atoms(numbers=structure.numbers, positions=structure.positions, cell=structure.cell, pbc=structure.pbc)
    atoms.info["structure_id"] = structure.id
    if structure.tag:
        atoms.info["tag"] = structure.tag
    if structure.group:
        atoms.info["group"] = structure.group
    if structure.charge:
        atoms.info["charge"] = structure.charge
    if structure.multiplicity != 1:
        atoms.info["multiplicity"] = structure.multiplicity
    return atoms
