"""Self-consistent phonons from displaced supercells whose energies and forces were computed elsewhere."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets import Dataset, as_dataset
from hesse.errors import GeometryError, HarmonicWarning, MissingLabelError, RequestError, check_numbers
from hesse.lattice.fixed_point import BLOCKS, FixedPointSearch, Sample, full_constants, largest_change
from hesse.lattice.phonons_result import DEFAULT_MESH, MeshLike, Phonons
from hesse.lattice.self_consistent import Anharmonic, AnharmonicRound, check_anharmonic_options
from hesse.lattice.thermal_gaussian import ThermalGaussian, effective_sample_size
from hesse.structures import Structure

__all__ = ["anharmonic_ensemble", "displacements_of", "sampling_temperature"]

_MIN_EFFECTIVE = 8.0
"""Fewer effective displacements than this determine nothing, however many there are."""
_MAX_TEMPERATURE = 1e4


def anharmonic_ensemble(
    harmonic: Phonons,
    ensemble: Dataset | str | Path,
    temperature: float | None = None,
    *,
    drawn_at: float | None = None,
    tolerance: float = 0.02,
    min_effective: float = 0.5,
    mesh: MeshLike = DEFAULT_MESH,
) -> Anharmonic:
    """Self-consistent phonons from displaced supercells that were drawn from the Gaussian of given phonons.

    Nothing is computed with an engine: the same displacements are weighted for the force constants that their forces
    give, and for another temperature if one is asked for.

    Args:
        harmonic: phonons whose thermal displacements the supercells have, such as those of another program.
        ensemble: displaced supercells with energies and forces, in any order of the atoms.
        temperature: K; None for the temperature of the displacements.
        drawn_at: K, temperature of the displacements; None estimates it, see `sampling_temperature`.
        tolerance: THz; largest change of a frequency that counts as none.
        min_effective: smallest effective fraction of the displacements.
        mesh: wave vectors of the harmonic part of the free energy, see `Phonons.mesh`.

    Returns:
        Renormalized phonons and the free energy, on the scale of the energies of the supercells. A `HarmonicWarning`
        tells if the displacements do not represent the result.

    Raises:
        RequestError: so few displacements are effective at the temperature that they determine nothing.
        MissingLabelError: supercells without energies or forces.
        GeometryError: they are not displaced supercells of these phonons.
        ConfigError: impossible numbers.
    """
    data = as_dataset(ensemble)
    if data.labels.energy is None or data.labels.forces is None:
        raise MissingLabelError("the displaced supercells have no energies or no forces, which the fit needs")
    moves, orders = displacements_of(harmonic.supercell, data.structures)
    n = len(moves)
    if drawn_at is None:
        drawn_at = sampling_temperature(harmonic, moves)
    temperature = drawn_at if temperature is None else temperature
    check_anharmonic_options(temperature, max(2 * (n // 2), 2 * BLOCKS), 1, tolerance, min_effective)
    check_numbers(drawn_at=drawn_at)
    forces = data.labels.forces.numpy().reshape(moves.shape)
    forces = np.stack([part[order] for part, order in zip(forces, orders, strict=True)])
    search = FixedPointSearch(harmonic, temperature, mesh, tolerance, min_effective)
    drawn_from = ThermalGaussian(full_constants(harmonic), np.asarray(harmonic.supercell.atomic_masses), drawn_at)
    equations = search.fit.normal_equations(moves, forces)
    sample = Sample(moves, data.labels.energy.numpy(), equations, drawn_from)
    first = search.first_gaussian()
    effective = effective_sample_size(sample.weights(first))
    if effective < max(_MIN_EFFECTIVE, 0.1 * n) or n < 2 * BLOCKS:
        raise RequestError(
            f"of {n} displaced supercells drawn at {drawn_at:.4g} K only {effective:.1f} are effective at "
            f"{temperature:.4g} K: their weights have collapsed. Expected at least "
            f"{max(_MIN_EFFECTIVE, 0.1 * n):.0f} of {max(n, 2 * BLOCKS)}; draw displacements at this temperature"
        )
    result = search.iterate(first, sample)
    gaussian, weights = result.gaussian, result.weights
    errors = search.jackknife(gaussian, sample, paired=False)
    change, effective = largest_change(first, gaussian), effective_sample_size(weights)
    if not result.settled:
        warnings.warn(
            f"the displaced supercells do not represent the self-consistent phonons at {temperature:.4g} K: "
            f"frequencies moved by {change:.2g} THz, and {effective:.0f} of {n} displacements are left effective. Draw "
            "new ones from the result",
            HarmonicWarning,
            stacklevel=2,
        )
    phonons = search.phonons(gaussian)
    lowest = float(gaussian.frequencies.min(initial=0))
    rounds = (AnharmonicRound(result.fits, effective, change, lowest),)
    energy = search.free_energy(gaussian, phonons, sample)
    return Anharmonic(temperature, phonons, harmonic, energy, errors[1], errors[0], n, rounds, result.settled)


def displacements_of(
    supercell: Structure, structures: tuple[Structure, ...]
) -> tuple[Float[Array, "m n 3"], list[Array]]:
    """Displacements of the atoms of supercells from their sites.

    Args:
        supercell: the supercell at rest.
        structures: displaced ones, in any order of their atoms; a displacement of all atoms together is removed.

    Returns:
        Displacements in the order of the supercell, Å; and for each structure the atom that is at each site.

    Raises:
        GeometryError: another cell, other atoms, or displacements that leave it open which site an atom belongs to.
    """
    from scipy.spatial import KDTree

    moves, orders = [], []
    inverse = np.linalg.inv(supercell.cell)
    sites = _wrapped(supercell.positions @ inverse)
    for structure in structures:
        if len(structure) != len(supercell) or not np.allclose(structure.cell, supercell.cell, atol=0.02):
            raise GeometryError(
                f'structure "{structure.id}": no displaced supercell of {supercell.id}, which has {len(supercell)} '
                f"atoms and the lattice vectors {np.round(supercell.cell, 3).tolist()}; got {len(structure)} atoms and "
                f"{np.round(structure.cell, 3).tolist()}"
            )
        fractional = structure.positions @ inverse
        order = KDTree(_wrapped(fractional), boxsize=1.0).query(sites)[1]
        if len(set(order)) < len(order) or not np.array_equal(structure.numbers[order], supercell.numbers):
            raise GeometryError(
                f'structure "{structure.id}": its atoms do not belong to the sites of the supercell, one to each: '
                "another crystal, another origin, or displacements of half the distance between atoms"
            )
        gaps = fractional[order] - supercell.positions @ inverse
        move = (gaps - np.rint(gaps)) @ supercell.cell
        moves.append(move - move.mean(axis=0))
        orders.append(order)
    return np.array(moves), orders


def _wrapped(fractional: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
    inside = fractional - np.floor(fractional)
    inside[inside >= 1.0] = 0.0
    return inside


def sampling_temperature(phonons: Phonons, moves: Float[Array, "m n 3"]) -> float:
    """The temperature at which displacements are most likely.

    Args:
        phonons: phonons whose Gaussian they were drawn from.
        moves: displacements, Å.

    Returns:
        K; its relative error is about one over the square root of the number of supercells times modes.
    """
    from scipy.optimize import minimize_scalar

    constants, masses = full_constants(phonons), np.asarray(phonons.supercell.atomic_masses)

    def unlikeliness(logarithm: float) -> float:
        return -float(ThermalGaussian(constants, masses, float(np.exp(logarithm))).log_density(moves).sum())

    best = minimize_scalar(unlikeliness, bounds=(0.0, np.log(_MAX_TEMPERATURE)), method="bounded")
    return float(np.exp(best.x))
