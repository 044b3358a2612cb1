"""Labels that are far from all others: found whatever their number allows, and never in sound data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hesse.datasets import Dataset, find_outliers, open_dataset, write_dataset
from hesse.structures import Properties
from oracles import Morse, atom, labeled, molecule, molecules

ENERGIES = {1: -14.0, 6: -1030.0, 8: -2040.0}


def sound(n: int = 40, seed: int = 3, probes: int = 1) -> Dataset:
    """Molecules of several sizes, with total energies as of electronic-structure methods."""
    rng = np.random.default_rng(seed)
    data = labeled(Morse(), molecules([2 + k % 6 for k in range(n)], seed), probes=probes, hessian=True)
    totals = [sum(ENERGIES[int(z)] for z in s.numbers) + 0.1 * len(s) * rng.normal() for s in data.structures]
    return Dataset(data.structures, data.labels.replace(energy=torch.tensor(totals, dtype=torch.float64)))


def with_energy(data: Dataset, changes: dict[int, float]) -> Dataset:
    assert data.labels.energy is not None
    energy = data.labels.energy.clone()
    for index, value in changes.items():
        energy[index] = value
    return Dataset(data.structures, data.labels.replace(energy=energy))


def test_sound_data_have_no_outlier() -> None:
    assert find_outliers(sound()) == []
    assert find_outliers(sound(2)) == []


def test_one_impossible_energy_is_found_and_hides_nothing() -> None:
    data = sound()
    assert data.labels.energy is not None
    wrong = float(data.labels.energy[7]) + 5.0 * len(data.structures[7])
    found = find_outliers(with_energy(data, {3: 1e9, 7: wrong}))
    assert [(o.id, o.label, o.impossible) for o in found] == [
        (data.ids[3], "energy", True),
        (data.ids[7], "energy", False),
    ]
    assert found[0].value == 1e9
    assert found[1].distance == pytest.approx(5.0, abs=0.5)
    assert 0.05 < found[1].typical < 0.4
    assert found[1].unit == "eV"


def test_energies_per_element_are_recovered_beside_outliers() -> None:
    """The distance is that of the energy that was added, for outliers of every structure in turn."""
    data = sound(30)
    assert data.labels.energy is not None
    for k in range(len(data)):
        added = 4e3
        (found,) = find_outliers(with_energy(data, {k: float(data.labels.energy[k]) + added}), ["energy"])
        assert found.index == k
        assert found.distance == pytest.approx(added / len(data.structures[k]), rel=1e-3)


def test_an_impossible_energy_among_few_structures() -> None:
    (found,) = find_outliers(with_energy(sound(3), {1: -1e9}))
    assert (found.index, found.impossible) == (1, True)
    assert np.isnan(found.typical)


def test_forces_by_their_largest_magnitude() -> None:
    data = sound()
    assert data.labels.forces is not None
    forces = data.labels.forces.clone()
    starts = np.concatenate([[0], np.cumsum(data.n_atoms.numpy())])
    forces[starts[5] + 1] = torch.tensor([3e5, 4e5, 0.0])
    forces[starts[9]] = torch.tensor([0.0, 0.0, 500.0])
    found = find_outliers(Dataset(data.structures, data.labels.replace(forces=forces)), ["forces"])
    assert [(o.index, o.value, o.impossible) for o in found] == [(5, 5e5, True), (9, 500.0, False)]


def test_products_and_hessians() -> None:
    data = sound()
    assert data.labels.hvp is not None
    assert data.labels.hessian is not None
    hvp, hessian = data.labels.hvp.clone(), data.labels.hessian.clone()
    hvp[0, 0] = 1e8
    hessian[-1] = -1e9
    found = find_outliers(Dataset(data.structures, data.labels.replace(hvp=hvp, hessian=hessian)))
    assert [(o.index, o.label, o.impossible) for o in found] == [(0, "hvp", True), (len(data) - 1, "hessian", True)]
    assert find_outliers(data, ["energy", "forces"]) == []


def test_longer_probes_are_no_outlier() -> None:
    data = sound()
    assert data.labels.hvp is not None
    assert data.labels.probes is not None
    probes, hvp = data.labels.probes.clone(), data.labels.hvp.clone()
    probes[:, :2] *= 1e6
    hvp[:, :2] *= 1e6
    assert find_outliers(Dataset(data.structures, data.labels.replace(probes=probes, hvp=hvp))) == []


def test_relaxed_structures_beside_a_few_distorted_ones() -> None:
    """Equal labels have no spread: a few ordinary forces and energies among them are no outliers."""
    data = sound(60, probes=0)
    assert data.labels.forces is not None
    forces = torch.zeros_like(data.labels.forces)
    forces[:6] = 3.0
    energy = torch.tensor([sum(ENERGIES[int(z)] for z in s.numbers) for s in data.structures], dtype=torch.float64)
    energy[0] += 0.2 * len(data.structures[0])
    quiet = Properties(n_atoms=data.labels.n_atoms, energy=energy, forces=forces)
    assert find_outliers(Dataset(data.structures, quiet)) == []


def test_masked_labels_and_weights_of_zero_are_left_out() -> None:
    data = with_energy(sound(), {3: 1e9, 4: 1e9})
    mask = torch.ones(len(data), dtype=torch.bool)
    mask[3] = False
    weight = torch.ones(len(data), dtype=torch.float64)
    weight[4] = 0.0
    assert find_outliers(Dataset(data.structures, data.labels.replace(energy_mask=mask, weight=weight))) == []


def test_streamed_data_give_the_same(tmp_path: Path) -> None:
    data = sound(300)
    assert data.labels.forces is not None
    forces = data.labels.forces.clone()
    forces[-1] = 1e5
    wrong = with_energy(replace(data, labels=data.labels.replace(forces=forces)), {3: 1e9})
    write_dataset(tmp_path / "a.h5", wrong)
    streamed = open_dataset(tmp_path / "a.h5", memory_mib=1.0, check=False)
    assert not isinstance(streamed, Dataset)
    assert find_outliers(streamed) == find_outliers(wrong)
    assert len(find_outliers(wrong)) == 2


def test_labels_that_are_not_finite_are_left_to_other_checks() -> None:
    data = sound()
    forces, hvp, hessian, energy = (
        value.clone() for name in ("forces", "hvp", "hessian", "energy") if (value := data.labels[name]) is not None
    )
    forces[0, 0], hvp[0, 0, 0], hessian[0], energy[0] = torch.nan, torch.inf, torch.nan, torch.inf
    labels = data.labels.replace(forces=forces, hvp=hvp, hessian=hessian, energy=energy)
    assert find_outliers(Dataset(data.structures, labels)) == []


def test_isolated_atoms_beside_molecules_are_no_outliers() -> None:
    """Files often hold single atoms, from which energies per element are taken."""
    rng = np.random.default_rng(0)
    chains = [molecule(6, k, elements=(6,), name=f"chain-{k}") for k in range(60)]
    data = labeled(Morse(), [*chains, atom(6)], probes=0)
    energies = [-6 * 1036.0 + 0.05 * rng.normal() for _ in chains] + [-1030.0]
    labels = data.labels.replace(energy=torch.tensor(energies, dtype=torch.float64))
    assert find_outliers(Dataset(data.structures, labels)) == []
    wrong = with_energy(Dataset(data.structures, labels), {len(chains): -1e9, 3: -6 * 1030.0})
    assert {(o.id, o.impossible) for o in find_outliers(wrong)} == {("atom-6", True), ("chain-3", False)}
