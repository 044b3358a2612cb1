"""Geometries without labels: charges, isotopes, occupancies, cells and what is no geometry at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hesse.datasets import Dataset, read_dataset
from hesse.errors import FileFormatError, GeometryError, HesseError, LabelValueError, NotReadWarning

CARBONATE = """carbonate
  own

  4  3  0  0  0  0            999 V2000
    0.0000    0.0000    0.0000 C   0  0
    1.2900    0.0000    0.0000 O   0  5
   -0.6450    1.1172    0.0000 O   0  5
   -0.6450   -1.1172    0.0000 O   0  0
  1  2  1  0
  1  3  1  0
  1  4  2  0
M  CHG  2   2  -1   3  -1
M  END
$$$$
"""
HYDROXYL = """radical
  own               3D

  0  0  0     0  0            999 V3000
M  V30 BEGIN CTAB
M  V30 COUNTS 2 1 0 0 0
M  V30 BEGIN ATOM
M  V30 1 O 0 0 0 0 RAD=2
M  V30 2 H 0 0 -
M  V30 0.97 0 MASS=2
M  V30 END ATOM
M  V30 END CTAB
M  END
"""
CIF = """data_mix
_cell_length_a 5.9
_cell_length_b 5.9
_cell_length_c 5.9
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na1 Na 0 0 0 0.4
K1 K 0 0 0 0.6(1)
D1 D 0.5 0.5 0.5 1.0
"""
PDB = """CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1
HETATM    1  CA  ION A   1       0.000   0.000   0.000  1.00  0.00          CA2+
ATOM      2  CA  GLY A   2       3.000   0.000   0.000  1.00  0.00
ATOM      3 HA12 GLY A   2       3.000   1.100   0.000  1.00  0.00
END
"""


def read(folder: Path, name: str, text: str) -> Dataset:
    (folder / name).write_text(text)
    return read_dataset(folder / name)


def test_charges_of_atoms_add_up(tmp_path: Path) -> None:
    for name in ("a.sdf", "a.mol"):
        structure = read(tmp_path, name, CARBONATE).structures[0]
        assert (structure.charge, structure.multiplicity, structure.id) == (-2, 1, "carbonate")
    column = CARBONATE.replace("M  CHG  2   2  -1   3  -1\n", "")
    assert read(tmp_path, "a.sdf", column).structures[0].charge == -2
    # The line makes the column void, as the format says.
    assert (
        read(tmp_path, "a.sdf", CARBONATE.replace("CHG  2", "CHG  1").replace("   3  -1", "")).structures[0].charge
        == -1
    )
    free = CARBONATE.replace("    0.0000    0.0000    0.0000 C   0  0", "0 0 0 C 0 0")
    assert read(tmp_path, "a.sdf", free).structures[0].charge == -2


def test_fields_of_sdf(tmp_path: Path) -> None:
    fields = "M  END\n> <PUBCHEM_TOTAL_CHARGE>\n-2\n\n> <NAME>\nx\n"
    with pytest.warns(NotReadWarning, match="data field NAME"):
        data = read(tmp_path, "a.sdf", CARBONATE.replace("M  END\n", fields))
    assert data.not_read == {"data field NAME": 1}
    with pytest.raises(LabelValueError, match="stated twice"):
        read(tmp_path, "a.sdf", CARBONATE.replace("M  END\n", fields.replace("-2", "-1")))


def test_all_molecules_are_read(tmp_path: Path) -> None:
    assert read(tmp_path, "a.sdf", CARBONATE + CARBONATE.replace("carbonate", "two")).ids == ("carbonate", "two")
    assert read(tmp_path, "a.sdf", CARBONATE * 2).ids == ("a-0", "a-1")


def test_radicals_and_isotopes(tmp_path: Path) -> None:
    structure = read(tmp_path, "a.mol", HYDROXYL).structures[0]
    assert (structure.multiplicity, structure.numbers.tolist(), structure.id) == (2, [8, 1], "radical")
    assert structure.positions[1].tolist() == [0, 0, 0.97]
    np.testing.assert_allclose(structure.atomic_masses, [15.999, 2.0141018], rtol=1e-6)
    with pytest.raises(GeometryError, match="5H is not in"):
        read(tmp_path, "a.mol", HYDROXYL.replace("MASS=2", "MASS=5"))
    with pytest.warns(NotReadWarning, match="radicals of several atoms"):
        read(tmp_path, "a.sdf", CARBONATE.replace("M  CHG", "M  RAD").replace(" -1", "  2"))
    old = CARBONATE.replace("C   0  0", "C   1  0")
    assert read(tmp_path, "a.sdf", old).structures[0].atomic_masses[0] == pytest.approx(13.00335)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("C   0", "R#  0", '"R#" is not an element'),
        ("C   0", "Du  0", "dummy"),
        ("  own\n", "  own               2D\n", "a drawing in two dimensions"),
        ("  4  3", "  9  3", "cut off|truncated"),
        ("  4  3", "four", "truncated or not in V2000"),
        ("   2  -1", "   7  -1", "a property of atom 7"),
    ],
)
def test_what_is_no_molecule(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(HesseError, match=message):
        read(tmp_path, "a.sdf", CARBONATE.replace(old, new, 1))


def test_occupancy(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"not fully occupied: Na1 \(0\.4\), K1 \(0\.6"):
        read(tmp_path, "a.cif", CIF)
    full = CIF.replace("Na1 Na 0 0 0 0.4", "Na1 Na 0 0 0 1").replace("K1 K 0 0 0 0.6(1)", "K1 K 0 0.5 0 1.0(2)")
    structure = read(tmp_path, "a.cif", full).structures[0]
    assert sorted(structure.numbers.tolist()) == [1, 11, 19]
    assert structure.atomic_masses[structure.numbers == 1] == pytest.approx(2.014, abs=1e-3)


def test_pdb(tmp_path: Path) -> None:
    with pytest.warns(NotReadWarning, match="placeholder"):
        structure = read(tmp_path, "a.pdb", PDB).structures[0]
    assert (structure.numbers.tolist(), structure.charge, structure.periodic) == ([20, 6, 1], 2, False)
    cell = PDB.replace("    1.000    1.000    1.000", "   20.000   20.000   20.000")
    assert read(tmp_path, "a.pdb", cell).structures[0].pbc == (True, True, True)
    for old, new, message in (
        (" P 1  ", " P 21 ", "asymmetric unit"),
        ("90.00  90.00  90.00", "179.0  179.0  179.0", "no cell has"),
        ("CA  GLY", "CA BGLY", "alternative places"),
        ("3.000   0.000   0.000  1.00", "3.000   0.000   0.000  0.50", "occupancy 0.5"),
    ):
        with pytest.raises(HesseError, match=message):
            read(tmp_path, "a.pdb", cell.replace(old, new))
    models = "".join(f"MODEL {i}\n{PDB.partition(chr(10))[2].replace('END', 'ENDMDL')}" for i in (1, 2))
    assert read(tmp_path, "b.pdb", models).ids == ("b-0", "b-1")


def test_constraints_of_poscar(tmp_path: Path) -> None:
    text = "He\n1\n4 0 0\n0 4 0\n0 0 4\nHe\n1\nSelective dynamics\nDirect\n0 0 0 F F F\n"
    with pytest.warns(NotReadWarning, match="constraints"):
        assert read(tmp_path, "POSCAR", text).ids == ("POSCAR",)
