"""Forces on the molecules of water at fixed centers of mass: how much of them no model of beads can explain.

    python water_noise.py REFERENCE OUT.h5 --state T300-d1.00
    hesse coarse forces MODEL beads.h5 --fixed OUT.h5

REFERENCE is the folder of `water_reference.py`. Some frames of a state point are chosen, spread evenly. The centers of
mass of each are held where they are, and molecules turn: from independent random orientations, melted at 1000 K and
cooled to the temperature, so that samples of one frame do not remember each other. OUT.h5 receives the beads, one group
for each frame. Rigid molecules turn independently of the motion of their centers except through the forces, so that
holding a center means to put each molecule back after each step and to take the velocity of its center away, with true
masses.

Printed: the potential energy beside that of the reference. Both must agree: the reference is the same average with
moving centers. An energy that is higher says that molecules had too little time to turn (`--time`).

Needs: openmm, MDAnalysis, numpy.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import MDAnalysis
import numpy as np
import openmm
from water_reference import MASSES, context, positions_and_forces, start, universe, water

from hesse.coarse import force_noise, map_trajectory
from hesse.datasets import join_datasets, write_dataset

HOT = 1000.0
"""K, at which molecules forget their orientations."""
TIME_STEP = 2.0
"""fs, for hydrogens of their true mass."""


def centers(values: np.ndarray) -> np.ndarray:
    """Mean of each molecule with its masses, `[molecules, 1, 3]`."""
    return np.einsum("k,mkc->mc", MASSES / MASSES.sum(), values.reshape(-1, 3, 3))[:, None]


def turn(running: openmm.Context, fixed: np.ndarray, kelvin: float, ps: float) -> None:
    """Dynamics of the orientations at fixed centers."""
    integrator = running.getIntegrator()
    integrator.setTemperature(kelvin)
    for _ in range(round(1000 * ps / TIME_STEP)):
        integrator.step(1)
        state = running.getState(getPositions=True, getVelocities=True)
        positions = state.getPositions(asNumpy=True)._value.reshape(-1, 3, 3)
        velocities = state.getVelocities(asNumpy=True)._value.reshape(-1, 3, 3)
        running.setPositions((positions + fixed - centers(positions)).reshape(-1, 3))
        running.setVelocities((velocities - centers(velocities)).reshape(-1, 3))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Forces of water at fixed centers of mass.")
    parser.add_argument("reference", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--state", default="T300-d1.00")
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--samples", type=int, default=8, help="of the orientations, for each frame")
    parser.add_argument("--hot", type=float, default=0.5, help="ps at 1000 K before each sample")
    parser.add_argument("--time", type=float, default=3.0, help="ps at the temperature before each sample")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="MDAnalysis")
    rows = json.loads((options.reference / "state_points.json").read_text())
    (row,) = (r for r in rows if r["name"] == options.state)
    topology = options.reference / f"water-{row['molecules']}.pdb"
    source = MDAnalysis.Universe(str(topology), str(options.reference / f"{options.state}.trr"))
    length = row["box_A"] / 10
    system = water(row["molecules"], length, hydrogen_mass=float(MASSES[1]))
    running = context(system, row["temperature_K"], TIME_STEP, options.seed)
    u, energies, parts = universe(row["molecules"]), [], []
    with tempfile.TemporaryDirectory() as folder:
        for k, index in enumerate(np.linspace(0, len(source.trajectory) - 1, options.frames).astype(int)):
            source.trajectory[index]
            fixed = centers(source.atoms.positions.astype(np.float64) / 10)
            file = Path(folder) / f"{k}.trr"
            with MDAnalysis.Writer(str(file), n_atoms=len(u.atoms)) as writer:
                for sample in range(options.samples):
                    seed = options.seed + options.samples * k + sample
                    turned = start(row["molecules"], length, seed).reshape(-1, 3, 3)
                    running.setPositions((turned + fixed - centers(turned)).reshape(-1, 3))
                    running.setVelocitiesToTemperature(HOT, seed)
                    turn(running, fixed, HOT, options.hot)
                    turn(running, fixed, row["temperature_K"], options.time)
                    positions, forces, energy = positions_and_forces(running)
                    u.atoms.positions, u.atoms.forces = 10 * positions, forces / 10
                    u.dimensions = [10 * length] * 3 + [90.0] * 3
                    u.trajectory.ts.time, u.trajectory.ts.frame = float(sample), sample
                    writer.write(u.atoms)
                    energies.append(energy / row["molecules"])
            part = map_trajectory(file, topology=topology, temperature=row["temperature_K"])
            parts.append(replace(part, structures=tuple(replace(s, group=f"frame-{index}") for s in part.structures)))
            print(f"frame {index}: {np.mean(energies[-options.samples :]):.2f} kJ/mol", flush=True)
    data, _ = join_datasets(parts, [str(k) for k in range(len(parts))])
    write_dataset(options.out, data)
    each = np.reshape(energies, (options.frames, options.samples)).mean(1)
    error = each.std(ddof=1) / len(each) ** 0.5
    print(f"potential energy {each.mean():.2f} ± {error:.2f} kJ/mol, reference {row['potential_kJ_mol']:.2f}")
    print(f"variance of the forces at fixed centers: {force_noise(data)} (eV/Å)²")


if __name__ == "__main__":
    main()
