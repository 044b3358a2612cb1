"""Data sets to ASE atoms and back, with their labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule as ase_molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from test_hdf5 import mixed, require_equal

from hesse.datasets import Dataset, read_dataset
from hesse.errors import LabelShapeError, LabelValueError, RequestError
from oracles import Morse, labeled, molecules


def test_a_data_set_survives_the_way_to_ase_and_back() -> None:
    data = labeled(Morse(), molecules([1, 3, 5]), probes=2, hessian=True)
    data = replace(data, metadata={"level": "Morse", "step": "0.01", "note": "x"})
    require_equal(data, Dataset.from_ase(data.to_ase()))


def test_masks_flags_charges_and_errors_survive() -> None:
    data = mixed()
    assert data.labels.stress is not None
    data.labels.stress[1] = data.labels.stress[1] + data.labels.stress[1].T
    back = Dataset.from_ase(data.to_ase())
    assert [(s.id, s.tag, s.group, s.charge, s.multiplicity, s.pbc) for s in back.structures] == [
        (s.id, s.tag, s.group, s.charge, s.multiplicity, s.pbc) for s in data.structures
    ]
    for name in ("energy", "forces", "hessian", "atomic_energies", "stress"):
        assert torch.equal(back.mask(name), data.mask(name)), name
        one, other = getattr(back.labels, name), getattr(data.labels, name)
        torch.testing.assert_close(one, other, equal_nan=True)
    for column, _ in data.labels.items():
        if column.kind == "error" and column.name != "hvp_error":
            assert back.labels[column.name] is not None, column.name


def test_ase_writes_what_hesse_reads(tmp_path: Path) -> None:
    data = labeled(Morse(), molecules([2, 4]), probes=1, hessian=True)
    ase.io.write(tmp_path / "x.extxyz", data.to_ase())
    back = read_dataset(tmp_path / "x.extxyz", check=False)
    assert back.ids == data.ids
    assert data.labels.hvp is not None
    assert back.labels.hvp is not None
    np.testing.assert_allclose(back.labels.hvp, data.labels.hvp, atol=1e-7)


def test_results_of_a_calculator_are_labels() -> None:
    atoms = ase_molecule("H2O")
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    data = Dataset.from_ase(atoms, level="EMT")
    assert data.metadata["level"] == "EMT"
    assert data.labels.energy is not None
    assert data.labels.forces is not None
    assert float(data.labels.energy[0]) == energy
    np.testing.assert_array_equal(data.labels.forces, forces)
    atoms.positions += [0.1, 0, 0]
    with pytest.raises(LabelValueError, match=r"another geometry \(changed since: positions\)"):
        Dataset.from_ase(atoms)


def test_equal_atoms_get_different_ids_and_wrong_labels_are_refused() -> None:
    water = ase_molecule("H2O")
    one, other = Dataset.from_ase([water, water.copy()]).ids
    assert other == f"{one}-2"
    named = Atoms("H", info={"structure_id": "h"})
    with pytest.raises(RequestError, match='"h" occurs in frame 0 too'):
        Dataset.from_ase([named, named])
    with pytest.raises(LabelShapeError, match="hessian of 9 numbers, expected 9 × 3² = 81"):
        Dataset.from_ase(Atoms("OH2", water.positions, info={"hessian": np.zeros(9)}))
    with pytest.raises(LabelValueError, match="charge must be a whole number"):
        Dataset.from_ase(Atoms("H", info={"charge": 0.5}))
    assert Dataset.from_ase(Atoms("H", info={"charge": np.int64(1), "multiplicity": 1})).structures[0].charge == 1


@pytest.mark.parametrize("wrong", [[], ["H2O"], [[0.0, 1.0]]])
def test_other_things_are_no_atoms(wrong: list[object]) -> None:
    with pytest.raises(RequestError, match=r"ASE Atoms|at least one structure"):
        Dataset.from_ase(wrong)  # type: ignore[arg-type]


def test_unknown_keys_are_listed() -> None:
    atoms = Atoms("H", info={"REF_energy": -1.0})
    atoms.calc = SinglePointCalculator(atoms, energy=-2.0, magmom=1.0)
    data = Dataset.from_ase(atoms)
    assert set(data.not_read) == {"REF_energy", "magmom"}
