"""Neighbor lists that live for many steps (Verlet, Phys. Rev. 159, 98 (1967)): found with a skin beyond the cutoff,
kept while no pair from outside can have come within the cutoff, and cut down to the cutoff at every step.

The model therefore sees the very pairs that a fresh search finds, and pays nothing for the skin.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.errors import ConfigError, GeometryError
from hesse.structures import Batch, Structure, batch_from_pairs, find_neighbors, rng_key

__all__ = ["VerletNeighborList"]

MIN_DISTANCE = 0.3
"""Å; nothing can be computed for atoms closer than this."""


class VerletNeighborList:
    """Batches of one structure that moves.

    The list stands for positions r₀ in a cell C₀. Positions in a cell C are `r = r₀ F + u`: swept along with the cell,
    `C₀ F = C`, and moved by u beyond that. A pair that was further apart than cutoff + skin is now at least
    `s (cutoff + skin) − 2 max|u|` apart, where s is the smallest singular value of F. While that is not below the
    cutoff, the list holds. Atoms that were put back into the cell have not moved.

    Args:
        cutoff: Å.
        skin: Å; 0 finds all pairs afresh at every step.

    Attributes:
        builds: how many searches there were.
        batches: how many batches were made.

    Raises:
        ConfigError: a skin below zero, or not finite.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        if not isinstance(skin, int | float) or not (np.isfinite(skin) and skin >= 0):
            raise ConfigError(f"the skin must be a finite number of Å, not below zero, got {skin!r}")
        self.cutoff, self.skin = float(cutoff), float(skin)
        self.n_builds = self.n_batches = 0
        self._reference: _Reference | None = None

    def batch(self, structure: Structure, *, dtype: torch.dtype, device: torch.device | str = "cpu") -> Batch:
        """The structure as a batch that holds all pairs below the cutoff and no others. Where it is periodic, its atoms
        may stand in other cells than the given ones.

        Raises:
            GeometryError: two atoms on top of each other.
        """
        self.n_batches += 1
        positions = (
            None if self._reference is None else self._reference.tracked_positions(structure, self.cutoff, self.skin)
        )
        if self._reference is None or positions is None:
            self._reference = _Reference(structure, self.cutoff + self.skin, device)
            self.n_builds += 1
            positions = self._reference.positions
        return self._reference.batch(structure, positions, self.cutoff, dtype)


class _Reference:
    """Where a list was made, and its pairs."""

    def __init__(self, structure: Structure, list_cutoff: float, device: torch.device | str) -> None:
        self.structure = structure
        self.lattice = structure.cell[list(structure.pbc)]
        # Atoms that have wandered far are taken back: large coordinates cost digits in float32.
        n_cells = np.floor(structure.positions @ np.linalg.pinv(self.lattice))
        self.positions = structure.positions - n_cells @ self.lattice
        pairs = find_neighbors(self.positions, structure.cell, structure.pbc, list_cutoff)
        self.numbers = torch.tensor(structure.numbers, device=device)
        self.centers, self.neighbors = (
            torch.from_numpy(index).to(device) for index in (pairs.centers, pairs.neighbors)
        )
        self.cell_shifts = torch.from_numpy(pairs.cell_shifts).to(device) if structure.periodic else None

    def tracked_positions(self, structure: Structure, cutoff: float, skin: float) -> Float[Array, "n 3"] | None:
        """The structure's positions, atoms put back into the cells that the list has them in; None where the list
        does not hold."""
        reference = self.structure
        if skin == 0 or structure.pbc != reference.pbc or not np.array_equal(structure.numbers, reference.numbers):
            return None
        lattice = structure.cell[list(structure.pbc)]
        # Directions normal to all lattice vectors stay as they are.
        deformation = np.eye(3) + np.linalg.pinv(self.lattice) @ (lattice - self.lattice)
        displacements = structure.positions - self.positions @ deformation
        translations = np.round(displacements @ np.linalg.pinv(lattice)) @ lattice
        max_displacement = float(np.sqrt(((displacements - translations) ** 2).sum(-1).max()))
        min_stretch = float(np.linalg.svd(deformation, compute_uv=False)[-1])
        if min_stretch * (cutoff + skin) - 2.0 * max_displacement < cutoff:
            return None
        return structure.positions - translations

    def batch(self, structure: Structure, positions: Float[Array, "n 3"], cutoff: float, dtype: torch.dtype) -> Batch:
        """The pairs that are below the cutoff at `positions`."""
        device = self.numbers.device
        coordinates, cell = torch.tensor(positions, device=device), torch.tensor(structure.cell, device=device)
        vectors = coordinates[self.neighbors] - coordinates[self.centers]
        if self.cell_shifts is not None:
            vectors = vectors + self.cell_shifts.to(vectors.dtype) @ cell
        squared = vectors.square().sum(-1)
        inside = torch.nonzero(squared < cutoff**2)[:, 0]
        if len(inside) and float(squared[inside].min()) < MIN_DISTANCE**2:
            self._raise_overlap(structure, inside[squared[inside].argmin()], float(squared[inside].min()))
        centers = self.centers[inside]
        counts = torch.bincount(centers, minlength=len(structure))
        batch = batch_from_pairs(
            numbers=self.numbers,
            positions=coordinates,
            n_atoms=torch.tensor([len(structure)], device=device),
            cell=cell[None],
            pbc=torch.tensor([structure.pbc], device=device),
            pair_counts=counts,
            pair_starts=counts.cumsum(0) - counts,
            pair_neighbors=self.neighbors[inside],
            pair_shifts=None if self.cell_shifts is None else self.cell_shifts[inside],
            rng_keys=torch.tensor([rng_key(structure.id)], device=device),
            ids=(structure.id,),
            cutoff=cutoff,
        )
        return batch.to(dtype=dtype)

    def _raise_overlap(self, structure: Structure, pair: torch.Tensor, squared: float) -> None:
        i, j = int(self.centers[pair]), int(self.neighbors[pair])
        raise GeometryError(
            f'structure "{structure.id}": atoms {i} and {j} are {squared**0.5:.3f} Å apart (at least {MIN_DISTANCE} Å '
            "expected). Check the geometry; in dynamics, take a shorter time step or another model."
        )
