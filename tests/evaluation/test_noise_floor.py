"""The noise floor finds the noise that was put in, from the labels alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from hesse.datasets import Dataset, read_dataset
from hesse.evaluation import MetricRow, error_metrics, float32_resolution
from hesse.structures import Properties
from hesse.units import ENERGY_UNITS
from oracles import Morse, atom, crystal, labeled, molecules


@cache
def clean() -> Dataset:
    return labeled(Morse(), molecules([4, 5, 6, 7] * 12), hessian=True, probes=2)


def noisy(sigma: float, *names: str, seed: int = 0, **changes: object) -> Dataset:
    """Labels `names` with independent Gaussian errors of standard deviation `sigma`."""
    generator = torch.Generator().manual_seed(seed)
    values = {name: getattr(clean().labels, name) for name in names}
    moved = {n: v + sigma * torch.randn(v.shape, generator=generator, dtype=v.dtype) for n, v in values.items()}
    return Dataset(clean().structures, clean().labels.replace(**moved, **changes))  # type: ignore[arg-type]


def rows_of(data: Dataset) -> list[MetricRow]:
    """Errors of a perfect potential against noisy labels."""
    return error_metrics(data, clean().labels)


def value(rows: list[MetricRow], property: str, metric: str) -> float:
    (row,) = [r for r in rows if (r.property, r.metric) == (property, metric)]
    return row.value


# Independent checks per structure: six rigid motions, for each of two probes, for each Hessian row. Four standard
# deviations of a root mean square over so many.
@pytest.mark.parametrize(
    ("name", "true", "checks"), [("forces", 0.05, 6 * 48), ("hvp", 0.05, 12 * 48), ("hessian", 0.05 / np.sqrt(2), 5000)]
)
def test_white_noise_is_found_within_its_confidence(name: str, true: float, checks: int) -> None:
    rows = rows_of(noisy(0.05, name))
    margin = 4 / np.sqrt(2 * checks)
    assert value(rows, name, "noise_floor") == pytest.approx(true, rel=margin)
    # A perfect potential shows exactly this error against such labels: below it nothing can be seen.
    assert value(rows, name, "rmse") == pytest.approx(value(rows, name, "noise_floor"), rel=margin + 0.02)


def test_exact_labels_have_no_noise() -> None:
    rows = rows_of(clean())
    assert all(r.value < 1e-12 for r in rows if r.metric == "noise_floor")


def test_a_stored_estimate_is_used_where_it_is_larger() -> None:
    structures, probes = len(clean()), 2
    error = torch.full((structures,), 0.3, dtype=torch.float64)
    per_probe = torch.tensor([[0.3], [0.4]], dtype=torch.float64).expand(probes, structures)
    rows = rows_of(
        noisy(0.05, "forces", "hvp", "hessian", forces_error=error, hvp_error=per_probe, hessian_error=error / 10)
    )
    assert value(rows, "forces", "noise_floor") == pytest.approx(0.3)
    assert value(rows, "hvp", "noise_floor") == pytest.approx(np.sqrt((0.09 + 0.16) / 2))
    # The stored estimate is too small: the sum rules show more noise.
    assert value(rows, "hessian", "noise_floor") > 0.033


def test_noise_that_obeys_all_sum_rules_is_seen_in_the_antisymmetric_part() -> None:
    """Errors orthogonal to all rigid-body motions: only (H − Hᵀ)/2 contains them."""
    data = labeled(Morse(), [*molecules([5])], hessian=True)
    hessian = data.labels.hessian_of(0).reshape(15, 15).numpy()
    rng = np.random.default_rng(0)
    positions = data.structures[0].positions
    moves = [np.tile(e, (5, 1)) for e in np.eye(3)] + [np.cross(e, positions) for e in np.eye(3)]
    basis = np.linalg.qr(np.array(moves).reshape(6, 15).T)[0]
    inside = np.eye(15) - basis @ basis.T
    skew = rng.normal(size=(15, 15))
    skew = inside @ (skew - skew.T) @ inside
    noisy_labels = data.labels.replace(hessian=torch.from_numpy(hessian + skew).reshape(-1))
    rows = error_metrics(Dataset(data.structures, noisy_labels), data.labels)
    off_diagonal = ~np.eye(15, dtype=bool)
    assert value(rows, "hessian", "noise_floor") == pytest.approx(np.sqrt(np.mean(skew[off_diagonal] ** 2)))
    assert value(rows, "hessian", "rmse") < 1e-9  # against the symmetrized reference


@pytest.mark.parametrize("unit", ["ev", "hartree", "kcal/mol"])
def test_energies_rounded_to_single_precision_are_recognized(unit: str) -> None:
    rng = np.random.default_rng(3)
    exact = -rng.uniform(900.0, 1000.0, size=len(clean()))
    stored = exact.astype(np.float32).astype(np.float64) * ENERGY_UNITS[unit]
    data = Dataset(clean().structures, clean().labels.replace(energy=torch.from_numpy(stored)))
    step = 2.0**-14 * ENERGY_UNITS[unit]  # between neighboring single-precision numbers from 512 to 1024
    assert float32_resolution(data) == pytest.approx(step / np.sqrt(12))
    rounding = np.sqrt(np.mean((stored - exact * ENERGY_UNITS[unit]) ** 2))
    assert rounding == pytest.approx(step / np.sqrt(12), rel=0.3)
    rows = rows_of(data)
    assert value(rows, "energy", "noise_floor") == pytest.approx(step / np.sqrt(12))
    n = clean().labels.n_atoms.numpy()
    assert value(rows, "energy_per_atom", "noise_floor") == pytest.approx(
        step / np.sqrt(12) * np.sqrt(np.mean(n**-2.0))
    )


def test_energies_in_double_precision_have_no_known_floor() -> None:
    assert np.isnan(float32_resolution(clean())).all()
    assert not [r for r in rows_of(clean()) if r.property == "energy" and r.metric == "noise_floor"]


def test_a_stored_energy_error_replaces_the_resolution() -> None:
    error = torch.full((len(clean()),), 0.002, dtype=torch.float64)
    rows = rows_of(noisy(0.0, energy_error=error))
    assert value(rows, "energy", "noise_floor") == pytest.approx(0.002)


def test_the_floor_is_of_the_structures_compared() -> None:
    """Noise in structures without the tag, or without predictions, does not count."""
    data = noisy(0.05, "forces")
    mask = torch.zeros(len(data), dtype=torch.bool)
    mask[:4] = True
    subset = clean().labels.replace(forces_mask=mask)
    (row,) = [r for r in error_metrics(data, subset) if (r.property, r.metric) == ("forces", "noise_floor")]
    assert row.n == 3 * int(data.labels.n_atoms[:4].sum())


def test_atoms_and_crystals() -> None:
    data = labeled(Morse(), [atom(), crystal()], hessian=True)
    result = {r.property: r for r in error_metrics(data, data.labels) if r.metric == "noise_floor"}
    assert result["forces"].value < 1e-10
    assert result["hessian"].value < 1e-10
    assert np.isfinite([r.value for r in result.values()]).all()


def test_labels_without_noise_estimates_have_no_row() -> None:
    structure = molecules([3])
    data = Dataset(tuple(structure), Properties.single(3, energy=0.1))
    assert {r.metric for r in error_metrics(data, data.labels)} == {"rmse", "mae"}


def test_the_floor_of_a_published_set_of_dft_hessians(shared_data: Path) -> None:
    """Grid noise of a DFT Hessian is seen by its sum rules; energies of 10⁴ eV in single precision have steps of
    2⁻¹⁰ eV from 8192 eV on."""
    path = shared_data / "horm_sample" / "horm_sample_dev.npz"
    if not path.is_file():
        pytest.skip("horm_sample is not here")
    data = read_dataset(path, energy_unit="eV", length_unit="angstrom")
    rows = error_metrics(data, data.labels)
    assert 0.003 < value(rows, "hessian", "noise_floor") < 0.02
    assert 1e-4 < value(rows, "energy", "noise_floor") < 2.0**-10 / np.sqrt(12) * 1.001
    largest = float(np.nanmax(float32_resolution(data)))
    assert largest == pytest.approx(2.0**-10 / np.sqrt(12), rel=1e-6)
