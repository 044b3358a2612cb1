"""Self-consistent phonons: harmonic force constants that describe an anharmonic crystal best at a temperature.

Among all harmonic crystals, the free energy F = F_harmonic + ⟨V − V_harmonic⟩ is lowest for the one whose force
constants are the mean second derivatives of the energy over its own thermal displacements (stochastic self-consistent
harmonic approximation; Hooton 1955; Errea, Calandra, Mauri, Phys. Rev. B 89, 064302 (2014)). F is an upper bound of the
exact free energy. Atoms stay at their positions; thermal expansion is left out.

Each round draws displacements from the present Gaussian and computes their energies and forces. Force constants are
then fitted to the forces with the symmetry of the crystal (symfc), and the same displacements are weighted for the new
Gaussian, until nothing changes or the weights have become too uneven; then a new round begins.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.datasets import StructuresLike
from hesse.engines import Engine, EngineLike, PotentialEngine, as_engine, compute
from hesse.errors import ConfigError, HarmonicWarning, check_numbers, check_whole_numbers
from hesse.lattice.fixed_point import BLOCKS, FixedPointSearch, Sample, largest_change
from hesse.lattice.kept_results import KeptResults
from hesse.lattice.phonon_calculation import phonons
from hesse.lattice.phonons_result import DEFAULT_MESH, MeshLike, Phonons
from hesse.lattice.thermal_gaussian import effective_sample_size
from hesse.runtime.progress import track
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Structure

__all__ = ["Anharmonic", "AnharmonicRound", "anharmonic", "check_anharmonic_options"]

_TOGETHER: Final = 8
"""Displaced supercells of one call of a model."""


@dataclass(frozen=True)
class AnharmonicRound:
    """Result of one round of displacements.

    Attributes:
        fits: number of fits.
        effective: effective number of displacements after the last weighting.
        change: largest change of a frequency of the supercell in this round, THz.
        lowest: lowest frequency of the supercell afterwards, THz, without translations.
    """

    fits: int
    effective: float
    change: float
    lowest: float


@dataclass(frozen=True, eq=False, repr=False)
class Anharmonic(ShortRepr):
    """Self-consistent phonons of a crystal at a temperature.

    Attributes:
        temperature: K.
        phonons: phonons with the renormalized force constants: `.bands()`, `.dos()`, `.frequencies(q)`, ...
        harmonic: those that the search started from.
        free_energy: Helmholtz free energy per primitive cell, eV, relative to the energy of the crystal at rest; an
            upper bound of the exact one within its statistical error.
        free_energy_error: statistical error of it, eV.
        frequency_errors: statistical errors of the frequencies on the commensurate wave vectors, `[q, modes]`, THz.
        snapshots: number of displacements of a round.
        rounds: what the rounds gave.
        converged: whether the last round changed nothing beyond tolerance and statistical error.
    """

    temperature: float
    phonons: Phonons
    harmonic: Phonons
    free_energy: float
    free_energy_error: float
    frequency_errors: Float[Array, "q modes"]
    snapshots: int
    rounds: tuple[AnharmonicRound, ...]
    converged: bool

    @property
    def n_evaluations(self) -> int:
        """Number of displaced supercells whose forces were computed."""
        return self.snapshots * len(self.rounds)

    def row(self) -> dict[str, Any]:
        """The result as plain values.

        Returns:
            Frequencies in THz, free energy per primitive cell in eV.
        """
        q = self.phonons.commensurate
        before, after = (p.frequencies(q) for p in (self.harmonic, self.phonons))
        gamma = int(np.flatnonzero(~q.any(axis=1))[0])
        for values in (before, after):  # rigid translations
            values[gamma, np.argsort(np.abs(values[gamma]))[:3]] = np.inf
        lowest = np.unravel_index(int(after.argmin()), after.shape)
        return {
            "temperature": self.temperature,
            "free_energy": self.free_energy,
            "free_energy_error": self.free_energy_error,
            "lowest_harmonic": float(before.min()),
            "lowest": float(after.min()),
            "lowest_error": float(self.frequency_errors[lowest]),
            "largest_harmonic": float(before[np.isfinite(before)].max()),
            "largest": float(after[np.isfinite(after)].max()),
            "gamma": self.phonons.gamma.tolist(),
            "gamma_harmonic": self.harmonic.gamma.tolist(),
            "effective_snapshots": self.rounds[-1].effective,
            "snapshots": self.snapshots,
            "rounds": len(self.rounds),
            "evaluations": self.n_evaluations,
            "converged": self.converged,
        }


def check_anharmonic_options(
    temperature: float,
    snapshots: int = 100,
    rounds: int = 10,
    tolerance: float = 0.02,
    min_effective: float = 0.5,
    seed: int = 0,
) -> None:
    """Check the numbers of `anharmonic` before any work begins.

    Args:
        temperature: K.
        snapshots: displaced supercells of each round.
        rounds: largest number of rounds.
        tolerance: THz.
        min_effective: smallest effective fraction of the displacements.
        seed: of the displacements.

    Raises:
        ConfigError: one of them is impossible.
    """
    check_numbers(temperature=temperature, tolerance=tolerance, min_effective=min_effective)
    check_whole_numbers(snapshots=snapshots, rounds=rounds, seed=seed)
    if not 0 <= temperature < 1e5:
        raise ConfigError(f"temperature: expected a number of K from 0, got {temperature}")
    if snapshots < 2 * BLOCKS or snapshots % 2:
        raise ConfigError(f"snapshots: expected an even number of at least {2 * BLOCKS}, got {snapshots}")
    if rounds < 1:
        raise ConfigError(f"rounds: expected a number of at least 1, got {rounds}")
    if not 0 < tolerance < math.inf:
        raise ConfigError(f"tolerance: expected a positive number of THz, got {tolerance}")
    if not 0 < min_effective < 1:
        raise ConfigError(f"min_effective: expected a number between 0 and 1, got {min_effective}")


def anharmonic(
    structure: StructuresLike | Phonons,
    engine: EngineLike,
    temperature: float = 300.0,
    *,
    supercell: ArrayLike | None = None,
    snapshots: int = 100,
    rounds: int = 10,
    tolerance: float = 0.02,
    min_effective: float = 0.5,
    seed: int = 0,
    mesh: MeshLike = DEFAULT_MESH,
    cache: str | Path | None = None,
    quiet: bool = True,
) -> Anharmonic:
    """Compute self-consistent phonons of a crystal at a temperature.

    Args:
        structure: the crystal, as for `phonons`, or its harmonic phonons.
        engine: a name, the path of a model, an Engine, a Potential or an ASE calculator.
        temperature: K; 0 has the zero-point motion alone.
        supercell: see `phonons`; left out where phonons are given.
        snapshots: displaced supercells of each round, an even number.
        rounds: largest number of rounds.
        tolerance: THz; largest change of a frequency that counts as none.
        min_effective: smallest effective fraction of the displacements; below it a new round begins.
        seed: of the random displacements.
        mesh: wave vectors of the harmonic part of the free energy, see `Phonons.mesh`.
        cache: a folder that keeps energies and forces, so that the same call continues after an interruption.
        quiet: no progress.

    Returns:
        Renormalized phonons and the free energy, with statistical errors. A `HarmonicWarning` tells if they have not
        converged.

    Raises:
        ConfigError: a temperature or numbers that are impossible.
        EngineError: the engine or a fit failed.
        GeometryError: see `phonons`.
    """
    check_anharmonic_options(temperature, snapshots, rounds, tolerance, min_effective, seed)
    engine = as_engine(engine)
    if isinstance(structure, Phonons):
        if supercell is not None:
            raise ConfigError("supercell: the phonons that were given have one")
        start = structure
    else:
        start = phonons(structure, engine, supercell=supercell, quiet=quiet)
    source = _Forces(start.supercell, engine, None if cache is None else Path(cache), quiet)
    search = FixedPointSearch(start, temperature, mesh, tolerance, min_effective)
    gaussian, done, converged = search.first_gaussian(), list[AnharmonicRound](), False
    for k in range(rounds):
        moves = gaussian.sample(snapshots, np.random.default_rng((seed, k)))
        energies, forces = source.compute(moves, f"{temperature:g} K, round {k + 1}")
        sample = Sample(moves, energies, search.fit.normal_equations(moves, forces), gaussian)
        iteration = search.iterate(gaussian, sample, redrawn=True)
        change = largest_change(gaussian, iteration.gaussian)
        gaussian = iteration.gaussian
        lowest = float(gaussian.frequencies.min(initial=0))
        done.append(AnharmonicRound(iteration.fits, effective_sample_size(iteration.weights), change, lowest))
        if iteration.settled:
            errors = search.jackknife(gaussian, sample)
            if change <= max(tolerance, 2.0 * float(errors[0].max())):
                converged = True
                break
    if not iteration.settled:
        errors = search.jackknife(gaussian, sample, limit=2)
    result = search.phonons(gaussian)
    free_energy = search.free_energy(gaussian, result, sample)
    if not converged:
        warnings.warn(
            f"self-consistent phonons at {temperature:g} K have not converged in {rounds} rounds: the last one changed "
            f"frequencies by up to {done[-1].change:.2g} THz, and {done[-1].effective:.0f} of {snapshots} "
            "displacements were effective. More snapshots, more rounds",
            HarmonicWarning,
            stacklevel=2,
        )
    return Anharmonic(
        float(temperature), result, start, free_energy, errors[1], errors[0], snapshots, tuple(done), converged
    )


class _Forces:
    """Energies and forces of displaced supercells, kept in files as they come."""

    def __init__(self, supercell: Structure, engine: Engine, cache: Path | None, quiet: bool) -> None:
        self.supercell, self.engine, self.quiet = supercell, engine, quiet
        self._kept = KeptResults(cache, engine, supercell)
        self.rest = float(self._chunk(np.zeros((1, len(supercell), 3)))[0][0])

    def compute(self, moves: Float[Array, "m n 3"], what: str) -> tuple[Float[Array, "m"], Float[Array, "m n 3"]]:
        """Energies relative to the crystal at rest, and forces."""
        size = _TOGETHER if isinstance(self.engine, PotentialEngine) else 1
        energies, forces = [], []
        with track(f"{what}: displaced supercells", len(moves), quiet=self.quiet) as advance:
            for first in range(0, len(moves), size):
                chunk = moves[first : first + size]
                computed = self._chunk(chunk)
                energies.append(computed[0])
                forces.append(computed[1])
                advance(len(chunk))
        return np.concatenate(energies) - self.rest, np.concatenate(forces)

    def _chunk(self, moves: Float[Array, "m n 3"]) -> tuple[Float[Array, "m"], Float[Array, "m n 3"]]:
        def energies_and_forces() -> dict[str, Array]:
            positions = self.supercell.positions
            structures = [
                self.supercell.with_positions(positions + move, id=f"{self.supercell.id}/moved") for move in moves
            ]
            labels = compute(structures, self.engine, forces=True)
            assert labels.energy is not None
            assert labels.forces is not None
            return {"energies": labels.energy.numpy(), "forces": labels.forces.numpy().reshape(moves.shape)}

        stored = self._kept.get("energies and forces", moves, energies_and_forces)
        return stored["energies"], stored["forces"]
