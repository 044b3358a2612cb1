"""Trajectories and data bases of ASE, outputs of VASP, and the Hessians of THEMol."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import ase.db
import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io.trajectory import Trajectory

from hesse.datasets import read_dataset
from hesse.errors import FileFormatError, GeometryError, LabelValueError, NotReadWarning, UnitError
from hesse.units import KCAL_PER_MOL


def water(shift: float = 0.0, symbols: str = "OHH") -> Atoms:
    atoms = Atoms(symbols, [[0, 0, 0.119 + shift], [0, 0.763, -0.477], [0, -0.763, -0.477]])
    atoms.calc = SinglePointCalculator(atoms, energy=-14.0 + shift, forces=np.full((3, 3), shift))
    return atoms


def test_trajectory(tmp_path: Path) -> None:
    path = tmp_path / "md.traj"
    ase.io.write(path, [water(), water(0.1)])
    back = read_dataset(path)
    assert back.ids == ("md-0", "md-1")
    assert back.labels.energy is not None
    assert back.labels.forces is not None
    assert back.labels.energy.tolist() == [-14.0, -13.9]
    assert float(back.labels.forces[3, 0]) == 0.1
    assert not back.not_read
    atoms = water()
    atoms.set_constraint(FixAtoms([0]))
    atoms.set_initial_magnetic_moments([1, 0, 0])
    with Trajectory(path, "w") as trajectory:
        trajectory.write(atoms)
    with pytest.warns(NotReadWarning, match="initial_magmoms .*, constraints"):
        assert read_dataset(path).ids == ("md",)


def test_what_is_no_trajectory(tmp_path: Path) -> None:
    path = tmp_path / "a.traj"
    path.write_bytes(b"PickleTrajectory\n")
    with pytest.raises(FileFormatError, match="pickles"):
        read_dataset(path)
    ase.io.write(path, [water(), water(0.1)])
    whole = path.read_bytes()
    for end in range(24, 900, 211):  # behind them only the index of frames follows
        path.write_bytes(whole[:end])
        with pytest.raises(FileFormatError):
            read_dataset(path)
    ase.io.write(path, water(symbols="OHX"))
    with pytest.raises(GeometryError, match="ghost or dummy"):
        read_dataset(path)


def test_data_base(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with ase.db.connect(path) as database:
        database.write(water(), total_charge=1)
        database.write(water(0.1), relaxed=True)
    before = path.read_bytes()
    with pytest.warns(NotReadWarning, match="relaxed"):
        back = read_dataset(path)
    assert (back.ids, [s.charge for s in back.structures]) == (("a-0", "a-1"), [1, 0])
    assert back.labels.energy is not None
    assert back.labels.energy.tolist() == [-14.0, -13.9]
    assert path.read_bytes() == before
    with ase.db.connect(path) as database:
        database.write(water(), charge_total=0, mult=0)
    with pytest.raises(LabelValueError, match="structure 2: a multiplicity is 1 or more"):
        read_dataset(path)


def test_what_is_no_data_base(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(FileFormatError, match="not a data base of ASE"):
        read_dataset(path)
    assert path.read_bytes() == before
    path.unlink()
    with ase.db.connect(path) as database:
        database.write(water())
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE VIEW v AS SELECT 1")
    connection.close()
    with pytest.raises(FileFormatError, match="view or trigger"):
        read_dataset(path)
    path.write_text("{}")
    with pytest.raises(FileFormatError, match="not an SQLite file"):
        read_dataset(path)
    with pytest.raises(FileFormatError, match="no such file"):
        read_dataset("postgresql://user@host/a.db")


# --- VASP ------------------------------------------------------------------------------------------------------------

STEP = """
 ----- Iteration      1(   7)
 aborting loop because EDIFF is reached

  in kB      12.00000    12.00000    12.00000     0.00000     0.00000     0.00000
      direct lattice vectors                 reciprocal lattice vectors
     4.000000000  0.000000000  0.000000000     0.250000000  0.000000000  0.000000000
     0.000000000  4.000000000  0.000000000     0.000000000  0.250000000  0.000000000
     0.000000000  0.000000000  4.000000000     0.000000000  0.000000000  0.250000000

 POSITION                                       TOTAL-FORCE (eV/Angst)
 -----------------------------------------------------------------------------------
      0.00000      0.00000      0.00000         0.100000      0.000000      0.000000
      2.00000      2.00000      2.00000        -0.100000      0.000000      0.000000
 -----------------------------------------------------------------------------------

  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)
  ---------------------------------------------------
  free  energy   TOTEN  =        -7.00000000 eV

  energy  without entropy=       -6.80000000  energy(sigma->0) =       -6.90000000

"""
OUTCAR = (
    """ vasp.6.3.0
 POTCAR:    PAW_PBE Na 08Apr2002
 POTCAR:    PAW_PBE Cl 06Sep2000
 POTCAR:    PAW_PBE Na 08Apr2002
 POTCAR:    PAW_PBE Cl 06Sep2000
   ions per type =               1   1
  Ionic Valenz
   ZVAL   =   1.00  7.00
   NELECT =       9.0000    total number of electrons
   ISPIN  =      1    spin polarized calculation?
"""
    + STEP
    + STEP.replace("because EDIFF is reached", "EDIFF was not reached (unconverged)")
)


def test_outcar(tmp_path: Path) -> None:
    path = tmp_path / "OUTCAR"
    path.write_text(OUTCAR)
    with pytest.warns(NotReadWarning, match="energy, forces and stress of steps whose electrons"):
        back = read_dataset(path)
    assert back.ids == ("OUTCAR-0", "OUTCAR-1")
    labels = back.labels
    assert labels.energy is not None
    assert labels.stress is not None
    assert labels.mask("energy").tolist() == labels.mask("forces").tolist() == labels.mask("stress").tolist()
    assert labels.mask("energy").tolist() == [True, False]
    assert float(labels.energy[0]) == -7.0  # the free energy: the forces are its derivatives
    assert float(labels.stress[0, 0, 0]) == pytest.approx(-0.0074898, rel=1e-4)
    assert [s.charge for s in back.structures] == [-1, -1]


VASPRUN = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <kpoints><generation param="Gamma"/><varray name="kpointlist"><v>0 0 0</v></varray>
 <varray name="weights"><v>1</v></varray></kpoints>
 <parameters><i type="int" name="NELM">60</i><i name="NELECT">8.0</i></parameters>
 <atominfo><array name="atoms"><set><rc><c>Na</c><c>1</c></rc><rc><c>Cl</c><c>2</c></rc></set></array>
 <array name="atomtypes" ><set><rc><c>1</c><c>Na</c><c>22.99</c><c>1.0</c><c>PAW</c></rc>
 <rc><c>1</c><c>Cl</c><c>35.45</c><c>7.0</c><c>PAW</c></rc></set></array></atominfo>
 <structure name="initialpos"><crystal><varray name="basis"><v>4 0 0</v><v>0 4 0</v><v>0 0 4</v></varray></crystal>
 <varray name="positions"><v>0 0 0</v><v>0.5 0.5 0.5</v></varray></structure>
 <calculation>
  <scstep><energy><i name="e_fr_energy">-7.0</i><i name="e_0_energy">-6.9</i></energy></scstep>
  <structure><crystal><varray name="basis"><v>4 0 0</v><v>0 4 0</v><v>0 0 4</v></varray></crystal>
  <varray name="positions"><v>0 0 0</v><v>0.5 0.5 0.5</v></varray></structure>
  <varray name="forces"><v>0.1 0 0</v><v>-0.1 0 0</v></varray>
  <energy><i name="e_fr_energy">-7.0</i><i name="e_0_energy">-6.9</i></energy>
 </calculation>
</modeling>
"""


def test_vasprun(tmp_path: Path) -> None:
    path = tmp_path / "vasprun.xml"
    path.write_text(VASPRUN)
    back = read_dataset(path)
    assert back.labels.energy is not None
    assert (float(back.labels.energy[0]), back.structures[0].charge) == (-7.0, 0)
    path.write_text(VASPRUN.replace(">60<", ">1<"))  # as many iterations as are allowed
    with pytest.warns(NotReadWarning, match="not known to have converged"):
        assert read_dataset(path).labels.energy is None
    path.write_text(VASPRUN.replace("<modeling>", '<!DOCTYPE x [<!ENTITY a "aaa">]>\n<modeling>', 1))
    with pytest.raises(FileFormatError, match="declares entities"):
        read_dataset(path)
    path.write_text(VASPRUN.replace("ISO-8859-1", "IS0-8859-1"))
    with pytest.raises(FileFormatError, match="unknown encoding"):
        read_dataset(path)
    path.write_text(VASPRUN[:1000])
    with pytest.raises(FileFormatError, match="truncated"):
        read_dataset(path)


# --- THEMol ----------------------------------------------------------------------------------------------------------


def test_themol(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    hessian = 100.0 * np.array([[1.0, -1.0], [-1.0, 1.0]])
    with h5py.File(path, "w") as file:
        for name in ("3f2a", "9c1b"):
            group = file.create_group(name)
            group["atomic_numbers"] = [1, 1]
            group["coords"] = [[0, 0, 0], [0, 0, 0.74]]
            group["hessian"] = np.kron(hessian, np.diag([0.0, 0.0, 1.0]))
    back = read_dataset(path)
    assert back.ids == ("3f2a", "9c1b")
    assert back.labels.energy is None
    assert back.labels.hessian_of(0)[0, 2, 0, 2].item() == pytest.approx(100 * KCAL_PER_MOL)
    assert back.metadata["source_units"].startswith("kcal/mol, angstrom")
    with h5py.File(path, "a") as file:
        file["3f2a"]["energy"] = 1.0
    with pytest.raises(UnitError, match="follow from no known convention"):
        read_dataset(path)
