"""The fixed point of the force constants of one temperature: fits to forces, and weights of displacements."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.lattice.phonons_result import MeshLike, Phonons
from hesse.lattice.symmetric_fit import NormalEquations, SymmetricFit
from hesse.lattice.thermal_gaussian import ThermalGaussian, effective_sample_size, normalized_weights

__all__ = ["BLOCKS", "FixedPointSearch", "Sample", "full_constants", "jackknife_errors", "largest_change"]

BLOCKS: Final = 8
"""Blocks of the jackknife that estimates statistical errors."""
FITS: Final = 30
"""Largest number of fits to the displacements of one round."""
SHORTEST_STEP: Final = 0.1
"""Shortest step towards fitted force constants; where the weights allow none as long, new displacements are drawn."""


@dataclass(frozen=True)
class Sample:
    """Displaced supercells of one round.

    Attributes:
        moves: displacements, Å.
        energies: relative to the crystal at rest, eV.
        equations: of the fit to their forces.
        drawn_from: the Gaussian that they were drawn from.
    """

    moves: Float[Array, "m n 3"]
    energies: Float[Array, "m"]
    equations: NormalEquations
    drawn_from: ThermalGaussian

    def part(self, keep: Array) -> Sample:
        """Some of the supercells.

        Args:
            keep: which ones.

        Returns:
            A smaller sample.
        """
        return Sample(self.moves[keep], self.energies[keep], self.equations.part(keep), self.drawn_from)

    def weights(self, gaussian: ThermalGaussian) -> Float[Array, "m"]:
        """Weights with which the sample represents another Gaussian.

        Args:
            gaussian: the other.

        Returns:
            Weights of sum one.
        """
        return normalized_weights(self.moves, self.drawn_from, gaussian)


@dataclass(frozen=True)
class Iteration:
    """Result of the fits to one sample.

    Attributes:
        gaussian: the Gaussian that was reached.
        fits: number of fits.
        weights: of the sample for that Gaussian.
        settled: whether the next fit would change nothing.
    """

    gaussian: ThermalGaussian
    fits: int
    weights: Float[Array, "m"]
    settled: bool


class FixedPointSearch:
    """The fixed point of the force constants of a crystal at one temperature.

    Args:
        start: phonons of the crystal, whose cells and space group are used.
        temperature: K.
        mesh: wave vectors of the harmonic part of the free energy.
        tolerance: THz; a tenth of it is the largest change of a frequency that ends the fits to one sample.
        min_effective: smallest effective fraction of a sample.

    Raises:
        EngineError: symfc failed.
    """

    def __init__(
        self, start: Phonons, temperature: float, mesh: MeshLike, tolerance: float, min_effective: float
    ) -> None:
        self.start, self.temperature, self.mesh = start, temperature, mesh
        self._tolerance, self._min_effective = tolerance, min_effective
        self._masses = np.asarray(start.supercell.atomic_masses)
        self._n_cells = len(start.supercell) / len(start.primitive)
        self.fit = SymmetricFit(start.record)

    def first_gaussian(self) -> ThermalGaussian:
        """The Gaussian of the harmonic phonons, with real frequencies in place of imaginary ones.

        Steps from an imaginary mode to a real one would pass through zero, where the displacements have no bound.

        Returns:
            The Gaussian.
        """
        gaussian = self._gaussian(full_constants(self.start))
        return self._gaussian(gaussian.stable_force_constants()) if gaussian.n_imaginary else gaussian

    def _gaussian(self, constants: Float[Array, "n n 3 3"]) -> ThermalGaussian:
        return ThermalGaussian(constants, self._masses, self.temperature)

    def phonons(self, gaussian: ThermalGaussian) -> Phonons:
        """Phonons with the force constants of a Gaussian.

        Args:
            gaussian: the Gaussian.

        Returns:
            Phonons of the crystal.
        """
        from phonopy.harmonic.force_constants import full_fc_to_compact_fc

        record = self.start.to_phonopy()
        record.force_constants = full_fc_to_compact_fc(record.primitive, gaussian.force_constants)
        return replace(self.start, record=record)

    def iterate(
        self, gaussian: ThermalGaussian, sample: Sample, limit: int = FITS, *, redrawn: bool = False
    ) -> Iteration:
        """Fit and weight until nothing changes.

        A step is halved until the weights are even enough and no mode is imaginary, and where steps do not become
        smaller.

        Args:
            gaussian: where to start; its modes are real.
            sample: displaced supercells.
            limit: largest number of fits.
            redrawn: whether new displacements follow, so that a first step needs no weights: without it a search that
                begins far away would never move.

        Returns:
            The Gaussian that was reached.
        """
        weights = sample.weights(gaussian)
        longest, last = 1.0, np.inf
        for fits in range(1, limit + 1):
            constants = self.fit.force_constants(sample.equations.solve(weights))
            change = largest_change(gaussian, self._gaussian(constants))
            if change < 0.1 * self._tolerance:
                return Iteration(gaussian, fits, weights, True)
            longest = 0.5 * longest if change > 0.8 * last else longest
            last, step = change, longest
            while step >= SHORTEST_STEP:
                tried = self._towards(gaussian, constants, step)
                new = sample.weights(tried)
                if tried.n_imaginary == 0 and effective_sample_size(new) >= self._min_effective * len(new):
                    break
                step *= 0.5
            else:
                if redrawn and fits == 1:
                    gaussian = self._real_step(gaussian, constants)
                    weights = sample.weights(gaussian)
                return Iteration(gaussian, fits, weights, False)
            gaussian, weights = tried, new
        return Iteration(gaussian, limit, weights, False)

    def _towards(self, gaussian: ThermalGaussian, constants: Float[Array, "n n 3 3"], step: float) -> ThermalGaussian:
        return self._gaussian((1 - step) * gaussian.force_constants + step * constants)

    def _real_step(self, gaussian: ThermalGaussian, constants: Float[Array, "n n 3 3"]) -> ThermalGaussian:
        """The longest of some steps after which no mode is imaginary."""
        tries = (self._towards(gaussian, constants, 0.5 * 2.0**-k) for k in range(8))
        return next((tried for tried in tries if tried.n_imaginary == 0), gaussian)

    def free_energy(self, gaussian: ThermalGaussian, phonons: Phonons, sample: Sample) -> float:
        """Free energy with the force constants of a Gaussian.

        Args:
            gaussian: the Gaussian.
            phonons: its phonons.
            sample: displaced supercells.

        Returns:
            eV per primitive cell, relative to the crystal at rest.
        """
        anharmonic = sample.weights(gaussian) @ (sample.energies - gaussian.potential_energy(sample.moves))
        return float(phonons.thermal(self.temperature, self.mesh).free_energy[0] + anharmonic / self._n_cells)

    def jackknife(
        self, gaussian: ThermalGaussian, sample: Sample, limit: int = FITS, *, paired: bool = True
    ) -> tuple[Float[Array, "q modes"], float]:
        """Statistical errors, from results without each of several blocks of the sample.

        Args:
            gaussian: the Gaussian that was reached with the whole sample.
            sample: displaced supercells.
            limit: largest number of fits.
            paired: whether the second half has the opposite displacements, which belong to the blocks of the first.

        Returns:
            Errors of the frequencies on the commensurate wave vectors, THz, and of the free energy, eV.
        """
        count = len(sample.moves) // 2 if paired else len(sample.moves)
        block = np.tile(np.arange(count) * BLOCKS // count, 2 if paired else 1)
        frequencies, energies = [], []
        for k in range(BLOCKS):
            part = sample.part(block != k)
            replicate = self.iterate(gaussian, part, limit).gaussian
            phonons = self.phonons(replicate)
            frequencies.append(phonons.frequencies(self.start.commensurate))
            energies.append(np.array(self.free_energy(replicate, phonons, part)))
        return jackknife_errors(frequencies), float(jackknife_errors(energies))


def full_constants(phonons: Phonons) -> Float[Array, "n n 3 3"]:
    """Force constants between all atoms of the supercell.

    Args:
        phonons: the phonons, which have those of the atoms of the primitive cell.

    Returns:
        eV/Å².
    """
    from phonopy.harmonic.force_constants import compact_fc_to_full_fc

    constants = phonons.force_constants
    if len(constants) == len(phonons.supercell):
        return constants
    return np.asarray(compact_fc_to_full_fc(phonons.record.primitive, constants))


def largest_change(before: ThermalGaussian, after: ThermalGaussian) -> float:
    """Largest change of a frequency of the supercell.

    Args:
        before: a Gaussian.
        after: another.

    Returns:
        THz.
    """
    return float(np.abs(after.frequencies - before.frequencies).max(initial=0))


def jackknife_errors(replicas: list[Array]) -> Array:
    """Standard errors from results without each block.

    Args:
        replicas: the results, arrays of one shape.

    Returns:
        Errors of the same shape.
    """
    values = np.array(replicas)
    result: Array = np.sqrt((len(values) - 1) * values.var(axis=0))
    return result
