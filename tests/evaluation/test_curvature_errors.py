"""Errors of eigenvalues, modes, frequencies and thermochemistry, against closed forms and loops over structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from hesse.datasets import Dataset
from hesse.evaluation.averages import MetricRow
from hesse.evaluation.curvature_errors import (
    BANDS,
    compare_hessians,
    curvature_metrics,
    mode_overlap,
    softening_sums,
)
from hesse.harmonic.normal_modes import normal_modes
from hesse.structures import Properties, Structure
from hesse.units import BOLTZMANN, HBAR, INVERSE_CM
from oracles import Morse, atom, crystal, labeled, linear, molecule, molecules


def hessian_of_frequencies(structure: Structure, frequencies: Sequence[float]) -> np.ndarray:
    """A Hessian with these frequencies (cm⁻¹), along arbitrary modes."""
    rows = normal_modes(structure, labeled(Morse(), [structure], hessian=True).labels.hessian_of(0).numpy()).vectors
    return hessian_of_modes(structure, rows.reshape(len(rows), -1), frequencies)


def hessian_of_modes(structure: Structure, rows: np.ndarray, frequencies: Sequence[float]) -> np.ndarray:
    omega = np.array(frequencies) * INVERSE_CM / HBAR
    weights = np.repeat(np.sqrt(structure.atomic_masses), 3)
    matrix = rows.T @ np.diag(np.sign(omega) * omega**2) @ rows
    return (matrix * np.outer(weights, weights)).reshape((len(structure), 3) * 2)


def data_of(structures: Sequence[Structure], hessians: Sequence[np.ndarray], **labels: object) -> Dataset:
    pairs = [
        (s, Properties.single(len(s), energy=0.0, hessian=h, structure_id=s.id, **labels))
        for s, h in zip(structures, hessians, strict=True)
    ]
    return Dataset.from_pairs(pairs, level="closed form")


def values_of(rows: Sequence[MetricRow], tag: str = "") -> dict[tuple[str, str], MetricRow]:
    return {(row.property, row.metric): row for row in rows if row.tag == tag}


def test_a_scaled_hessian_scales_every_number() -> None:
    """The prediction is 1.21 times the reference: eigenvalues differ by 21 %, frequencies by 10 %, modes not at all."""
    structures = molecules([3, 4, 5])
    spectra = [[150.0, 400.0, 2500.0], [100, 350, 700, 1100, 1900, 3000], np.linspace(50, 3500, 9)]
    data = data_of(structures, [hessian_of_frequencies(s, nu) for s, nu in zip(structures, spectra, strict=True)])
    predictions = data.labels.replace(hessian=1.21 * data.labels.hessian)
    rows = values_of(curvature_metrics(data, predictions))
    every = np.concatenate(spectra)
    eigenvalues = (every * INVERSE_CM / HBAR) ** 2
    assert rows["eigenvalues", "mae"].value == pytest.approx(0.21 * eigenvalues.mean())
    assert rows["eigenvalues", "rmse"].value == pytest.approx(0.21 * np.sqrt((eigenvalues**2).mean()))
    assert rows["eigenvalues", "mae"].n == len(every)
    assert rows["projected_curvature", "slope"].value == pytest.approx(1.21)
    for name, low, high in BANDS[1:]:
        inside = every[(every >= low) & (every < high)]
        row = rows[f"frequencies_{name}", "mae"]
        assert (row.value, row.n) == (pytest.approx(0.1 * inside.mean()), len(inside))
        assert rows[f"projected_curvature_{name}", "slope"].value == pytest.approx(1.21)
    assert ("frequencies_imaginary", "mae") not in rows
    assert rows["frequencies", "bias"].value == pytest.approx(0.1 * every.mean())
    for name in ("mode_1", "mode_2"):
        assert rows[name, "abs_cos"].value == pytest.approx(1.0)
    assert rows["negative_modes", "fraction_right"].value == 1.0
    energies = [0.1 * 0.5 * INVERSE_CM * np.sum(nu) for nu in spectra]
    assert rows["zpe", "mae"].value == pytest.approx(np.mean(energies))
    assert rows["zpe", "mae"].n == 3
    assert rows["zpe", "mae"].ci_low < np.mean(energies) < rows["zpe", "mae"].ci_high


def test_eigenvalues_equal_those_of_a_projected_matrix() -> None:
    """Random symmetric matrices, projected by hand: `P M^-1/2 H M^-1/2 P` without its six (five) zero eigenvalues."""
    rng = np.random.default_rng(3)
    structures = [*molecules([3, 5, 6]), linear(3)]
    pairs = []
    for s in structures:
        first, second = (rng.normal(size=(3 * len(s), 3 * len(s))) for _ in range(2))
        pairs.append([(m + m.T).reshape((len(s), 3) * 2) for m in (first, second)])
    data = data_of(structures, [pair[0] for pair in pairs])
    predicted = data_of(structures, [pair[1] for pair in pairs]).labels
    errors, right = [], []
    for s, pair in zip(structures, pairs, strict=True):
        masses = s.atomic_masses
        r = s.positions - masses @ s.positions / masses.sum()
        motions = [np.tile(e, (len(s), 1)) for e in np.eye(3)] + [np.cross(e, r) for e in np.eye(3)]
        weighted = np.array([(np.sqrt(masses)[:, None] * m).ravel() for m in motions])
        basis = np.linalg.svd(weighted, full_matrices=False)
        rigid = basis[2][basis[1] > 1e-8]
        p = np.eye(3 * len(s)) - rigid.T @ rigid
        w = np.repeat(1 / np.sqrt(masses), 3)
        spectra = []
        for hessian in pair:
            matrix = p @ (hessian.reshape(p.shape) * np.outer(w, w)) @ p
            eigenvalues = np.linalg.eigvalsh(matrix)
            spectra.append(np.sort(np.delete(eigenvalues, np.argsort(np.abs(eigenvalues))[: len(rigid)])))
        errors.append(np.abs(spectra[1] - spectra[0]))
        right.append((spectra[0] < 0).sum() == (spectra[1] < 0).sum())
    rows = values_of(curvature_metrics(data, predicted))
    assert rows["eigenvalues", "mae"].value == pytest.approx(np.concatenate(errors).mean(), rel=1e-7)
    assert rows["negative_modes", "fraction_right"].value == np.mean(right)


def test_the_projected_curvature_is_that_along_the_modes_of_the_reference() -> None:
    structure = molecule(4, 8)
    rng = np.random.default_rng(0)
    first, second = (m + m.T for m in rng.normal(size=(2, 12, 12)))
    data = data_of([structure], [first.reshape(4, 3, 4, 3)])
    (compared,) = compare_hessians(data, data_of([structure], [second.reshape(4, 3, 4, 3)]).labels)
    modes = normal_modes(structure, first.reshape(4, 3, 4, 3))
    expected = []
    for v in modes.vectors:
        x = (v / np.sqrt(structure.atomic_masses)[:, None]).ravel()
        expected.append(x @ second @ x)
    assert compared.projected == pytest.approx(np.array(expected))
    slope = np.polyfit(modes.eigenvalues, expected, 1)[0]  # with an intercept: another number
    total, weight, n = softening_sums(compared)
    assert n == 6
    assert total / weight == pytest.approx(np.linalg.lstsq(modes.eigenvalues[:, None], np.array(expected))[0][0])
    assert total / weight != pytest.approx(slope)


def test_exchanged_modes_have_no_overlap_one_by_one_but_span_the_same_space() -> None:
    structure = molecule(4, 2)
    spectrum = [100.0, 200.0, 500.0, 900.0, 1500.0, 3000.0]
    data = data_of([structure], [hessian_of_frequencies(structure, spectrum)])
    rows = normal_modes(structure, data.labels.hessian_of(0).numpy()).vectors.reshape(6, -1)
    swapped = hessian_of_modes(structure, rows[[1, 0, 2, 3, 4, 5]], spectrum)
    numbers = values_of(curvature_metrics(data, data_of([structure], [swapped]).labels))
    assert numbers["mode_1", "abs_cos"].value == pytest.approx(0.0, abs=1e-9)
    assert numbers["mode_2", "abs_cos"].value == pytest.approx(0.0, abs=1e-9)
    assert numbers["modes_1_2", "overlap"].value == pytest.approx(1.0)
    angle = 0.3
    turned = rows.copy()
    turned[0] = np.cos(angle) * rows[0] + np.sin(angle) * rows[5]
    turned[5] = np.cos(angle) * rows[5] - np.sin(angle) * rows[0]
    numbers = values_of(
        curvature_metrics(data, data_of([structure], [hessian_of_modes(structure, turned, spectrum)]).labels)
    )
    assert numbers["mode_1", "abs_cos"].value == pytest.approx(np.cos(angle))
    assert numbers["modes_1_2", "overlap"].value == pytest.approx(0.5 * (np.cos(angle) ** 2 + 1))


def test_degenerate_modes_have_no_direction_of_their_own() -> None:
    structure = molecule(3, 4)
    reference = normal_modes(structure, hessian_of_frequencies(structure, [500.0, 500.0, 2000.0]))
    assert mode_overlap(reference, reference, 0) is None
    assert mode_overlap(reference, reference, 1) is None
    assert mode_overlap(reference, reference, 2) == pytest.approx(1.0)
    assert mode_overlap(reference, reference, 3) is None


def test_wrong_numbers_of_negative_modes() -> None:
    structures = [replace(s, tag="ts" if k else "minimum") for k, s in enumerate(molecules([4, 4, 4]))]
    minimum, saddle = [80.0, 300, 500, 900, 1500, 3000], [-700.0, 300, 500, 900, 1500, 3000]
    spectra = [minimum, saddle, saddle]
    wrong = [minimum, saddle, minimum]
    data = data_of(structures, [hessian_of_frequencies(s, nu) for s, nu in zip(structures, spectra, strict=True)])
    predicted = data_of(structures, [hessian_of_frequencies(s, nu) for s, nu in zip(structures, wrong, strict=True)])
    rows = curvature_metrics(data, predicted.labels)
    assert values_of(rows)["negative_modes", "fraction_right"].value == pytest.approx(2 / 3)
    assert values_of(rows, "ts")["negative_modes", "fraction_right"].value == 0.5
    assert values_of(rows, "minimum")["negative_modes", "fraction_right"].n == 1
    assert values_of(rows)["frequencies_imaginary", "mae"].value == pytest.approx(780.0 / 2)
    assert {row.tag for row in curvature_metrics(data, predicted.labels, by_tag=False)} == {""}


def test_frequencies_are_those_of_stationary_points() -> None:
    structures = molecules([4, 4])
    spectra = [[80.0, 300, 500, 900, 1500, 3000], [90.0, 310, 510, 910, 1510, 3010]]
    hessians = [hessian_of_frequencies(s, nu) for s, nu in zip(structures, spectra, strict=True)]
    data = data_of(structures, hessians)
    predictions = data.labels.replace(hessian=1.21 * data.labels.hessian)
    force = torch.zeros(8, 3, dtype=torch.float64)
    force[5, 1] = 0.2
    moved = replace(data, labels=data.labels.replace(forces=force))
    rows = values_of(curvature_metrics(moved, predictions))
    assert rows["eigenvalues", "mae"].n == 12
    assert rows["frequencies", "mae"].n == 6
    assert rows["frequencies", "mae"].value == pytest.approx(0.1 * np.mean(spectra[0]))
    force[0, 0] = 0.2
    moved = replace(data, labels=data.labels.replace(forces=force))
    assert ("zpe", "mae") not in values_of(curvature_metrics(moved, predictions))


def test_gibbs_energies_are_those_of_harmonic_oscillators_for_stiff_modes() -> None:
    structure, kt = molecule(3, 1), BOLTZMANN * 298.15
    spectrum = np.array([1500.0, 2000.0, 3500.0])
    data = data_of([structure], [hessian_of_frequencies(structure, spectrum)])
    predicted = data_of([structure], [hessian_of_frequencies(structure, 1.05 * spectrum)]).labels
    first, second = (INVERSE_CM * nu for nu in (spectrum, 1.05 * spectrum))
    free = [float((0.5 * e + kt * np.log1p(-np.exp(-e / kt))).sum()) for e in (first, second)]
    row = values_of(curvature_metrics(data, predicted))["gibbs_correction", "bias"]
    # Grimme's rotor has a weight of (100/1500)⁴ = 2e-5.
    assert (row.value, row.unit) == (pytest.approx(free[1] - free[0], abs=2e-5), "eV")


def test_noise_of_the_labels_is_propagated() -> None:
    """A diatomic molecule with displacements c and eigenvalue λ: independent errors of the elements of its Hessian have
    the variance σ² (2 |c|⁴ − Σ c⁴), and an error in proportion to the Hessian (four elements of 36 are not zero, so
    that their root mean square is a third of each) gives (3 σ λ / k)²."""
    structure = Structure([8, 6], [[0, 0, 0], [0, 0, 1.1]], id="CO")
    m1, m2 = structure.atomic_masses
    mu = m1 * m2 / (m1 + m2)
    block = np.zeros((2, 3, 2, 3))
    block[:, 2, :, 2] = 120.0 * np.array([[1, -1], [-1, 1]])
    data = data_of([structure], [block], hessian_error=0.05)
    rows = values_of(curvature_metrics(data, data.labels))
    c = np.sqrt(mu) * np.array([1 / m1, -1 / m2])
    sigma = 0.05 * np.sqrt(2 * (c @ c) ** 2 - (c**4).sum() + (3.0 / mu) ** 2)
    assert rows["eigenvalues", "noise_floor"].value == pytest.approx(sigma)
    nu = np.sqrt(120.0 / mu) * HBAR / INVERSE_CM
    slope = 0.5 * nu / (120.0 / mu)
    assert rows["frequencies_above_2000", "noise_floor"].value == pytest.approx(slope * sigma, rel=1e-3)
    assert rows["zpe", "noise_floor"].value == pytest.approx(0.5 * INVERSE_CM * slope * sigma, rel=1e-3)
    assert rows["gibbs_correction", "noise_floor"].value == pytest.approx(0.5 * INVERSE_CM * slope * sigma, rel=1e-2)


def test_atoms_and_structures_without_hessians_are_left_out() -> None:
    structures = [atom(8), molecule(3, 0)]
    data = labeled(Morse(), structures, hessian=True)
    assert {row.n for row in curvature_metrics(data, data.labels) if row.property == "eigenvalues"} == {3}
    without = data.labels.replace(hessian=None)
    assert curvature_metrics(data, without) == []
    assert curvature_metrics(replace(data, labels=without), data.labels) == []


def test_crystals_have_three_modes_less_than_coordinates() -> None:
    structure = crystal(0, atoms=3)
    data = labeled(Morse(cutoff=3.0), [structure], hessian=True, forces=False)
    rows = values_of(curvature_metrics(data, data.labels.replace(hessian=1.21 * data.labels.hessian)))
    modes = normal_modes(structure, data.labels.hessian_of(0).numpy())
    assert rows["eigenvalues", "mae"].n == 6
    assert rows["eigenvalues", "mae"].value == pytest.approx(0.21 * np.abs(modes.eigenvalues).mean())
    assert rows["zpe", "bias"].value == pytest.approx(0.1 * modes.zero_point_energy)
    assert rows["gibbs_correction", "mae"].n == 1
