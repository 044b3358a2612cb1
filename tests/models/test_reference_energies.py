"""Reference energies by least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hesse.errors import MissingLabelError
from hesse.models import fit_reference_energies
from hesse.structures import Properties


def labels_of(compositions: list[list[int]], energies: list[float | None]) -> tuple[torch.Tensor, Properties]:
    parts = [Properties.single(len(c), energy=e) for c, e in zip(compositions, energies, strict=True)]
    return torch.tensor([z for c in compositions for z in c]), Properties.concatenate(parts)


def test_exact_energies_give_exact_references() -> None:
    truth = {1: -13.6, 6: -1029.5, 8: -2042.0}
    compositions = [[1, 1, 8], [6, 1, 1, 1, 1], [8, 8], [6, 8, 8], [1]]
    numbers, labels = labels_of(compositions, [sum(truth[z] for z in c) for c in compositions])
    fitted = fit_reference_energies(numbers, labels, (1, 6, 8))
    assert fitted.dtype == torch.float64
    np.testing.assert_allclose(fitted, list(truth.values()), rtol=1e-12)
    # The result has the order of the elements.
    np.testing.assert_allclose(
        fit_reference_energies(numbers, labels, (8, 1, 6)), [-2042.0, -13.6, -1029.5], rtol=1e-12
    )


def test_noisy_energies_give_the_normal_equations() -> None:
    rng = np.random.default_rng(0)
    compositions = [list(rng.choice([1, 6, 8], size=rng.integers(2, 9))) for _ in range(30)]
    energies = rng.normal(size=30)
    numbers, labels = labels_of(compositions, list(energies))
    counts = np.array([[c.count(z) for z in (1, 6, 8)] for c in compositions], dtype=float)
    expected = np.linalg.solve(counts.T @ counts, counts.T @ energies)
    np.testing.assert_allclose(fit_reference_energies(numbers, labels, (1, 6, 8)), expected, rtol=1e-10)


def test_undetermined_combinations_take_the_smallest_solution() -> None:
    """Only CH4: 4 E_H + E_C is fixed, the split is not; the pseudo-inverse decides. Absent oxygen gets 0."""
    numbers, labels = labels_of([[6, 1, 1, 1, 1]] * 3, [-17.0, -17.0, -17.0])
    fitted = fit_reference_energies(numbers, labels, (1, 6, 8))
    np.testing.assert_allclose(fitted, [-4.0, -1.0, 0.0], atol=1e-12)


def test_structures_without_energy_do_not_count() -> None:
    numbers, labels = labels_of([[1], [1, 1], [8]], [-13.0, None, -2000.0])
    np.testing.assert_allclose(fit_reference_energies(numbers, labels, (1, 8)), [-13.0, -2000.0], rtol=1e-12)
    numbers, labels = labels_of([[1], [8]], [None, None])
    with pytest.raises(MissingLabelError, match="no structure of a weight above zero has one"):
        fit_reference_energies(numbers, labels, (1, 8))
