"""Mode Grüneisen parameters, from phonons at three volumes.

γ = −d ln ω / d ln V = −V / (2 ω²) ⟨e| dD/dV |e⟩, with the derivative of the dynamical matrix from the two outer
volumes, and frequencies and eigenvectors of the middle one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.errors import EngineError, RequestError
from hesse.lattice.phonon_comparison import check_same_crystal
from hesse.lattice.phonons_result import DEFAULT_MESH, MeshLike, Phonons
from hesse.lattice.supercells import phonopy_errors
from hesse.lattice.thermal import THZ, as_temperatures
from hesse.runtime.short_repr import ShortRepr
from hesse.units import BOLTZMANN

__all__ = ["Grueneisen", "grueneisen"]

_MIN_FREQUENCY = 1e-2
"""THz; modes below it have no parameter."""


@dataclass(frozen=True, eq=False, repr=False)
class Grueneisen(ShortRepr):
    """Mode Grüneisen parameters.

    Attributes:
        q: wave vectors in reciprocal lattice vectors of the primitive cell.
        weights: of the wave vectors.
        frequencies: THz.
        gamma: NaN for modes of no frequency, such as rigid translations at Γ.
    """

    q: Float[Array, "q 3"]
    weights: Float[Array, "q"]
    frequencies: Float[Array, "q modes"]
    gamma: Float[Array, "q modes"]

    def average(self, temperatures: ArrayLike = 300.0) -> Float[Array, "temperatures"]:
        """Averages with the heat capacities of the modes as weights; real modes alone count.

        Args:
            temperatures: K.

        Returns:
            The thermodynamic Grüneisen parameter of each temperature; NaN at 0 K.

        Raises:
            ConfigError: temperatures that are none.
        """
        counted = np.isfinite(self.gamma) & (self.frequencies > 0)
        energies, gamma = THZ * self.frequencies[counted], self.gamma[counted]
        share = (self.weights[:, None] * np.ones_like(self.frequencies))[counted]
        averages = []
        for kelvin in as_temperatures(temperatures):
            x = energies / (2.0 * BOLTZMANN * kelvin) if kelvin > 0 else np.full(len(energies), np.inf)
            with np.errstate(over="ignore", invalid="ignore"):
                capacity = share * np.nan_to_num((x / np.sinh(x)) ** 2)
            averages.append(float(capacity @ gamma / capacity.sum()) if capacity.sum() > 0 else np.nan)
        return np.array(averages)


def grueneisen(
    middle: Phonons, smaller: Phonons, larger: Phonons, *, q: ArrayLike | None = None, mesh: MeshLike = DEFAULT_MESH
) -> Grueneisen:
    """Compute mode Grüneisen parameters.

    Args:
        middle: phonons at the volume of interest.
        smaller: at a volume that is smaller by about 1 to 3 %.
        larger: at a volume that is larger by as much.
        q: wave vectors, `[q, 3]`; None for those of the mesh.
        mesh: see `Phonons.mesh`.

    Returns:
        The parameters.

    Raises:
        RequestError: phonons of different crystals, or volumes in another order.
    """
    for other in (smaller, larger):
        check_same_crystal(middle, other)
        if not np.array_equal(middle.record.supercell_matrix, other.record.supercell_matrix):
            raise RequestError("Grüneisen parameters need the same supercell at the three volumes")
    v_small, v_mid, v_large = (abs(np.linalg.det(p.primitive.cell)) for p in (smaller, middle, larger))
    if not v_small < v_mid < v_large:
        raise RequestError(
            f"Grüneisen parameters need phonons at a smaller and a larger volume, got {v_small:.4g}, {v_mid:.4g} and "
            f"{v_large:.4g} Å³"
        )
    if q is None:
        points, weights, _ = middle.mesh(mesh)
    else:
        points = np.atleast_2d(np.asarray(q, dtype=float))
        weights = np.ones(len(points))
    factor = middle.record.unit_conversion_factor
    center, derivative = _matrices(middle, points), _matrices(larger, points) - _matrices(smaller, points)
    squares, vectors = np.linalg.eigh(center)
    change = np.einsum("qim,qij,qjm->qm", vectors.conj(), derivative, vectors).real / (v_large - v_small)
    frequencies = factor * np.sign(squares) * np.sqrt(np.abs(squares))
    with np.errstate(divide="ignore", invalid="ignore"):
        gamma = -v_mid * change / (2.0 * squares)
    gamma[np.abs(frequencies) < _MIN_FREQUENCY] = np.nan
    return Grueneisen(points, weights, frequencies, gamma)


def _matrices(phonons: Phonons, q: Float[Array, "q 3"]) -> Any:
    """Dynamical matrices in the units of the record."""
    with phonopy_errors("phonopy cannot compute dynamical matrices", EngineError):
        phonons.record.run_qpoints(q, with_dynamical_matrices=True)
        return np.array(phonons.record.qpoints.dynamical_matrices)
