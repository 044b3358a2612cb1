"""The thermal distribution of displacements in a harmonic crystal: a Gaussian in its normal coordinates."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.errors import LabelShapeError
from hesse.lattice.thermal import THZ
from hesse.units import BOLTZMANN, HBAR

__all__ = ["MIN_FREQUENCY", "ThermalGaussian", "effective_sample_size", "normalized_weights"]

_THZ_PER_UNIT = HBAR / THZ
"""The frequency in THz of an angular frequency of one in internal units, √(eV/u)/Å."""
MIN_FREQUENCY = 0.2
"""THz; softer and imaginary modes are sampled as if they had this frequency, or the magnitude of theirs."""


class ThermalGaussian:
    """Displacements of a supercell with given force constants at a temperature.

    Normal coordinates are independent, with variance ħ/(2ω) coth(ħω/2kT); the three rigid translations are left out.

    Args:
        force_constants: of all atoms of the supercell, eV/Å².
        masses: u.
        temperature: K; 0 has the zero-point motion.

    Raises:
        LabelShapeError: shapes that do not fit.
    """

    def __init__(self, force_constants: Float[Array, "n n 3 3"], masses: Float[Array, "n"], temperature: float) -> None:
        n = len(masses)
        if force_constants.shape != (n, n, 3, 3):
            raise LabelShapeError(f"expected force constants ({n}, {n}, 3, 3), got {force_constants.shape}")
        self.force_constants = force_constants
        """Of all atoms of the supercell, eV/Å²."""
        self._matrix = force_constants.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)
        self._roots = np.repeat(np.sqrt(masses), 3)
        dynamical = self._matrix / self._roots / self._roots[:, None]
        # The complement of the translations: three directions less, exactly.
        translations = np.linalg.qr(np.kron(np.sqrt(masses)[:, None], np.eye(3)))[0]
        basis = np.linalg.qr(np.hstack([translations, np.eye(3 * n)]))[0][:, 3:]
        values, vectors = np.linalg.eigh(basis.T @ (0.5 * (dynamical + dynamical.T)) @ basis)
        self._vectors = basis @ vectors
        omega = np.sign(values) * np.sqrt(np.abs(values))
        floor = MIN_FREQUENCY / _THZ_PER_UNIT
        self.n_raised = int((omega < floor).sum())
        """Number of modes that are imaginary or softer than MIN_FREQUENCY."""
        self.n_imaginary = int((omega < 0).sum())
        """Number of imaginary modes."""
        self.frequencies = omega * _THZ_PER_UNIT
        """THz, ascending, without the translations; imaginary ones negative."""
        sampled = np.maximum(np.abs(omega), floor)
        self._sampled = sampled
        quantum = HBAR * sampled
        occupation = np.ones_like(sampled) if temperature == 0 else 1 / np.tanh(quantum / (2 * BOLTZMANN * temperature))
        self._widths = np.sqrt(HBAR / (2 * sampled) * occupation)

    def stable_force_constants(self) -> Float[Array, "n n 3 3"]:
        """Force constants with the frequencies that are sampled, all of them real.

        Returns:
            eV/Å², with the symmetry of those that were given.
        """
        scaled = self._vectors * self._roots[:, None]
        n = len(self.force_constants)
        matrix: Float[Array, "m m"] = (scaled * self._sampled**2) @ scaled.T
        return matrix.reshape(n, 3, n, 3).transpose(0, 2, 1, 3)

    def sample(self, count: int, rng: np.random.Generator) -> Float[Array, "count n 3"]:
        """Draw displacements in pairs of opposite sign, so that odd terms cancel exactly.

        Args:
            count: how many, an even number.
            rng: source of random numbers.

        Returns:
            Displacements, Å; the second half are those of the first with opposite sign.
        """
        coordinates = rng.normal(size=(count // 2, len(self._widths))) * self._widths
        half = (coordinates @ self._vectors.T / self._roots).reshape(count // 2, -1, 3)
        return np.concatenate([half, -half])

    def log_density(self, displacements: Float[Array, "count n 3"]) -> Float[Array, "count"]:
        """Logarithm of the density of displacements, up to a constant that all Gaussians of the crystal share.

        Args:
            displacements: Å.

        Returns:
            One number for each.
        """
        flat = displacements.reshape(len(displacements), -1) * self._roots
        scaled = flat @ self._vectors / self._widths
        result: Float[Array, "count"] = -0.5 * (scaled**2).sum(axis=1) - np.log(self._widths).sum()
        return result

    def potential_energy(self, displacements: Float[Array, "count n 3"]) -> Float[Array, "count"]:
        """Harmonic energy of displacements.

        Args:
            displacements: Å.

        Returns:
            ½ u Φ u, eV.
        """
        flat = displacements.reshape(len(displacements), -1)
        result: Float[Array, "count"] = 0.5 * ((flat @ self._matrix) * flat).sum(axis=1)
        return result


def normalized_weights(
    displacements: Float[Array, "count n 3"], drawn_from: ThermalGaussian, target: ThermalGaussian
) -> Float[Array, "count"]:
    """Weights with which displacements of one Gaussian represent another.

    Args:
        displacements: Å.
        drawn_from: the Gaussian that they were drawn from.
        target: the other.

    Returns:
        Weights of sum one.
    """
    logs = target.log_density(displacements) - drawn_from.log_density(displacements)
    weights = np.exp(logs - logs.max())
    result: Float[Array, "count"] = weights / weights.sum()
    return result


def effective_sample_size(weights: Float[Array, "count"]) -> float:
    """Number of equally weighted displacements that weighted ones are worth (Kish).

    Args:
        weights: of sum one.

    Returns:
        Between one and their number.
    """
    return float(1 / (weights**2).sum())
