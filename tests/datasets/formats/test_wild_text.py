"""XYZ files as other programs and people write them: encodings, names of elements, headers, units, charges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from hesse.datasets import Dataset, read_dataset
from hesse.errors import FileFormatError, GeometryError, HesseError, LabelValueError, NotReadWarning, UnitError
from hesse.structures import from_ase, read_charge_state
from hesse.units import ENERGY_UNITS, LENGTH_UNITS

WATER = "O 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n"
HARTREE, BOHR = ENERGY_UNITS["hartree"], LENGTH_UNITS["bohr"]
CUBE = 'Lattice="4 0 0 0 4 0 0 0 4" pbc="T T T"'


def read(folder: Path, text: str | bytes, **options: str) -> Dataset:
    path = folder / "file.xyz"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_dataset(path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf3\nwater\n" + WATER.encode(),
        b"3\nwater\r\n" + WATER.replace("\n", "\r\n").encode(),
        b"3\nwater\n" + WATER.replace("O", "8").replace("H", "1").encode(),
        b"3\nwater\n" + WATER.replace("O", "o1").replace("H", "h").replace("o1", "O1").encode(),
        b"3\nProperties=Z:I:1:pos:R:3 structure_id=water\n" + WATER.replace("O", "8").replace("H", "1").encode(),
    ],
    ids=["byte order mark", "CRLF", "atomic numbers", "labels", "Z column"],
)
def test_water_in_many_hands(tmp_path: Path, text: bytes) -> None:
    data = read(tmp_path, text)
    assert data.structures[0].numbers.tolist() == [8, 1, 1]
    assert data.ids == ("water",)
    assert (data.structures[0].masses, data.not_read) == (None, {})


def test_a_comment_in_latin_1(tmp_path: Path) -> None:
    assert read(tmp_path, b"3\nbond in \xc5\n" + WATER.encode()).ids == ("bond in Å",)
    with pytest.raises(FileFormatError, match="UTF-16"):
        read(tmp_path, ("3\nw\n" + WATER).encode("utf-16"))


def test_heavy_hydrogen(tmp_path: Path) -> None:
    structure = read(tmp_path, "3\nheavy\n" + WATER.replace("H", "D", 1).replace("H", "T")).structures[0]
    assert structure.numbers.tolist() == [8, 1, 1]
    np.testing.assert_allclose(structure.atomic_masses, [15.999, 2.0141018, 3.0160493], rtol=1e-6)


@pytest.mark.parametrize(("name", "kind"), [("X", "dummy"), ("Bq", "ghost"), ("Q", "point charge"), ("0", "no atom")])
def test_atoms_that_are_no_atoms(tmp_path: Path, name: str, kind: str) -> None:
    with pytest.raises(GeometryError, match=rf'frame 0 \(line 1\): atom 0: "{name}" is .*{kind}'):
        read(tmp_path, "3\nw\n" + WATER.replace("O", name))
    with pytest.raises(GeometryError, match="ghost or dummy"):
        from_ase(Atoms("XH", [[0, 0, 0], [0, 0, 1]]))


def test_nested_lattice(tmp_path: Path) -> None:
    text = "1\nLattice=[[5.0, 0, 0], [1, 6.0, 0], [0, 0, 7]] pbc=[T, T, F] Properties=species:S:1:pos:R:3\nHe 0 0 0\n"
    structure = read(tmp_path, text).structures[0]
    assert structure.cell.tolist() == [[5, 0, 0], [1, 6, 0], [0, 0, 7]]
    assert structure.pbc == (True, True, False)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1\nw\nHe 0 0 0 0.1 0.2 0.3\n", {"3 columns without a name": 1}),
        ("1\nenergy: -5.07 xtb\nHe 0 0 0\n", {"numbers in the comment": 1}),
        ("1\nProperties=species:S:1:pos:R:3:move_mask:L:1\nHe 0 0 0 F\n", {"constraints (move_mask)": 1}),
        ("1\ni = 5, E = -1.5\nHe 0 0 0\n" * 2, {"i": 2, "E": 2}),
        ("1\nspin=1 x=T\nHe 0 0 0\n", {"spin": 1, "x": 1}),
        ("1\nvirial=1\nHe 0 0 0\n", {"virial": 1}),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, text: str, names: dict[str, int]) -> None:
    with pytest.warns(NotReadWarning, match="not read"):
        data = read(tmp_path, text)
    assert {name.partition(" (not a")[0]: count for name, count in data.not_read.items()} == names


def test_titles_are_ids(tmp_path: Path) -> None:
    assert read(tmp_path, f"3\nfirst\n{WATER}3\nsecond one\n{WATER}").ids == ("first", "second one")
    assert read(tmp_path, f"3\n\n{WATER}").ids == ("file",)
    same = read(tmp_path, f"3\nsame\n{WATER}3\nsame\n{WATER}").ids
    assert same[1] == f"{same[0]}-2"


# --- units -----------------------------------------------------------------------------------------------------------


def test_stated_units_are_believed(tmp_path: Path) -> None:
    head = "1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1.1"
    data = read(tmp_path, f"{head} energy-unit=hartree force-unit=hartree/bohr\nH 0 0 0 0 0 0.01\n")
    assert data.labels.energy is not None
    assert data.labels.forces is not None
    assert float(data.labels.energy[0]) == pytest.approx(-29.93252)
    assert float(data.labels.forces[0, 2]) == pytest.approx(0.514221, rel=1e-5)
    frames = f"{head} energy_unit=eV\nH 0 0 0 0 0 1\n{head} units_energy=Ha unit_forces=au\nH 0 0 0 0 0 1\n"
    mixed = read(tmp_path, frames)
    assert mixed.labels.forces is not None
    assert mixed.labels.forces[:, 2].tolist() == pytest.approx([1.0, HARTREE / BOHR])
    with pytest.raises(UnitError, match="states hartree"):
        read(tmp_path, f"{head} energy-unit=hartree force-unit=eV/A\nH 0 0 0 0 0 0.01\n", energy_unit="eV")
    with pytest.raises(UnitError, match="not the unit of forces"):
        read(tmp_path, f"{head} energy-unit=hartree\nH 0 0 0 0 0 0.01\n")
    with pytest.raises(UnitError, match="unknown"):
        read(tmp_path, f"{head} energy-unit=foe\nH 0 0 0 0 0 0.01\n")


@pytest.mark.parametrize(
    ("stated", "option"), [("stress-unit=kbar", None), ("", "kbar"), ("stress_unit=GPa", None), ("", "eV/angstrom^3")]
)
def test_stress(tmp_path: Path, stated: str, option: str | None) -> None:
    unit = stated.partition("=")[2] or option or ""
    options = {"stress_unit": option} if option else {}
    data = read(tmp_path, f'1\n{CUBE} stress="12 0 0 0 12 0 0 0 12" {stated}\nHe 0 0 0\n', **options)
    assert data.labels.stress is not None
    expected = {"kbar": 0.0074898, "GPa": 0.074898, "eV/angstrom^3": 12.0}[unit]
    assert float(data.labels.stress[0, 1, 1]) == pytest.approx(expected, rel=1e-4)


def test_virial(tmp_path: Path) -> None:
    data = read(tmp_path, f'1\n{CUBE} virial="6.4 0 0 0 6.4 1 0 1 6.4"\nHe 0 0 0\n')
    assert data.labels.stress is not None
    assert data.labels.stress[0, 1].tolist() == pytest.approx([0, -0.1, -1 / 64])
    assert not data.not_read
    read(tmp_path, f'1\n{CUBE} virial="6.4 0 0 0 6.4 0 0 0 6.4" stress="-0.1 0 0 0 -0.1 0 0 0 -0.1"\nHe 0 0 0\n')
    with pytest.raises(LabelValueError, match="contradict"):
        read(tmp_path, f'1\n{CUBE} virial="6.4 0 0 0 6.4 0 0 0 6.4" stress="0.1 0 0 0 0.1 0 0 0 0.1"\nHe 0 0 0\n')


def test_headers_of_i_pi(tmp_path: Path) -> None:
    head = "# CELL(abcABC):   10.0 10.0 10.0 90.0 90.0 90.0  Step: 0  Bead: 0"
    data = read(tmp_path, f"1\n{head} positions{{atomic_unit}}  cell{{angstrom}}\nHe 1 0 0\n")
    structure = data.structures[0]
    assert structure.positions[0, 0] == pytest.approx(BOHR)
    np.testing.assert_allclose(structure.cell, 10 * np.eye(3), atol=1e-12)
    assert structure.pbc == (True, True, True)
    with pytest.raises(FileFormatError, match="forces in this file, not positions"):
        read(tmp_path, f"1\n{head} forces{{atomic_unit}}  cell{{angstrom}}\nHe 1 0 0\n")
    with pytest.raises(FileFormatError, match="no cell has"):
        read(tmp_path, f"1\n{head.replace('90.0', '179.0')} positions{{angstrom}}\nHe 1 0 0\n")
    with pytest.raises(HesseError, match="does not state the unit"):
        read(tmp_path, f"1\n{head}\nHe 1 0 0\n")


# --- charges ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({}, (0, 1)),
        ({"total_charge": -1.0}, (-1, 1)),
        ({"charge": 1, "spin": 2}, (1, 2)),
        ({"total_charge": 0, "total_spin": 3}, (0, 3)),
        ({"charge": 0, "spin": 0}, (0, 1)),
        ({"mult": 3}, (0, 3)),
        ({"spin": 3}, (0, 3)),
        ({"spin_multiplicity": 3, "multiplicity": 3}, (0, 3)),
    ],
)
def test_names_of_charge_and_spin(info: dict[str, float], expected: tuple[int, int]) -> None:
    state = read_charge_state(info, np.array([8, 1, 1]))
    assert (state.charge, state.multiplicity) == expected
    assert set(state.read) | set(state.not_read) == set(info)


@pytest.mark.parametrize(
    "info", [{"charge": 0, "total_charge": 1}, {"charge": 0.5}, {"mult": 3, "multiplicity": 1}, {"mult": 0}]
)
def test_contradictory_charges(info: dict[str, float]) -> None:
    with pytest.raises(LabelValueError):
        read_charge_state(info, np.array([8, 1, 1]))


def test_initial_charges_of_ase() -> None:
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1]], charges=[-1.2, 0.2])
    assert from_ase(atoms).charge == -1
    assert not Dataset.from_ase(atoms).not_read
    atoms.info["charge"] = 1
    with pytest.raises(LabelValueError, match="add up to"):
        from_ase(atoms)
    del atoms.info["charge"]
    atoms.set_initial_charges([-0.5, 0.1])
    assert "initial_charges (they add up to -0.400, no whole charge)" in Dataset.from_ase(atoms).not_read


def test_initial_magnetic_moments_of_ase() -> None:
    """Unpaired electrons of molecules, as ASE's calculators read them; those of crystals say nothing."""
    oxygen = Atoms("OO", [[0, 0, 0], [0, 0, 1.2]], magmoms=[1.0, 1.0])
    assert from_ase(oxygen).multiplicity == 3
    assert not Dataset.from_ase(oxygen).not_read
    oxygen.info["multiplicity"] = 1
    assert from_ase(oxygen).multiplicity == 1
    radical = Atoms("OH", [[0, 0, 0], [0, 0, 1]], magmoms=[0.6, 0.4])
    assert from_ase(radical).multiplicity == 2
    radical.set_initial_charges([-1, 0])
    assert from_ase(radical).multiplicity == 1
    assert "initial_magmoms (10 electrons cannot have 1 unpaired ones)" in Dataset.from_ase(radical).not_read
    half = Atoms("OO", [[0, 0, 0], [0, 0, 1.2]], magmoms=[1.0, 0.4])
    assert from_ase(half).multiplicity == 1
    assert any("whole number of unpaired electrons" in key for key in Dataset.from_ase(half).not_read)
    iron = Atoms("Fe", cell=[2.5] * 3, pbc=True, magmoms=[2.0])
    assert from_ase(iron).multiplicity == 1
    assert "initial_magmoms" in Dataset.from_ase(iron).not_read
