"""The potential-energy surface of one structure with counted evaluations, and records of optimizations on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets.ase_atoms import atoms_with_labels
from hesse.engines import Engine, ForceEngine
from hesse.engines.force_engine import checked_point
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Properties, Request, Structure

__all__ = ["CountedSurface", "OptimizationHistory", "max_force"]


@dataclass(frozen=True, eq=False, repr=False)
class OptimizationHistory(ShortRepr):
    """Energies and forces along an optimization.

    Attributes:
        energies: eV, of every accepted geometry, the start first.
        fmax: largest force on an atom of each geometry, eV/Å.
    """

    energies: Float[Array, "points"]
    fmax: Float[Array, "points"]

    @classmethod
    def from_points(cls, points: Sequence[tuple[float, float]]) -> OptimizationHistory:
        """Create the history from pairs.

        Args:
            points: energy (eV) and largest force (eV/Å) of each geometry.

        Returns:
            The history.
        """
        energies, largest = zip(*points, strict=True)
        return cls(np.array(energies), np.array(largest))

    def __len__(self) -> int:
        return len(self.energies)


def max_force(gradient: Float[Array, "n 3"]) -> float:
    """The length of the largest force on an atom.

    Args:
        gradient: gradient or forces, eV/Å, `[n, 3]`.

    Returns:
        The largest length, eV/Å.
    """
    return float(np.linalg.norm(gradient, axis=-1).max())


class CountedSurface:
    """Energy, gradient and Hessian of one structure as functions of its positions, with counters.

    Attributes:
        engine: the engine.
        structure: the structure at its initial positions.
        n_gradients: number of gradients computed so far. Those that an engine needs to take Hessians by finite
            differences are not counted.
        n_hessians: number of Hessians computed so far.
    """

    def __init__(self, engine: Engine, structure: Structure) -> None:
        self.engine, self.structure = engine, structure
        self.n_gradients = self.n_hessians = 0
        # Points of an optimization need no error estimates, which labels of a force engine get.
        self._energy_function = engine.energy_function(structure) if isinstance(engine, ForceEngine) else None

    def structure_at(self, positions: Float[Array, "n 3"]) -> Structure:
        """The structure at other positions, with the same id.

        Args:
            positions: Å, `[n, 3]`.

        Returns:
            The moved structure.
        """
        return self.structure.with_positions(positions, id=self.structure.id)

    def gradient(self, positions: Float[Array, "n 3"]) -> tuple[float, Float[Array, "n 3"]]:
        """Compute energy and gradient.

        Args:
            positions: Å, `[n, 3]`.

        Returns:
            The energy (eV) and its gradient (eV/Å, `[n, 3]`).

        Raises:
            GeometryError: atoms on top of each other.
            EngineError: the engine failed, or a result is not finite.
        """
        self.n_gradients += 1
        structure = self.structure_at(positions)
        structure.check_no_overlap()
        if self._energy_function is not None:
            point = checked_point(self._energy_function, positions, structure)
            return point.energy, -point.forces
        labels = self.engine.compute(structure, Request(energy=True, forces=True))
        assert labels.energy is not None
        assert labels.forces is not None
        return float(labels.energy[0]), -labels.forces.numpy()

    def hessian(self, positions: Float[Array, "n 3"]) -> Float[Array, "n 3 n 3"]:
        """Compute the full Hessian.

        Args:
            positions: Å, `[n, 3]`.

        Returns:
            The Hessian, eV/Å², `[n, 3, n, 3]`.
        """
        self.n_hessians += 1
        labels = self.engine.compute(self.structure_at(positions), Request(energy=False, hessian=True))
        return labels.hessian_of(0).numpy()


def atoms_with_results(structure: Structure, energy: float, forces: Float[Array, "n 3"] | None) -> Atoms:
    """ASE atoms whose calculator holds energy (eV) and forces (eV/Å); id, tag and group are in `atoms.info`."""
    labels = Properties.single(len(structure), energy=energy, forces=forces, structure_id=structure.id)
    return atoms_with_labels(structure, labels, 0, {})
