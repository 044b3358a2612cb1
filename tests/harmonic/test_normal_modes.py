"""Normal modes against textbook formulas and ASE; thermal displacements against equipartition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule as ase_molecule
from ase.vibrations import VibrationsData
from hypothesis import given
from hypothesis import strategies as st

import oracles
from hesse.errors import ConfigError, LabelShapeError, LabelValueError, RequestError, UnknownOptionError
from hesse.harmonic.normal_modes import normal_modes, thermal_displacements
from hesse.structures import Structure, from_ase, to_ase
from hesse.units import BOLTZMANN, HBAR, INVERSE_CM

# CODATA 2014, written out: sqrt(1 eV/Å²/u) as a wavenumber.
WAVENUMBER = np.sqrt(1.6021766208e-19 * 1e20 / 1.660539040e-27) / (2 * np.pi * 299792458 * 100)


def spring_hessian(structure: Structure, constants: dict[tuple[int, int], float]) -> np.ndarray:
    """Hessian of springs at rest between pairs of atoms."""
    n = len(structure)
    hessian = np.zeros((n, 3, n, 3))
    for (i, j), k in constants.items():
        unit = structure.positions[j] - structure.positions[i]
        unit = unit / np.linalg.norm(unit)
        block = k * np.outer(unit, unit)
        hessian[i, :, i] += block
        hessian[j, :, j] += block
        hessian[i, :, j] -= block
        hessian[j, :, i] -= block
    return hessian


def test_a_diatomic_has_one_mode_of_the_reduced_mass():
    pair = Structure([6, 8], [[0.1, 0.2, 0.3], [0.8, 0.9, 1.1]])
    modes = normal_modes(pair, spring_hessian(pair, {(0, 1): 118.0}), masses=[12.0, 15.995])
    reduced = 12.0 * 15.995 / (12.0 + 15.995)
    assert modes.n_rigid == 5
    assert modes.frequencies == pytest.approx([np.sqrt(118.0 / reduced) * WAVENUMBER], rel=1e-6)


def test_a_linear_triatomic_has_four_modes_with_known_stretches():
    line = oracles.linear(3)
    m_o, m_c, k = 15.999, 12.011, 90.0
    modes = normal_modes(line, spring_hessian(line, {(0, 1): k, (1, 2): k}), masses=[m_o, m_c, m_o])
    symmetric, antisymmetric = np.sqrt(k / m_o), np.sqrt(k / m_o + 2 * k / m_c)
    assert modes.n_rigid == 5
    assert modes.frequencies == pytest.approx(np.array([0, 0, symmetric, antisymmetric]) * WAVENUMBER, abs=1e-3)


def test_a_bent_triatomic_agrees_with_wilsons_gf_method():
    water = Structure([8, 1, 1], [[0, 0, 0.1193], [0, 0.7632, -0.4770], [0, -0.7632, -0.4770]])
    masses = np.array([15.999, 1.008, 1.008])
    force = {(0, 1): 52.0, (0, 2): 48.0, (1, 2): 9.0}
    rows = []
    for i, j in force:
        unit = (water.positions[j] - water.positions[i]) / np.linalg.norm(water.positions[j] - water.positions[i])
        row = np.zeros((3, 3))
        row[j], row[i] = unit, -unit
        rows.append(row.ravel())
    b = np.array(rows)
    g = b @ np.diag(np.repeat(1 / masses, 3)) @ b.T
    expected = np.sort(np.sqrt(np.linalg.eigvals(g @ np.diag(list(force.values()))).real)) * WAVENUMBER
    modes = normal_modes(water, spring_hessian(water, force), masses=masses)
    assert modes.n_rigid == 6
    assert modes.frequencies == pytest.approx(expected, rel=1e-6)
    assert modes.eigenvalues == pytest.approx((expected / WAVENUMBER) ** 2, rel=1e-6)


def test_modes_agree_with_ase_where_rigid_motions_decouple():
    structure = oracles.molecule(5, 3)
    pairs = {(i, j): 20.0 + 3 * i + j for i in range(5) for j in range(i)}
    hessian = spring_hessian(structure, pairs)
    reference = VibrationsData(to_ase(structure), hessian).get_frequencies()
    modes = normal_modes(structure, hessian)
    assert modes.frequencies == pytest.approx(np.sort(reference.real)[-9:], rel=1e-6)


@pytest.mark.parametrize(
    ("structure", "rigid"),
    [
        pytest.param(oracles.atom(8), 3, id="atom"),
        pytest.param(oracles.linear(4), 5, id="linear"),
        pytest.param(oracles.molecule(2, 1), 5, id="diatomic"),
        pytest.param(oracles.molecule(7, 1), 6, id="bent"),
        pytest.param(oracles.crystal(1), 3, id="crystal"),
    ],
)
def test_rigid_motions_are_counted_and_absent_from_the_modes(structure, rigid):
    n = len(structure)
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(3 * n, 3 * n))
    modes = normal_modes(structure, (noise + noise.T).reshape(n, 3, n, 3))  # not even invariant
    assert modes.n_rigid == rigid
    assert len(modes) == 3 * n - rigid
    flat = modes.vectors.reshape(len(modes), 3 * n)
    assert flat @ flat.T == pytest.approx(np.eye(len(modes)), abs=1e-10)
    weights = np.sqrt(modes.masses)[:, None]
    centered = structure.positions - modes.masses @ structure.positions / modes.masses.sum()
    for axis in np.eye(3):
        assert flat @ (np.ones((n, 3)) * axis * weights).ravel() == pytest.approx(0, abs=1e-9)
        if not structure.periodic:
            assert flat @ (np.cross(axis, centered) * weights).ravel() == pytest.approx(0, abs=1e-9)


def test_a_nearly_linear_molecule_counts_as_linear():
    line = oracles.linear(3)
    bent = line.with_positions(line.positions + np.array([[0, 0, 0], [0, 0, 1e-3], [0, 0, 0]]))
    assert normal_modes(bent, np.zeros((3, 3, 3, 3))).n_rigid == 5


def test_imaginary_modes_are_negative():
    pair = Structure([1, 1], [[0, 0, 0], [0.9, 0, 0]])
    modes = normal_modes(pair, spring_hessian(pair, {(0, 1): -10.0}))
    assert modes.n_imaginary == 1
    assert modes.frequencies[0] == pytest.approx(-np.sqrt(10.0 / 0.504) * WAVENUMBER, rel=1e-4)
    assert modes.eigenvalues[0] < 0


@given(seed=st.integers(0, 10_000), n=st.integers(2, 6))
def test_frequencies_do_not_depend_on_orientation_or_place(seed, n):
    structure = oracles.molecule(n, seed)
    hessian = oracles.Morse().exact(structure).hessian
    rotation = oracles.rotation(seed)
    turned = structure.with_positions(structure.positions @ rotation.T + np.array([3.0, -2.0, 1.0]))
    rotated = np.einsum("ab,ibjc,dc->iajd", rotation, hessian, rotation)
    before, after = normal_modes(structure, hessian).frequencies, normal_modes(turned, rotated).frequencies
    assert after == pytest.approx(before, rel=1e-6, abs=1e-2)


def test_each_mode_holds_half_kt():
    """With n samples the mean of ½ω²q² has a standard error of ½kT·√(2/n): 1.0 % for n = 20 000. Twenty standard
    errors in all are checked to 4.5 of their size (a false alarm in one of 10 000 runs); an error of 5 % in any mode's
    width would show."""
    structure = oracles.molecule(6, 5)
    pairs = {(i, j): 25.0 for i in range(6) for j in range(i)}
    hessian = spring_hessian(structure, pairs)
    modes = normal_modes(structure, hessian)
    count, temperature = 20_000, 450.0
    moved = thermal_displacements(modes, temperature, np.random.default_rng(0), count=count, min_frequency=1.0)
    coordinates = np.einsum("kax,cax->ck", modes.vectors, moved * np.sqrt(modes.masses)[:, None])
    energies = 0.5 * modes.eigenvalues * coordinates**2
    expected = 0.5 * BOLTZMANN * temperature
    assert energies.mean(0) == pytest.approx(np.full(len(modes), expected), rel=4.5 * np.sqrt(2 / count))
    # The same energy from the Hessian itself: the modes span the internal space.
    total = 0.5 * np.einsum("cia,iajb,cjb->c", moved, hessian, moved)
    assert total == pytest.approx(energies.sum(1), rel=1e-9)
    off = np.corrcoef(coordinates.T) - np.eye(len(modes))
    assert np.abs(off).max() < 5 / np.sqrt(count)


@pytest.mark.parametrize("name", ["H2O", "CO2", "CH4", "C6H6", "cyclobutane"])
@pytest.mark.parametrize("seed", range(3))
def test_rounding_errors_of_a_hessian_change_neither_modes_nor_samples(name, seed):
    """Noise of 1e-9 in the Hessian (relative to its largest eigenvalue) changes eigenvectors, including those of
    degenerate modes, and thermal displacements in proportion only."""
    structure = from_ase(ase_molecule(name))
    n = len(structure)
    bonds = {(i, j): 60.0 / structure_distance(structure, i, j) ** 6 for i in range(n) for j in range(i)}
    # The diagonal keeps bending modes away from zero, where "freeze" jumps.
    hessian = spring_hessian(structure, bonds) + 0.5 * np.eye(3 * n).reshape(n, 3, n, 3)
    noise = np.random.default_rng(seed).normal(size=(3 * n, 3 * n))
    noise = (noise + noise.T).reshape(n, 3, n, 3)
    size = np.linalg.norm(hessian.reshape(3 * n, 3 * n), 2) / np.linalg.norm(noise.reshape(3 * n, 3 * n), 2)
    before, after = normal_modes(structure, hessian), normal_modes(structure, hessian + 1e-9 * size * noise)
    weighted_norm = 1e-9 * np.linalg.norm(hessian.reshape(3 * n, 3 * n), 2) / before.masses.min()
    gaps = np.diff(before.eigenvalues)
    smallest_gap = gaps[gaps > 1e-6 * before.eigenvalues[-1]].min()
    np.testing.assert_allclose(after.vectors, before.vectors, atol=20 * weighted_norm / smallest_gap)
    for imaginary in ("floor", "freeze"):
        samples = [
            thermal_displacements(modes, 300.0, np.random.default_rng(7), count=50, imaginary=imaginary)
            for modes in (before, after)
        ]
        smallest = (150.0 * INVERSE_CM / HBAR) ** 2
        change, displacement = np.abs(samples[1] - samples[0]).max(), np.abs(samples[0]).max()
        assert change < 20 * displacement * weighted_norm / smallest


def structure_distance(structure: Structure, i: int, j: int) -> float:
    return float(np.linalg.norm(structure.positions[i] - structure.positions[j]))


def test_samples_depend_neither_on_signs_nor_on_the_basis_of_degenerate_modes():
    structure = from_ase(ase_molecule("CH4"))
    hessian = spring_hessian(
        structure, {(0, j): 30.0 for j in range(1, 5)} | {(i, j): 3.0 for i in range(1, 5) for j in range(1, i)}
    )
    modes = normal_modes(structure, hessian)
    degenerate = np.flatnonzero(np.abs(np.diff(modes.frequencies)) < 1e-3)
    assert len(degenerate) == 5  # a pair and two triples
    other = modes.vectors.copy()
    for k in degenerate:
        other[k], other[k + 1] = (other[k] - other[k + 1]) / np.sqrt(2), -(other[k] + other[k + 1]) / np.sqrt(2)
    turned = replace(modes, vectors=other)
    first, second = (thermal_displacements(m, 300.0, np.random.default_rng(1), count=5) for m in (modes, turned))
    np.testing.assert_allclose(second, first, atol=1e-10)


def test_soft_modes_are_sampled_at_the_minimum_frequency():
    pair = Structure([6, 6], [[0, 0, 0], [1.5, 0, 0]])
    soft = normal_modes(pair, spring_hessian(pair, {(0, 1): 1e-4}))
    hard = normal_modes(pair, spring_hessian(pair, {(0, 1): 6.0 * (200.0 / WAVENUMBER) ** 2}), masses=[12.0, 12.0])
    assert hard.frequencies == pytest.approx([200.0], rel=1e-6)
    floored = thermal_displacements(soft, 300.0, np.random.default_rng(3), min_frequency=200.0)
    exact = thermal_displacements(hard, 300.0, np.random.default_rng(3), min_frequency=200.0)
    assert np.abs(floored) == pytest.approx(np.abs(exact), rel=1e-3)


def test_imaginary_modes_are_floored_or_frozen():
    pair = Structure([6, 6], [[0, 0, 0], [1.5, 0, 0]])
    modes = normal_modes(pair, spring_hessian(pair, {(0, 1): -6.0}))
    real = normal_modes(pair, spring_hessian(pair, {(0, 1): 6.0}))
    rng = np.random.default_rng
    assert np.all(thermal_displacements(modes, 300.0, rng(1), imaginary="freeze") == 0.0)
    moved, twin = (thermal_displacements(m, 300.0, rng(1)) for m in (modes, real))
    assert np.abs(moved) == pytest.approx(np.abs(twin), rel=1e-9)


def test_modes_orthogonal_to_a_path_are_those_of_the_projected_matrix():
    """Against the formula as published: eigenvalues of (1 − P) K (1 − P) with P built from all excluded directions."""
    structure = oracles.molecule(5, 3)
    n, exact = 5, oracles.Morse().exact(structure)
    modes = normal_modes(structure, exact.hessian, gradient=7.0 * exact.gradient)
    roots = np.repeat(np.sqrt(modes.masses), 3)
    centered = structure.positions - modes.masses @ structure.positions / modes.masses.sum()
    rigid = [np.tile(axis, (n, 1)) for axis in np.eye(3)] + [np.cross(axis, centered) for axis in np.eye(3)]
    excluded = np.array([roots * motion.ravel() for motion in rigid] + [exact.gradient.ravel() / roots])
    basis = np.linalg.qr(excluded.T)[0]
    keep = np.eye(3 * n) - basis @ basis.T
    weighted = exact.hessian.reshape(3 * n, 3 * n) / np.outer(roots, roots)
    values = np.linalg.eigvalsh(keep @ weighted @ keep)
    expected = sorted(values, key=abs)[7:]  # seven are zero by projection
    assert modes.n_rigid == 6
    assert len(modes) == 3 * n - 7
    assert np.sort(modes.eigenvalues) == pytest.approx(np.sort(expected), rel=1e-8)
    along = (exact.gradient.ravel() / roots) / np.linalg.norm(exact.gradient.ravel() / roots)
    assert modes.vectors.reshape(-1, 3 * n) @ along == pytest.approx(0.0, abs=1e-9)


def test_projecting_out_a_mode_leaves_the_others():
    """A gradient along one mode removes this mode only."""
    line = Structure([6, 6], [[0, 0, 0], [1.5, 0, 0]])
    pull = np.array([[1.0, 0, 0], [-1.0, 0, 0]])
    assert len(normal_modes(line, spring_hessian(line, {(0, 1): 5.0}), gradient=pull)) == 0
    water = Structure([8, 1, 1], [[0, 0, 0.1193], [0, 0.7632, -0.4770], [0, -0.7632, -0.4770]])
    plain = normal_modes(water, spring_hessian(water, {(0, 1): 52.0, (0, 2): 52.0, (1, 2): 9.0}))
    for k in range(3):  # the gradient along a mode takes that mode away and no other
        gradient = plain.vectors[k] * np.sqrt(plain.masses)[:, None]
        left = normal_modes(water, spring_hessian(water, {(0, 1): 52.0, (0, 2): 52.0, (1, 2): 9.0}), gradient=gradient)
        assert left.frequencies == pytest.approx(np.delete(plain.frequencies, k), rel=1e-9)


def test_invalid_input_raises():
    pair = Structure([1, 1], [[0, 0, 0], [0.9, 0, 0]], id="pair")
    with pytest.raises(LabelShapeError, match=r'"pair".*\(6, 6\).*\(2, 3, 2, 3\)'):
        normal_modes(pair, np.zeros((6, 6)))
    with pytest.raises(LabelValueError, match="pair"):
        normal_modes(pair, np.full((2, 3, 2, 3), np.nan))
    with pytest.raises(RequestError, match="positive masses"):
        normal_modes(pair, np.zeros((2, 3, 2, 3)), masses=[1.0, -1.0])
    with pytest.raises(RequestError, match="no path direction"):
        normal_modes(pair, np.zeros((2, 3, 2, 3)), gradient=np.zeros((2, 3)))
    with pytest.raises(LabelShapeError, match="gradient"):
        normal_modes(pair, np.zeros((2, 3, 2, 3)), gradient=np.zeros(6))
    modes = normal_modes(pair, np.zeros((2, 3, 2, 3)))
    for temperature in (0.0, -1.0, np.nan):
        with pytest.raises(ConfigError, match="temperature"):
            thermal_displacements(modes, temperature, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="minimum frequency"):
        thermal_displacements(modes, 300.0, np.random.default_rng(0), min_frequency=0.0)
    with pytest.raises(UnknownOptionError, match="freeze"):
        thermal_displacements(modes, 300.0, np.random.default_rng(0), imaginary="freez")
