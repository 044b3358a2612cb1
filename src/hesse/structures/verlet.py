"""Verlet neighbor lists (Verlet, Phys. Rev. 159, 98 (1967)) for structures that move in many small steps.

Pairs are searched up to cutoff + skin, reused as long as no other pair can have come within the cutoff, and reduced to
those within the cutoff at every step. The model therefore sees the same pairs as after a new search, and its cost does
not depend on the skin.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.errors import ConfigError, GeometryError
from hesse.structures import Batch, Structure, batch_from_pairs, find_neighbors, rng_key
from hesse.structures.pairs import squared_distances

__all__ = ["VerletNeighborList"]

MIN_DISTANCE = 0.3
"""Å. Atoms closer than this are an error."""


class VerletNeighborList:
    """Batches of one moving structure.

    The list is built at positions r₀ in a cell C₀. Later positions in a cell C are `r = r₀ F + u`, with the deformation
    `C₀ F = C` of the cell and displacements u relative to it. A pair that was further apart than cutoff + skin is now
    at least `s (cutoff + skin) − 2 max|u|` apart, where s is the smallest singular value of F. The list is valid as
    long as that is not below the cutoff. Wrapping atoms into the cell does not count as a displacement.

    Args:
        cutoff: Å.
        skin: Å; with 0, pairs are searched at every step.

    Attributes:
        n_builds: number of neighbor searches so far.
        n_batches: number of batches so far.

    Raises:
        ConfigError: the skin is negative or not finite.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        if not isinstance(skin, int | float) or not (np.isfinite(skin) and skin >= 0):
            raise ConfigError(f"the skin must be a finite number of Å, not below zero, got {skin!r}")
        self.cutoff, self.skin = float(cutoff), float(skin)
        self.n_builds = self.n_batches = 0
        self._reference: _Reference | None = None

    def batch(self, structure: Structure, *, dtype: torch.dtype, device: torch.device | str = "cpu") -> Batch:
        """The structure as a batch with exactly the pairs within the cutoff.

        Args:
            structure: usually the one of the last call, moved; any other one triggers a new search.
            dtype: dtype of positions and cell.
            device: device of the batch.

        Returns:
            A batch of one structure. Its atoms may be shifted by lattice vectors.

        Raises:
            GeometryError: two atoms are closer than 0.3 Å.
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
    """Geometry at which the list was built, and its pairs."""

    def __init__(self, structure: Structure, list_cutoff: float, device: torch.device | str) -> None:
        self.structure = structure
        self.lattice = structure.cell[list(structure.pbc)]
        # Atoms far outside of the cell are wrapped: large coordinates lose digits in float32.
        n_cells = np.floor(structure.positions @ np.linalg.pinv(self.lattice))
        self.positions = structure.positions - n_cells @ self.lattice
        pairs = find_neighbors(self.positions, structure.cell, structure.pbc, list_cutoff)
        self.numbers = torch.tensor(structure.numbers, device=device)
        self.centers, self.neighbors = (
            torch.from_numpy(index).to(device) for index in (pairs.centers, pairs.neighbors)
        )
        self.cell_shifts = torch.from_numpy(pairs.cell_shifts).to(device) if structure.periodic else None
        self._cell, self._translations = structure.cell, self._translations_in(structure.cell)

    def _translations_in(self, cell: Float[Array, "3 3"]) -> torch.Tensor | None:
        """Translation of the second atom of each pair, Å."""
        if self.cell_shifts is None:
            return None
        vectors = torch.tensor(cell, device=self.cell_shifts.device)
        return self.cell_shifts.to(vectors.dtype) @ vectors

    def tracked_positions(self, structure: Structure, cutoff: float, skin: float) -> Float[Array, "n 3"] | None:
        """Positions of the structure, with each atom in the cell in which the list has it; None if the list is no
        longer valid."""
        reference = self.structure
        if skin == 0 or structure.pbc != reference.pbc or not np.array_equal(structure.numbers, reference.numbers):
            return None
        if not structure.periodic:
            moved = structure.positions - self.positions
            farthest = float(np.sqrt(np.einsum("ia,ia->i", moved, moved).max()))
            return structure.positions if 2.0 * farthest <= skin else None
        lattice = structure.cell[list(structure.pbc)]
        # Directions normal to all lattice vectors are not deformed.
        deformation = np.eye(3) + np.linalg.pinv(self.lattice) @ (lattice - self.lattice)
        displacements = structure.positions - self.positions @ deformation
        translations = np.round(displacements @ np.linalg.pinv(lattice)) @ lattice
        max_displacement = float(np.sqrt(((displacements - translations) ** 2).sum(-1).max()))
        min_stretch = float(np.linalg.svd(deformation, compute_uv=False)[-1])
        if min_stretch * (cutoff + skin) - 2.0 * max_displacement < cutoff:
            return None
        return structure.positions - translations

    def batch(self, structure: Structure, positions: Float[Array, "n 3"], cutoff: float, dtype: torch.dtype) -> Batch:
        """Batch with the pairs within the cutoff at `positions`."""
        device = self.numbers.device
        coordinates, cell = torch.tensor(positions, device=device), torch.tensor(structure.cell, device=device)
        if not np.array_equal(structure.cell, self._cell):
            self._cell, self._translations = structure.cell, self._translations_in(structure.cell)
        squared = squared_distances(coordinates, self.centers, self.neighbors, self._translations)
        if len(squared) and float(squared.min()) < MIN_DISTANCE**2:
            self._raise_overlap(structure, squared.argmin(), float(squared.min()))
        inside = torch.nonzero(squared < cutoff**2)[:, 0]
        counts = torch.bincount(self.centers.index_select(0, inside), minlength=len(structure))
        return batch_from_pairs(
            numbers=self.numbers,
            positions=coordinates.to(dtype),
            n_atoms=torch.tensor([len(structure)], device=device),
            cell=cell[None].to(dtype),
            pbc=torch.tensor([structure.pbc], device=device),
            pair_counts=counts,
            pair_starts=counts.cumsum(0) - counts,
            pair_neighbors=self.neighbors.index_select(0, inside),
            pair_shifts=None if self.cell_shifts is None else self.cell_shifts.index_select(0, inside),
            rng_keys=torch.tensor([rng_key(structure.id)], device=device),
            ids=(structure.id,),
            cutoff=cutoff,
        )

    def _raise_overlap(self, structure: Structure, pair: torch.Tensor, squared: float) -> None:
        i, j = int(self.centers[pair]), int(self.neighbors[pair])
        raise GeometryError(
            f'structure "{structure.id}": atoms {i} and {j} are {squared**0.5:.3f} Å apart (at least {MIN_DISTANCE} Å '
            "expected). Check the geometry; in dynamics, take a shorter time step or another model."
        )
