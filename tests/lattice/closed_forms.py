"""Frequencies of crystals of pair potentials in closed form: Born and von Kármán's sums over neighbors."""

from __future__ import annotations

import numpy as np
from ase.build import bulk
from numpy.typing import NDArray

import oracles
from hesse.structures import Structure, from_ase

THZ = 15.633302
"""√(eV/Å²/u) / 2π in THz, as in phonopy's manual."""


def argon_like() -> oracles.LennardJones:
    """A soft pair potential whose cutoff lies between shells of neighbors, within half of small supercells."""
    return oracles.LennardJones(epsilon=0.15, sigma=2.55, cutoff=4.5)


def fcc() -> Structure:
    return from_ase(bulk("Al", "fcc", a=4.05), id="fcc")


def rock_salt() -> Structure:
    return from_ase(bulk("NaCl", "rocksalt", a=5.5), id="rock salt")


def exact_frequencies(crystal: Structure, oracle: oracles.PairPotential, q: NDArray[np.float64]) -> NDArray[np.float64]:
    """THz, of one primitive cell."""
    n, masses = len(crystal), crystal.atomic_masses
    matrix = np.zeros((n, 3, n, 3), dtype=complex)
    for i, j, vector in oracles.image_pairs(crystal, oracle.cutoff):
        r = float(np.linalg.norm(vector))
        along = np.outer(vector, vector) / r**2
        _, first, second = oracle.phi_exact(r)
        block = second * along + first / r * (np.eye(3) - along)
        matrix[i, :, i] += block / masses[i]
        phase = np.exp(2j * np.pi * q @ np.linalg.solve(crystal.cell.T, vector))
        matrix[i, :, j] -= block * phase / np.sqrt(masses[i] * masses[j])
    squares = np.linalg.eigvalsh(matrix.reshape(3 * n, 3 * n))
    return np.asarray(THZ * np.sign(squares) * np.sqrt(np.abs(squares)))
