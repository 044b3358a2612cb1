"""All-atom reference of liquid water (SPC/E) at several state points, with forces, for coarse graining.

    python water_reference.py OUT --temperatures 270 300 350 --densities 1.0 1.1
    python water_reference.py OUT --check

Each state point becomes OUT/T300-d1.00.trr (positions and forces of all atoms, GROMACS format) with the topology
OUT/water-128.pdb, OUT/T300-d1.00-hvp.npz, and one row of OUT/state_points.json (temperature, density, length, steps a
second). A state point whose row exists is not computed again. The .npz file holds, for each frame, a random direction
of the molecules (`probes`, `[frames, molecules, 3]`) and the derivative of the sums of forces along it, with opposite
sign (`hvps`, eV/Å²): the Hessian of the atoms between whole molecules, from two more force calculations.

SPC/E: H. J. C. Berendsen, J. R. Grigera, T. P. Straatsma, J. Phys. Chem. 91, 6269 (1987), rigid. Electrostatics beyond
the cutoff are those of a conducting reaction field (`--ewald`: particle-mesh Ewald sums, three times as slow), and
Lennard-Jones interactions go smoothly to zero before it. Hydrogens are twice as heavy, at the expense of oxygen,
which permits 4 fs; distributions of positions do not depend on masses. The mapping takes the true masses.

Molecules are rigid, and the forces that OpenMM reports are without the constraint forces. Those act between atoms of
one molecule, equal and opposite: the sum of the forces of a molecule, which is the force on its center of mass, is the
same with and without them. `--check` prints this, and the sums against differences of the energy.

Needs: openmm, MDAnalysis, numpy.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import MDAnalysis
import numpy as np
import openmm
from openmm import unit

CHARGES = (-0.8476, 0.4238, 0.4238)
SIGMA, EPSILON = 0.3166, 0.650  # nm, kJ/mol, of oxygen
OH, HOH = 0.1, np.deg2rad(109.47)  # nm
MASSES = np.array([15.9994, 1.008, 1.008])
HYDROGEN_MASS = 2.016
HVP_UNIT = 1.0 / 96.48533212 / 100  # eV/Å² per kJ/mol/nm²
MOLAR_MASS = MASSES.sum()
PAIRS = ((0, 1), (0, 2), (1, 2))
CUTOFF, SWITCH = 0.75, 0.65  # nm; Lennard-Jones interactions go smoothly to zero between the two


def box_length(molecules: int, density: float) -> float:
    """Edge of the cube in nm for a density in g/cm³."""
    return float((molecules * MOLAR_MASS / (density * 602.214076)) ** (1 / 3))


def start(molecules: int, length: float, seed: int) -> np.ndarray:
    """Molecules with random orientations on a cubic lattice, nm."""
    rng = np.random.default_rng(seed)
    geometry = OH * np.array([[0, 0, 0], [1, 0, 0], [np.cos(HOH), np.sin(HOH), 0]])
    side = int(np.ceil(molecules ** (1 / 3) - 1e-9))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    chosen = grid[np.sort(rng.permutation(len(grid))[:molecules])]
    rotations = [np.linalg.qr(rng.standard_normal((3, 3)))[0] for _ in chosen]
    return np.concatenate([geometry @ q + length * (g + 0.5) / side for q, g in zip(rotations, chosen, strict=True)])


def water(
    molecules: int, length: float, *, ewald: bool = False, tolerance: float = 5e-4, hydrogen_mass: float = HYDROGEN_MASS
) -> openmm.System:
    """The OpenMM system in a cube of `length` nm; `tolerance` is that of the Ewald sums."""
    system, force = openmm.System(), openmm.NonbondedForce()
    system.setDefaultPeriodicBoxVectors(*(length * np.eye(3)))
    force.setNonbondedMethod(openmm.NonbondedForce.PME if ewald else openmm.NonbondedForce.CutoffPeriodic)
    force.setReactionFieldDielectric(1e9)
    force.setCutoffDistance(CUTOFF)
    force.setEwaldErrorTolerance(tolerance)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(SWITCH)
    force.setUseDispersionCorrection(False)
    masses = (MOLAR_MASS - 2 * hydrogen_mass, hydrogen_mass, hydrogen_mass)
    lengths = (OH, OH, 2 * OH * np.sin(HOH / 2))
    for m in range(molecules):
        for mass, charge, epsilon in zip(masses, CHARGES, (EPSILON, 0.0, 0.0), strict=True):
            system.addParticle(mass)
            force.addParticle(charge, SIGMA, epsilon)
        for (i, j), distance in zip(PAIRS, lengths, strict=True):
            force.addException(3 * m + i, 3 * m + j, 0.0, SIGMA, 0.0)
            system.addConstraint(3 * m + i, 3 * m + j, distance)
    system.addForce(force)
    return system


def context(system: openmm.System, kelvin: float, time_step: float, seed: int, platform: str = "CPU") -> openmm.Context:
    """One thread, Langevin dynamics with friction 1/ps."""
    integrator = openmm.LangevinMiddleIntegrator(kelvin, 1.0, time_step / 1000)
    integrator.setRandomNumberSeed(seed + 1)
    integrator.setConstraintTolerance(1e-6)
    options = {"Threads": "1"} if platform == "CPU" else {}
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform), options)


def projected_hvp(
    running: openmm.Context, positions: np.ndarray, velocities: object, probe: np.ndarray, step: float = 5e-4
) -> np.ndarray:
    """Minus the derivative of the sums of forces when molecules move along `probe`, kJ/mol/nm²."""
    sums = []
    for sign in (1, -1):
        running.setPositions(positions + sign * step * np.repeat(probe, 3, axis=0))
        sums.append(positions_and_forces(running)[1].reshape(-1, 3, 3).sum(1))
    running.setPositions(positions)
    running.setVelocities(velocities)
    return (sums[1] - sums[0]) / (2 * step)


def universe(molecules: int) -> MDAnalysis.Universe:
    """Topology for MDAnalysis."""
    u = MDAnalysis.Universe.empty(
        3 * molecules, molecules, atom_resindex=np.repeat(np.arange(molecules), 3), trajectory=True, forces=True
    )
    u.add_TopologyAttr("names", ["OW", "HW1", "HW2"] * molecules)
    u.add_TopologyAttr("elements", ["O", "H", "H"] * molecules)
    u.add_TopologyAttr("masses", np.tile(MASSES, molecules))
    u.add_TopologyAttr("resnames", ["SOL"] * molecules)
    u.add_TopologyAttr("resids", np.arange(molecules) + 1)
    return u


def positions_and_forces(running: openmm.Context) -> tuple[np.ndarray, np.ndarray, float]:
    """nm, kJ/mol/nm and kJ/mol."""
    state = running.getState(getPositions=True, getForces=True, getEnergy=True)
    force = unit.kilojoule_per_mole / unit.nanometer
    return (
        state.getPositions(asNumpy=True).value_in_unit(unit.nanometer),
        state.getForces(asNumpy=True).value_in_unit(force),
        state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole),
    )


def run(out: Path, kelvin: float, density: float, options: argparse.Namespace) -> dict[str, float | int | str]:
    """Equilibrate and produce one state point; returns its row."""
    length, name = box_length(options.molecules, density), f"T{kelvin:.0f}-d{density:.2f}"
    system = water(options.molecules, length, ewald=options.ewald)
    running = context(system, kelvin, options.time_step, options.seed)
    running.setPositions(start(options.molecules, length, options.seed))
    openmm.LocalEnergyMinimizer.minimize(running, 100.0, 200)
    integrator = running.getIntegrator()

    def advance(ps: float) -> int:
        steps = round(1000 * ps / options.time_step)
        integrator.step(steps)
        return steps

    for temperature, ps in ((450.0, options.melt), (kelvin, options.equilibration)):
        integrator.setTemperature(temperature)
        running.setVelocitiesToTemperature(temperature, options.seed)
        advance(ps)
    u, frames, energies = universe(options.molecules), round(options.time / options.interval), []
    topology, partial = out / f"water-{options.molecules}.pdb", out / f".{name}.trr"
    rng, probes, hvps = np.random.default_rng([options.seed, 1]), [], []
    steps, seconds, cpu = 0, 0.0, 0.0
    with MDAnalysis.Writer(str(partial), n_atoms=len(u.atoms)) as writer:
        for k in range(frames):
            began, cpu_began = time.perf_counter(), time.process_time()
            steps += advance(options.interval)
            seconds, cpu = seconds + time.perf_counter() - began, cpu + time.process_time() - cpu_began
            positions, forces, energy = positions_and_forces(running)
            u.atoms.positions, u.atoms.forces = 10 * positions, forces / 10
            u.dimensions = [10 * length] * 3 + [90.0] * 3
            u.trajectory.ts.time, u.trajectory.ts.frame = (k + 1) * options.interval, k
            writer.write(u.atoms)
            energies.append(energy / options.molecules)
            velocities = running.getState(getVelocities=True).getVelocities(asNumpy=True)
            probes.append(rng.standard_normal((options.molecules, 3)))
            hvps.append(projected_hvp(running, positions, velocities, probes[-1]))
            if not topology.exists():
                u.atoms.write(str(topology))
    np.savez_compressed(out / f"{name}-hvp.npz", probes=np.array(probes), hvps=np.array(hvps) * HVP_UNIT)
    partial.rename(out / f"{name}.trr")
    return {
        "name": name, "temperature_K": kelvin, "density_g_cm3": density, "box_A": 10 * length,
        "molecules": options.molecules, "frames": frames, "interval_ps": options.interval,
        "time_step_fs": options.time_step, "potential_kJ_mol": float(np.mean(energies)),
        "steps_per_second": steps / seconds, "steps_per_processor_second": steps / cpu,
    }  # fmt: skip


def constrained_forces(positions: np.ndarray, forces: np.ndarray) -> np.ndarray:
    """Forces plus those constraint forces that keep molecules at rest rigid, `[m, 3, 3]`."""
    result = forces.copy()
    for molecule, force, out in zip(positions, forces, result, strict=True):
        gradient = np.zeros((len(PAIRS), 3, 3))
        for k, (i, j) in enumerate(PAIRS):
            gradient[k, i], gradient[k, j] = molecule[i] - molecule[j], molecule[j] - molecule[i]
        weighted = gradient / MASSES[None, :, None]
        matrix = np.einsum("kia,lia->kl", gradient, weighted)
        multipliers = np.linalg.solve(matrix, -np.einsum("kia,ia->k", weighted, force))
        out += np.einsum("k,kia->ia", multipliers, gradient)
    return result


def check(molecules: int, time_step: float, ewald: bool) -> None:
    """Print how far constraint forces change the sums over molecules, and the sums against differences of energy."""
    length = box_length(molecules, 1.0)
    running = context(water(molecules, length, ewald=ewald), 300.0, time_step, 0)
    running.setPositions(start(molecules, length, 0))
    openmm.LocalEnergyMinimizer.minimize(running, 10.0, 200)
    running.setVelocitiesToTemperature(300.0, 0)
    running.getIntegrator().step(1000)
    positions, single, _ = positions_and_forces(running)
    exact = context(water(molecules, length, ewald=ewald, tolerance=1e-7), 300.0, time_step, 0, "Reference")
    exact.setPositions(positions)
    forces = positions_and_forces(exact)[1].reshape(-1, 3, 3)
    full = constrained_forces(positions.reshape(-1, 3, 3), forces)

    def rms(values: np.ndarray) -> float:
        return float(np.sqrt(np.mean(values**2)))

    print(f"atoms: forces {rms(forces):.1f}, constraint forces {rms(full - forces):.1f} kJ/mol/nm (rms)")
    sums, change = forces.sum(1), (full - forces).sum(1)
    print(f"molecules: forces {rms(sums):.1f}, change by constraints {rms(change):.1e} kJ/mol/nm (rms)")
    error = rms(single.reshape(-1, 3, 3).sum(1) - sums)
    print(f"molecules: error of the run, by single precision and Ewald sums, {error:.2g} kJ/mol/nm (rms)")
    step, direction = 1e-4, np.random.default_rng(1).standard_normal((molecules, 3))
    energies = []
    for sign in (1, -1):
        exact.setPositions(positions + sign * step * np.repeat(direction, 3, axis=0))
        energies.append(positions_and_forces(exact)[2])
    slope = (energies[1] - energies[0]) / (2 * step)
    exact.setPositions(positions)
    still = exact.getState(getVelocities=True).getVelocities(asNumpy=True)
    products = [projected_hvp(c, positions, still, direction) for c in (exact, running)]
    sides = f"{rms(products[0]) * HVP_UNIT:.3f}, error of the run {rms(products[1] - products[0]) * HVP_UNIT:.4f}"
    print(f"molecules: products with the Hessian {sides} eV/Å² (rms)")
    print(f"molecules moved as a whole: -dE/ds {slope:.3f}, from the sums {float((sums * direction).sum()):.3f}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="All-atom reference of liquid water for coarse graining.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[300.0, 350.0, 270.0], help="K")
    parser.add_argument("--densities", type=float, nargs="+", default=[1.0, 1.1], help="g/cm³")
    parser.add_argument("--molecules", type=int, default=128)
    parser.add_argument("--time", type=float, default=80.0, help="ps of production at each state point")
    parser.add_argument("--interval", type=float, default=0.4, help="ps between frames")
    parser.add_argument("--melt", type=float, default=4.0, help="ps at 450 K at the start")
    parser.add_argument("--equilibration", type=float, default=12.0, help="ps at the temperature, not kept")
    parser.add_argument("--time-step", type=float, default=4.0, help="fs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ewald", action="store_true", help="particle-mesh Ewald sums: three times as slow")
    parser.add_argument("--check", action="store_true", help="only print checks of the forces")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="MDAnalysis")
    if options.check:
        check(options.molecules, options.time_step, options.ewald)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    table = options.out / "state_points.json"
    rows = json.loads(table.read_text()) if table.exists() else []
    for density in options.densities:
        for kelvin in options.temperatures:
            if any(row["name"] == f"T{kelvin:.0f}-d{density:.2f}" for row in rows):
                continue
            rows.append(run(options.out, kelvin, density, options))
            table.write_text(json.dumps(rows, indent=1) + "\n")
            print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
