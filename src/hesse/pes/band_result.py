"""The result of a nudged elastic band: the path, its highest image, and whether it converged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.pes.geometry_changes import Displacement
from hesse.pes.reaction_path import PathPoint
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Extrapolation

__all__ = ["NEBResult"]


@dataclass(frozen=True, eq=False, repr=False)
class NEBResult(ShortRepr):
    """The result of a nudged elastic band.

    Attributes:
        images: the path from the reactant to the product, both included. Ids are `{reactant}/neb/03`; the path length
            is measured from the reactant, mass-weighted.
        highest: index of the highest image between the ends.
        tangent: direction of the path at the highest image, of length one over all atoms, `[n, 3]`.
        steps: number of iterations.
        fmax: largest force on an atom of any image, without its component along the path and with the springs, eV/Å.
        converged: whether `fmax` fell below its limit.
        reason: the reason of not converging; empty otherwise.
        n_gradients: number of gradients computed, with those of the relaxation of the ends.
        change: distance of the ends after superposition, and the bonds that form and break from the reactant to the
            product.
        extrapolation: how far the path is from the training data of a model, at the image where it is farthest; None
            for other engines, and for models that keep no summary of them.
    """

    images: tuple[PathPoint, ...]
    highest: int
    tangent: Float[Array, "n 3"]
    steps: int
    fmax: float
    converged: bool
    reason: str
    n_gradients: int
    change: Displacement
    extrapolation: Extrapolation | None = None

    @property
    def energies(self) -> Float[Array, "images"]:
        """eV, of all images."""
        return np.array([image.energy for image in self.images])

    @property
    def top(self) -> PathPoint:
        """The highest image between the ends: a guess of the transition state."""
        return self.images[self.highest]

    @property
    def has_barrier(self) -> bool:
        """Whether an image is higher than both ends."""
        return self.top.energy > max(self.images[0].energy, self.images[-1].energy)

    @property
    def barrier(self) -> float:
        """Energy of the highest image minus that of the reactant, eV."""
        return self.top.energy - self.images[0].energy

    @property
    def reaction_energy(self) -> float:
        """Energy of the product minus that of the reactant, eV."""
        return self.images[-1].energy - self.images[0].energy

    def to_ase(self) -> list[Atoms]:
        """Convert the path to ASE.

        Returns:
            The images from the reactant to the product, with energies (eV) and forces (eV/Å).
        """
        return [image.to_ase() for image in self.images]
