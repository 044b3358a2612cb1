"""A Hessian that is known of one structure: the vibrations from it, and its record in a journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray as Array

from hesse.harmonic.masses import MassesLike, atom_masses
from hesse.harmonic.normal_modes import normal_modes
from hesse.pes import Vibrations
from hesse.pes.hessian_columns import PartialHessian
from hesse.pes.vibrational_analysis import vibrations_from_labels
from hesse.sampling.search_journal import FinishedSearch
from hesse.structures import Properties, Structure

__all__ = ["KnownHessian", "Moving", "labels_of_record", "record_of_labels"]

Moving: TypeAlias = "Int[Array, 'm'] | None"
"""Indices of the atoms that move; None for all."""
_ERRORS = ("energy_error", "forces_error", "hessian_error")


@dataclass(frozen=True, eq=False)
class KnownHessian:
    """A Hessian of one structure: that of all atoms in its labels, or that of the atoms that move.

    Attributes:
        structure: the geometry, relaxed if that was requested.
        level: level of theory.
        labels: labels with the full Hessian; None for a partial one.
        partial: the Hessian of the atoms that move; None for a full one.
    """

    structure: Structure
    level: str
    labels: Properties | None = None
    partial: PartialHessian | None = None

    def vibrations(self, moving: Moving, masses: MassesLike, isotopes: Mapping[int, str | float] | None) -> Vibrations:
        """Vibrations from this Hessian.

        Args:
            moving: the atoms that move; None for all.
            masses: see `hesse.vibrations`.
            isotopes: see `hesse.vibrations`.

        Returns:
            Frequencies and normal modes.
        """
        if self.partial is None:
            assert self.labels is not None
            return vibrations_from_labels(
                self.structure,
                self.labels,
                level=self.level,
                atoms=moving,
                masses=masses,
                isotopes=isotopes,
                check=False,  # done for many at once
            )
        part = self.partial
        m = atom_masses(self.structure, masses, isotopes)
        modes = normal_modes(self.structure, part.hessian, masses=m, atoms=moving)
        return Vibrations(self.structure, self.level, part.energy, part.forces, part.hessian, modes, part.error)


def record_of_labels(known: KnownHessian) -> FinishedSearch:
    """Record of a full Hessian in a journal.

    Args:
        known: the Hessian, with labels.

    Returns:
        Energy, forces, Hessian and those of their errors that are known.
    """
    labels = known.labels
    assert labels is not None
    assert labels.energy is not None
    assert labels.forces is not None
    errors = {name: float(value[0]) for name in _ERRORS if (value := labels[name]) is not None}
    row = {"energy": float(labels.energy[0]), **{k: v for k, v in errors.items() if np.isfinite(v)}}
    return FinishedSearch(row, {"forces": labels.forces.numpy(), "hessian": labels.hessian_of(0).numpy()})


def labels_of_record(structure: Structure, record: FinishedSearch) -> Properties:
    """Labels from a record in a journal.

    Args:
        structure: the structure they belong to.
        record: the record.

    Returns:
        Its labels.
    """
    values: dict[str, Any] = {name: record.row.get(name) for name in ("energy", *_ERRORS)}
    return Properties.single(
        len(structure), structure_id=structure.id, **values, **dict[str, Any](record.arrays)
    ).map_tensors(torch.Tensor.double)
