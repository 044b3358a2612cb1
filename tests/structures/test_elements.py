"""Names of elements and of what is no atom; masses of isotopes through files, frequencies and dynamics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.data import atomic_masses

import hesse
from hesse.datasets import Dataset, read_dataset, write_dataset
from hesse.errors import GeometryError
from hesse.harmonic.normal_modes import normal_modes
from hesse.structures import Properties, Structure, from_ase, own_masses, parse_element, parse_elements, to_ase

MASSES = np.array([15.999, 2.014, 2.014])
POSITIONS = [[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]]


def heavy_water() -> Structure:
    return Structure(np.array([8, 1, 1]), np.array(POSITIONS), id="d2o", masses=MASSES)


@pytest.mark.parametrize(
    ("name", "number"), [("O", 8), ("cl", 17), ("CL", 17), ("8", 8), (8, 8), ("H1", 1), ("Ts", 117)]
)
def test_symbols_and_numbers(name: str | int, number: int) -> None:
    assert parse_element(name) == (number, None)


def test_heavy_hydrogen() -> None:
    assert parse_element("D") == (1, pytest.approx(2.0141, abs=1e-4))
    assert parse_element("T") == (1, pytest.approx(3.0160, abs=1e-4))
    numbers, masses = parse_elements(["O", "D", "H"])
    assert numbers.tolist() == [8, 1, 1]
    assert masses is not None
    np.testing.assert_allclose(masses, [15.999, 2.0141, 1.008], atol=1e-4)
    assert parse_elements(["O", "H"])[1] is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("X", "dummy"), ("Xx", "dummy"), ("Du", "dummy"), ("Bq", "ghost"), ("Gh", "ghost"), ("H(Gh)", "ghost"),
        ("Gh(H)", "ghost"), ("@H", "ghost"), ("H-Bq", "ghost"), ("BqO", "ghost"), ("H:", "ghost"),
        ("Q", "point charge"), ("Q-0.5", "point charge"), ("0", "ghost or dummy"), ("-1", "ghost or dummy"),
        ("Tv", "lattice vector"),
        ("CA1", "not an element"), ("OW", "not an element"), ("", "not an element"), ("1.0", "not an element"),
        ("119", "1 to 118"), ("9" * 5000, "1 to 118"),
    ],
)  # fmt: skip
def test_what_is_no_atom_is_named(name: str, kind: str) -> None:
    with pytest.raises(GeometryError, match=kind):
        parse_element(name)


def test_ghosts_of_ase_are_named() -> None:
    with pytest.raises(GeometryError, match="ghost or dummy"):
        from_ase(Atoms("OX", positions=[[0, 0, 0], [0, 0, 1]]))


def test_standard_masses_are_no_information() -> None:
    assert own_masses([8, 1], [15.9994, 1.00794]) is None
    kept = own_masses([8, 1], [15.999, 1.00794 * 2])
    assert kept is not None
    with pytest.raises(GeometryError, match="2 positive masses"):
        own_masses([8, 1], [15.999, -1.0])
    with pytest.raises(GeometryError, match="3 positive masses"):
        Structure(np.array([8, 1, 1]), np.array(POSITIONS), masses=np.array([16.0, 1.0]))


@pytest.mark.parametrize("name", ["a.h5", "a.extxyz", "a.json"])
def test_masses_survive_files(tmp_path: Path, name: str) -> None:
    hessian = np.random.default_rng(1).normal(size=(9, 9))
    hessian = (hessian @ hessian.T).reshape(3, 3, 3, 3)
    light = Structure(np.array([8, 1, 1]), np.array(POSITIONS) + 1.0, id="h2o")
    structures = (heavy_water(),) if name == "a.json" else (light, heavy_water())
    labels = Properties.concatenate([Properties.single(3, hessian=hessian, structure_id=s.id) for s in structures])
    write_dataset(tmp_path / name, Dataset(structures, labels))
    back = read_dataset(tmp_path / name, check=False).structures
    np.testing.assert_allclose(back[-1].atomic_masses, MASSES)
    if name != "a.json":
        assert back[0].masses is None
        np.testing.assert_array_equal(back[0].atomic_masses, atomic_masses[[8, 1, 1]])
    lighter = normal_modes(light, hessian).frequencies
    assert normal_modes(back[-1], hessian).frequencies.max() < 0.9 * lighter.max()


def test_files_without_isotopes_keep_their_version(tmp_path: Path) -> None:
    import h5py

    for structure, version in ((heavy_water(), 4), (Structure(np.array([8]), np.zeros((1, 3)), id="o"), 1)):
        write_dataset(tmp_path / "a.h5", structure)
        with h5py.File(tmp_path / "a.h5") as file:
            assert file.attrs["version"] == version
            assert ("masses" in file["structures"]) == (version == 4)


def test_masses_follow_the_structure() -> None:
    structure = heavy_water()
    np.testing.assert_array_equal(structure.with_positions(structure.positions + 1.0).atomic_masses, MASSES)
    np.testing.assert_array_equal(from_ase(to_ase(structure)).atomic_masses, MASSES)
    plain = Structure(structure.numbers, structure.positions)
    assert Structure(structure.numbers, structure.positions, masses=MASSES).id != plain.id
    atoms = to_ase(structure)
    atoms.info.clear()
    frequencies = hesse.vibrations(atoms, EMT()).frequencies
    assert frequencies.max() < 0.8 * hesse.vibrations(plain, EMT()).frequencies.max()
