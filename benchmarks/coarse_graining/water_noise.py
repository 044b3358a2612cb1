"""Forces on the molecules of water at fixed centers of mass: how much of them no model of beads can explain.

    python water_noise.py REFERENCE OUT.h5 --state T300-d1.00
    hesse coarse forces MODEL beads.h5 --fixed OUT.h5

REFERENCE is the folder of `water_reference.py`. Some frames of a state point are chosen, spread evenly. The centers of
mass of each are held where they are, and its molecules turn from their orientations in the frame. Rigid molecules turn
independently of the motion of their centers except through the forces, so that holding a center means to put each
molecule back after each step and to take the velocity of its center away, with true masses. OUT.h5 receives the beads,
one group for each frame.

Printed: the potential energy beside that of the reference, which is the same average with moving centers and must
agree; and the noise of the first quarter, the first half and all of the time, since molecules at fixed centers turn
slowly: noise that still grows is a lower bound (`--samples` for longer runs).

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
from water_reference import MASSES, context, positions_and_forces, universe, water

from hesse.coarse import force_noise, map_trajectory
from hesse.datasets import join_datasets, write_dataset

TIME_STEP = 2.0
"""fs, for hydrogens of their true mass."""


def centers(values: np.ndarray) -> np.ndarray:
    """Mean of each molecule with its masses, `[molecules, 1, 3]`."""
    return np.einsum("k,mkc->mc", MASSES / MASSES.sum(), values.reshape(-1, 3, 3))[:, None]


def turn(running: openmm.Context, fixed: np.ndarray, ps: float) -> None:
    """Dynamics of the orientations at fixed centers."""
    integrator = running.getIntegrator()
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
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--samples", type=int, default=48, help="of the orientations, for each frame")
    parser.add_argument("--interval", type=float, default=1.0, help="ps between samples")
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
                whole = source.atoms.positions.astype(np.float64) / 10
                running.setPositions(whole)
                running.setVelocitiesToTemperature(row["temperature_K"], options.seed + k)
                for sample in range(options.samples):
                    turn(running, fixed, options.interval)
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
    for part in (4, 2, 1):
        first = [k for k in range(len(data)) if k % options.samples < options.samples // part]
        time = options.interval * (options.samples // part)
        print(f"variance of the forces at fixed centers, {time:g} ps: {force_noise(data[first])} (eV/Å)²")


if __name__ == "__main__":
    main()
