"""Energies and gradients of many geometries at a time: in one batched pass for models, one after another for others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from numpy import ndarray as Array

from hesse.curvature import evaluate_structures
from hesse.engines import Engine, PotentialEngine
from hesse.errors import HesseError
from hesse.pes.surface import CountedSurface
from hesse.structures import Request, Structure, check_cell

__all__ = ["Point", "PointEvaluator"]

_MAX_SURFACES = 64
"""Number of structures whose energy functions are kept."""


class Point(NamedTuple):
    """Energy (eV) and gradient (eV/Å, `[n, 3]`) of one geometry."""

    energy: float
    gradient: Float[Array, "n 3"]


class PointEvaluator:
    """Energies and gradients of many geometries at a time.

    Attributes:
        engine: the engine.
        batched: whether the geometries of a call are evaluated together: true for models.
        n_gradients: number of gradients computed so far.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.batched = isinstance(engine, PotentialEngine)
        self.n_gradients = 0
        self._surfaces: dict[tuple[object, ...], CountedSurface] = {}

    def __call__(self, structures: Sequence[Structure]) -> list[Point | HesseError]:
        """Compute energies and gradients.

        Args:
            structures: the geometries.

        Returns:
            One point per geometry; where it failed (atoms on top of each other, no convergence, an element that the
            model does not have) the error instead.
        """
        results: list[Point | HesseError | None] = [_refusal(structure) for structure in structures]
        if not isinstance(self.engine, PotentialEngine):
            return [
                self._single(structure) if refused is None else refused
                for structure, refused in zip(structures, results, strict=True)
            ]
        places = [i for i, result in enumerate(results) if result is None]
        sound = [structures[i] for i in places]
        for i, point in zip(places, self._together(self.engine, sound), strict=True):
            results[i] = point
        return [result for result in results if result is not None]

    def _together(self, engine: PotentialEngine, structures: Sequence[Structure]) -> list[Point | HesseError]:
        if not structures:
            return []
        try:
            labels = evaluate_structures(engine.potential, structures, Request(energy=True, forces=True))
        except HesseError as error:
            if len(structures) == 1:
                self.n_gradients += 1
                return [error]
            return [point for structure in structures for point in self._together(engine, [structure])]
        self.n_gradients += len(structures)
        assert labels.energy is not None
        assert labels.forces is not None
        forces = labels.forces.split([len(s) for s in structures])
        return [Point(float(e), -f.numpy()) for e, f in zip(labels.energy, forces, strict=True)]

    def _single(self, structure: Structure) -> Point | HesseError:
        key = (
            structure.id,
            structure.numbers.tobytes(),
            structure.cell.tobytes(),
            structure.pbc,
            structure.charge,
            structure.multiplicity,
        )
        if key not in self._surfaces:
            if len(self._surfaces) >= _MAX_SURFACES:
                self._surfaces.clear()
            try:
                self._surfaces[key] = CountedSurface(self.engine, structure)
            except HesseError as error:
                return error
        self.n_gradients += 1
        try:
            return Point(*self._surfaces[key].gradient(structure.positions))
        except HesseError as error:
            return error


def _refusal(structure: Structure) -> HesseError | None:
    """Why a geometry is not computed: a cell that is none, or atoms on top of each other."""
    try:
        check_cell(structure)
        structure.check_no_overlap()
    except HesseError as error:
        return error
    return None
