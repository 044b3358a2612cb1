"""Atoms and potentials for the tests of MD engines: a small network for agreement with the ASE calculator, and a
potential in closed form whose dynamics is stable."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk, molecule

from hesse import Ani, AniConfig, HesseCalculator, HesseNet, HesseNetConfig, Hipnn, HipnnConfig, Potential

ELEMENTS = (1, 6, 8, 14)
EV_IN_KCAL = units.mol / units.kcal


def network(kind: str = "hessenet", dtype: torch.dtype = torch.float64) -> Potential:
    """A network with random weights; its numbers mean nothing, but all of its derivatives are used."""
    torch.manual_seed(3)
    built: Potential
    if kind == "hipnn":
        built = Hipnn(HipnnConfig(features=8, sensitivities=6, blocks=2, cutoff=5.0, longest=4.5), ELEMENTS)
    elif kind == "ani":
        built = Ani(AniConfig(hidden=(16, 8)), ELEMENTS)
    else:
        built = HesseNet(HesseNetConfig(features=8, channels=4, radial=4, cutoff=4.5), ELEMENTS)
    return built.to(dtype).eval()


def ethanol() -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=1)
    return atoms


def silicon(*, cubic: bool = True) -> Atoms:
    """The primitive cell of two atoms is smaller than every cutoff here."""
    atoms = bulk("Si", cubic=cubic)
    atoms.rattle(0.05, seed=1)
    return atoms


def tetrahedron() -> Atoms:
    """Four atoms near the minimum of `oracles.Morse`."""
    corners = np.array([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])
    atoms = Atoms("CO2H", positions=1.12 / np.sqrt(8) * corners)
    atoms.rattle(0.01, seed=2)
    return atoms


def with_velocities(atoms: Atoms, temperature: float = 300.0) -> Atoms:
    widths = np.sqrt(units.kB * temperature / atoms.get_masses())[:, None]
    atoms.set_velocities(widths * np.random.default_rng(5).normal(size=(len(atoms), 3)))
    return atoms


def by_ase(potential: Potential, atoms: Atoms, **options: Any) -> tuple[float, np.ndarray, np.ndarray | None]:
    """Energy (eV), forces (eV/Å) and stress (eV/Å³, `[3, 3]`) by the ASE calculator."""
    copy = atoms.copy()
    copy.calc = HesseCalculator(potential, **options)
    stress = copy.get_stress(voigt=False) if copy.pbc.all() else None
    return copy.get_potential_energy(), copy.get_forces(), stress


def relative_error(value: Any, expected: Any) -> float:
    """Largest difference in units of the largest expected value."""
    one, other = np.asarray(value, dtype=float), np.asarray(expected, dtype=float)
    return float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-12))
