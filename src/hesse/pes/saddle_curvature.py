"""Curvature for saddle searches: full Hessians, or for large systems the lowest modes from Hessian-vector products."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.curvature import LowestModes, lowest_eigenpairs
from hesse.curvature.preconditioner import model_hessian
from hesse.engines import PotentialEngine
from hesse.pes.surface import CountedSurface
from hesse.structures import Structure

__all__ = ["ExactCurvature", "LowestCurvature", "SaddleCurvature"]

_SEARCH_TOLERANCE, _FINAL_TOLERANCE = 0.05, 0.002
"""eV/Å² and eV/(Å² u); residuals of the modes on the way, and of those that decide on the order of a saddle point."""
_N_MODES = 2
"""Number of modes: that of the reaction, and the next one, which must be positive."""


class SaddleCurvature(ABC):
    """The quadratic model of a search.

    Attributes:
        n_products: number of Hessian-vector products so far.
    """

    n_products = 0

    @abstractmethod
    def model(
        self, structure: Structure, mode: Float[Array, "d"] | None, before: Float[Array, "d d"] | None
    ) -> Float[Array, "d d"]:
        """A model of the Hessian, right in the modes that decide on a step.

        Args:
            structure: the geometry.
            mode: the mode that is followed, where there is one.
            before: the model so far, with what the gradients have told; None at the start.

        Returns:
            The matrix, eV/Å², `[3n, 3n]`.
        """


@final
class ExactCurvature(SaddleCurvature):
    """The full Hessian of the engine."""

    def __init__(self, surface: CountedSurface) -> None:
        self.surface = surface

    def model(
        self, structure: Structure, mode: Float[Array, "d"] | None, before: Float[Array, "d d"] | None
    ) -> Float[Array, "d d"]:
        """See `SaddleCurvature.model`."""
        return self.surface.hessian(structure.positions).reshape(3 * len(structure), -1)


@final
class LowestCurvature(SaddleCurvature):
    """The lowest modes of the engine, and for the others springs between neighboring atoms and what gradients tell."""

    def __init__(self, surface: CountedSurface) -> None:
        engine = surface.engine
        self.operator = engine.potential if isinstance(engine, PotentialEngine) else engine
        self._before: Float[Array, "modes n 3"] | None = None

    def model(
        self, structure: Structure, mode: Float[Array, "d"] | None, before: Float[Array, "d d"] | None
    ) -> Float[Array, "d d"]:
        """See `SaddleCurvature.model`. What the gradients have told about the other modes is kept, but not its signs:
        these modes are positive."""
        modes = self._modes(structure, mode, masses=False, tolerance=_SEARCH_TOLERANCE)
        vectors = modes.vectors.reshape(len(modes), -1)
        others = np.eye(vectors.shape[1]) - vectors.T @ vectors
        known = model_hessian(structure).toarray() if before is None else before
        values, axes = np.linalg.eigh(others @ known @ others)
        model: Float[Array, "d d"] = (axes * np.abs(values)) @ axes.T
        return model + vectors.T @ (modes.eigenvalues[:, None] * vectors)

    def lowest(self, structure: Structure, mode: Float[Array, "d"] | None) -> LowestModes:
        """The lowest modes of a stationary point, mass-weighted.

        Args:
            structure: the geometry.
            mode: the mode that was followed.

        Returns:
            Two modes; the signs of their eigenvalues tell the order of a saddle point.
        """
        return self._modes(structure, mode, masses=True, tolerance=_FINAL_TOLERANCE)

    def _modes(
        self, structure: Structure, mode: Float[Array, "d"] | None, *, masses: bool, tolerance: float
    ) -> LowestModes:
        starts = [] if mode is None else [mode.reshape(1, -1, 3)]
        starts += [] if self._before is None else [self._before]
        modes = lowest_eigenpairs(
            self.operator,
            structure,
            min(_N_MODES, 3 * len(structure) - 6) or 1,
            masses=masses,
            tolerance=tolerance,
            start=np.concatenate(starts) if starts else None,
            strict=False,
        )
        self._before = modes.cartesian
        self.n_products += modes.n_products
        return modes
