"""Symmetry numbers of molecules whose point groups are known."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

import oracles
from hesse.errors import ConfigError, RequestError
from hesse.harmonic.symmetry_number import symmetry_number
from hesse.structures import Structure, from_ase

KNOWN = {
    "H": 1, "HCl": 1, "N2": 2, "CO2": 2, "HCN": 1, "C2H2": 2, "H2O": 2, "NH3": 3, "CH4": 12, "C2H4": 4, "C2H6": 6,
    "C6H6": 12, "BF3": 6, "SiF4": 12, "CH3Cl": 3, "CH3OH": 1, "cyclobutane": 4, "C3H4_D2d": 4, "trans-butane": 2,
    "isobutane": 3, "H2O2": 2, "CH3CHO": 1, "C5H8": 4, "C60": 60,
}  # fmt: skip


@pytest.mark.parametrize(("name", "number"), KNOWN.items())
def test_molecules(name: str, number: int) -> None:
    atoms = molecule(name)
    rng = np.random.default_rng(len(name))
    turned = atoms.positions @ oracles.rotation(3).T + rng.normal(size=3)
    order = rng.permutation(len(atoms))
    moved = Structure(atoms.numbers[order], turned[order] + rng.normal(scale=2e-3, size=(len(atoms), 3)))
    assert symmetry_number(moved) == number


def test_sulfur_hexafluoride_has_the_rotations_of_a_cube() -> None:
    octahedron = np.array([[0, 0, 0], *np.eye(3), *-np.eye(3)]) * 1.56
    assert symmetry_number(Structure([16, 9, 9, 9, 9, 9, 9], octahedron)) == 24


def test_isotopes_are_different_atoms() -> None:
    water = from_ase(molecule("H2O"))
    assert symmetry_number(water, masses=[15.999, 2.014, 1.008]) == 1
    assert symmetry_number(water, masses=[15.999, 2.014, 2.014]) == 2


def test_distortions_beyond_the_tolerance_count() -> None:
    ammonia = molecule("NH3")
    ammonia.positions[1] *= 1.3
    assert symmetry_number(ammonia) == 1
    assert symmetry_number(ammonia, tolerance=0.5) == 3


@pytest.mark.parametrize("seed", range(20))
def test_the_rotations_form_a_group_at_any_distortion(seed: int) -> None:
    atoms = molecule("C6H6")
    noise = np.random.default_rng(seed).normal(scale=0.03, size=atoms.positions.shape)
    assert symmetry_number(Structure(atoms.numbers, atoms.positions + noise)) in (1, 2, 3, 4, 6, 12)


def test_replies() -> None:
    with pytest.raises(RequestError, match="periodic"):
        symmetry_number(oracles.crystal(0))
    with pytest.raises(ConfigError, match="tolerance"):
        symmetry_number(molecule("H2O"), tolerance=0.0)


RELAXED = (
    "C2H6", "isobutane", "CH3OCH3", "C3H8", "2-butyne", "C6H6", "trans-butane", "C3H9N", "CH3COCH3", "H2O2",
    "cyclobutane", "NH3",
)  # fmt: skip


@pytest.mark.slow
def test_relaxed_molecules_keep_their_number() -> None:
    """From rattled starts, to the default limit of forces: the tolerance is far from both sides."""
    pytest.importorskip("tblite.interface", reason="tblite is not installed")
    import hesse

    rng = np.random.default_rng(0)
    for start in (m for m in hesse.g2_molecules() if m.id in RELAXED):
        for _ in range(3):
            rattled = start.with_positions(start.positions + rng.normal(scale=0.08, size=start.positions.shape))
            assert symmetry_number(hesse.minimize(rattled, "gfn2").structure) == symmetry_number(start), start.id
