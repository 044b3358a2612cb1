"""Bead types: their numbers are their names, they travel through every format, and ordinary structures stay as they
were."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import atomic_masses, covalent_radii
from hypothesis import given, settings
from hypothesis import strategies as st

import hesse
from hesse.datasets import read_dataset, write_dataset
from hesse.datasets.quality.duplicates import first_with_geometry
from hesse.errors import ConfigError, GeometryError
from hesse.models import Hipnn, HipnnConfig, ReferenceEnergies, Zbl, load_model, save_model
from hesse.structures import (
    BEAD_RADIUS,
    Properties,
    Structure,
    TrainingEnvironments,
    bead_number,
    chemical_formula,
    from_ase,
    is_bead,
    is_species,
    species_name,
    species_radii,
    standard_masses,
    to_ase,
)

W, MEOH = bead_number("W"), bead_number("MEOH")
NAMES = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=8)


def box(names: list[str], seed: int = 0, **fields: object) -> Structure:
    """Beads at random places of a cube of 12 Å."""
    positions = np.random.default_rng(seed).uniform(0, 12, (len(names), 3))
    return Structure(
        [bead_number(n) for n in names],  # type: ignore[arg-type]
        positions,
        cell=12.0 * np.eye(3),
        pbc=(True, True, True),
        masses=np.full(len(names), 32.04),
        **fields,  # type: ignore[arg-type]
    )


@settings(max_examples=200)
@given(NAMES, NAMES)
def test_a_number_is_a_name(first: str, second: str) -> None:
    numbers = bead_number(first), bead_number(second)
    assert [species_name(n) for n in numbers] == [first, second]
    assert (numbers[0] == numbers[1]) == (first == second)
    assert min(numbers) > 1_000_000
    assert max(numbers) < 2**53, "JSON and floats must hold them"


def test_numbers_never_change() -> None:
    """They are in files: a change of the code would rename the beads of existing data."""
    assert (bead_number("A"), W, MEOH) == (1_000_001, 1_000_023, 1_000_000 + ((13 * 64 + 5) * 64 + 15) * 64 + 8)


@pytest.mark.parametrize("name", ["", "a b", "toolongname", "é", "a-b", "\n", 7])
def test_names_that_are_none(name: object) -> None:
    with pytest.raises(GeometryError, match="name of a bead type"):
        bead_number(name)  # type: ignore[arg-type]


def test_numbers_between_names_are_refused() -> None:
    assert not is_species(1_000_064), "a digit of zero belongs to no character"
    assert not is_species(0)
    assert not is_species(2**60)
    with pytest.raises(GeometryError, match=r"bead type is hesse\.bead_number"):
        Structure([1_000_064], np.zeros((1, 3)))  # type: ignore[arg-type]


def test_tables_of_elements_are_those_of_ase() -> None:
    z = np.arange(1, 119)
    np.testing.assert_array_equal(species_radii(z), covalent_radii[z])
    np.testing.assert_array_equal(standard_masses(z), atomic_masses[z])
    np.testing.assert_array_equal(species_radii([8, W]), [covalent_radii[8], BEAD_RADIUS])
    assert np.isnan(standard_masses([W])[0])
    assert chemical_formula([8, 1, 1]) == "H2O"
    assert chemical_formula([W, MEOH, W, 8]) == "OMEOHW2"


def test_ids_of_ordinary_structures_are_as_before() -> None:
    water = Structure([8, 1, 1], [[0, 0, 0], [0.96, 0, 0], [0, 0.96, 0]])  # type: ignore[arg-type]
    assert water.id == "H2O-e36afa9107ef2f70"


def test_ase_and_back() -> None:
    beads = box(["MEOH", "W", "MEOH"], tag="300K")
    atoms = to_ase(beads)
    assert atoms.arrays["bead_type"].tolist() == ["MEOH", "W", "MEOH"]
    assert atoms.get_masses().tolist() == [32.04] * 3
    back = from_ase(atoms)
    assert back.numbers.tolist() == [MEOH, W, MEOH]
    assert back.masses is not None
    assert (back.id, back.tag) == (beads.id, "300K")
    mixed = Atoms("OX", positions=[[0, 0, 0], [3, 0, 0]], masses=[16, 18])
    mixed.arrays["bead_type"] = np.array(["-", "W"])
    assert from_ase(mixed).numbers.tolist() == [8, W]


def test_beads_need_masses_where_masses_are_needed() -> None:
    beads = Structure([W], np.zeros((1, 3)))  # type: ignore[arg-type]
    with pytest.raises(GeometryError, match="the beads W have no masses"):
        _ = beads.atomic_masses


@pytest.mark.parametrize("suffix", [".h5", ".extxyz"])
def test_files_hold_bead_types(tmp_path: Path, suffix: str) -> None:
    structures = [box(["MEOH", "W"], seed=s, id=f"frame {s}", tag="300K") for s in range(2)]
    structures.append(Structure([8, W], [[0, 0, 0], [4.0, 0, 0]], id="mixed", masses=[15.999, 18.0]))  # type: ignore[arg-type]
    forces = torch.arange(18.0, dtype=torch.float64).reshape(6, 3)
    path = tmp_path / f"beads{suffix}"
    write_dataset(path, hesse.Dataset(tuple(structures), Properties(n_atoms=torch.tensor([2, 2, 2]), forces=forces)))
    back = read_dataset(path)
    for before, after in zip(structures, back.structures, strict=True):
        np.testing.assert_array_equal(before.numbers, after.numbers)
        np.testing.assert_array_equal(before.positions, after.positions)
        np.testing.assert_array_equal(before.masses, after.masses)  # type: ignore[arg-type]
        assert (before.id, before.tag) == (after.id, after.tag)
    assert back.elements == (8, W, MEOH)


def test_only_files_with_beads_need_the_new_version(tmp_path: Path) -> None:
    import h5py

    for name, numbers in (("ordinary", [8]), ("beads", [W])):
        structure = Structure(numbers, np.zeros((1, 3)))  # type: ignore[arg-type]
        write_dataset(tmp_path / f"{name}.h5", hesse.Dataset((structure,), Properties(n_atoms=torch.tensor([1]))))
    with h5py.File(tmp_path / "ordinary.h5") as file:
        assert (file.attrs["version"], file["structures/numbers"].dtype) == (1, np.uint8)
    with h5py.File(tmp_path / "beads.h5") as file:
        assert (file.attrs["version"], file["structures/numbers"].dtype) == (5, np.int64)


def test_ase_reads_the_extended_xyz_file(tmp_path: Path) -> None:
    from ase.io import read

    write_dataset(
        tmp_path / "beads.extxyz", hesse.Dataset((box(["MEOH", "W"]),), Properties(n_atoms=torch.tensor([2])))
    )
    atoms = read(tmp_path / "beads.extxyz")
    assert atoms.get_chemical_symbols() == ["X", "X"]
    assert from_ase(atoms).numbers.tolist() == [MEOH, W]


def test_a_network_of_beads_is_stored_and_tells_types_apart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = HipnnConfig(l_max=1, features=8, sensitivities=6, blocks=1, onsite_layers=1, cutoff=8.0, longest=6.0)
    network = Hipnn(config, (MEOH, 8, W)).double()
    assert network.elements == (8, W, MEOH)
    save_model(tmp_path / "model.hesse", network)
    again = load_model(tmp_path / "model.hesse")
    first, second = box(["MEOH", "W", "W"]), box(["W", "MEOH", "W"])
    values = [hesse.evaluate_structures(m, [first, second], hesse.Request()).energy for m in (network, again)]
    torch.testing.assert_close(values[0], values[1])
    assert abs(float(values[0][0] - values[0][1])) > 1e-6
    with pytest.raises(hesse.HesseError, match="holds CH3; Hipnn knows O, W, MEOH only"):
        hesse.evaluate_structures(network, [box(["CH3", "W"])], hesse.Request())


def test_reference_energies_of_beads() -> None:
    references = ReferenceEnergies((MEOH, 1, W), torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64))
    numbers = torch.tensor([W, MEOH, 1, bead_number("CH3")])
    assert references.element_index(numbers).tolist() == [1, 2, 0, 3]
    assert references.energies.tolist() == [1.0, 2.0, 3.0]


def test_nuclear_repulsion_is_refused() -> None:
    with pytest.raises(ConfigError, match="W are beads"):
        Zbl(elements=(W,))


def test_summaries_of_training_data_know_bead_types() -> None:
    frames = [box(["MEOH"] * 20 + ["W"] * 10, seed=s) for s in range(8)]
    summary = TrainingEnvironments.from_structures(frames)
    back = TrainingEnvironments.from_text(summary.to_text())
    assert set(back.elements) == {W, MEOH}
    assert (W, MEOH) in back.shortest
    assert back.compare(box(["CH3", "W"])).reason == "the training data hold no CH3"


def test_equal_geometries_of_different_beads_differ() -> None:
    one = Structure([W, MEOH], [[0, 0, 0], [3.0, 0, 0]])  # type: ignore[arg-type]
    same = Structure([MEOH, W], [[1, 0, 0], [1, 3.0, 0]])  # type: ignore[arg-type]
    other = Structure([W, W], [[0, 0, 0], [3.0, 0, 0]])  # type: ignore[arg-type]
    assert is_bead(one.numbers).all()
    found = first_with_geometry(lambda: iter([(np.arange(3), [one, same, other])]), 3)
    assert found.tolist() == [0, 0, 2]
