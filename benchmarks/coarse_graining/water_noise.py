"""Forces on the molecules of water at fixed centers of mass: how much of them no model of beads can explain.

    python water_noise.py REFERENCE OUT.h5 --state T300-d1.00
    hesse coarse forces MODEL beads.h5 --fixed OUT.h5

REFERENCE is the folder of `water_reference.py`. Some frames of a state point are chosen, spread evenly. The centers of
mass of each are held where they are, and its molecules turn from their orientations in the frame. Rigid molecules turn
independently of the motion of their centers except through the forces, so that holding a center means to put each
molecule back after each step and to take the velocity of its center away, with true masses. OUT.h5 receives the beads,
one group for each frame.

Molecules at fixed centers hardly ever change the hydrogen bonds that they donate: dynamics from the frame gives a lower
bound. With `--anneal PS` each sample starts from random orientations at 1000 K and is cooled to the temperature within
that time. Orientations that are frozen in at too high an energy make an upper bound.

Printed: the potential energy beside that of the reference, which is the same average with moving centers and must
agree; the noise of the first quarter, the first half and all of the samples; and the correlation of the dipoles of
two samples by the time between them.

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


def turn(running: openmm.Context, fixed: np.ndarray, ps: float, kelvin: tuple[float, float]) -> None:
    """Dynamics of the orientations at fixed centers, from the first temperature to the second one."""
    integrator = running.getIntegrator()
    for temperature in np.geomspace(*kelvin, round(1000 * ps / TIME_STEP)):
        integrator.setTemperature(float(temperature))
        integrator.step(1)
        state = running.getState(getPositions=True, getVelocities=True)
        positions = state.getPositions(asNumpy=True)._value.reshape(-1, 3, 3)
        velocities = state.getVelocities(asNumpy=True)._value.reshape(-1, 3, 3)
        running.setPositions((positions + fixed - centers(positions)).reshape(-1, 3))
        running.setVelocities((velocities - centers(velocities)).reshape(-1, 3))


def symmetry_axes(positions: np.ndarray) -> np.ndarray:
    """Unit vectors along the dipoles, `[molecules, 3]`."""
    oxygen, *hydrogens = positions.reshape(-1, 3, 3).swapaxes(0, 1)
    axes = sum(hydrogens) - 2 * oxygen
    return axes / np.linalg.norm(axes, axis=1)[:, None]


def correlation(axes: np.ndarray) -> np.ndarray:
    """Mean cosine between the axes of a molecule at two times, by the number of samples between them."""
    return np.array(
        [
            np.einsum("tmc,tmc->", axes[lag:], axes[: len(axes) - lag]) / axes[lag:, :, 0].size
            for lag in range(len(axes))
        ]
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Forces of water at fixed centers of mass.")
    parser.add_argument("reference", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--state", default="T300-d1.00")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--samples", type=int, default=48, help="of the orientations, for each frame")
    parser.add_argument("--anneal", type=float, default=0.0, help="ps of cooling from 1000 K before each sample")
    parser.add_argument("--interval", type=float, default=1.0, help="ps between samples")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="MDAnalysis")
    rows = json.loads((options.reference / "state_points.json").read_text())
    (row,) = (r for r in rows if r["name"] == options.state)
    topology = options.reference / f"water-{row['molecules']}.pdb"
    source = MDAnalysis.Universe(str(topology), str(options.reference / f"{options.state}.trr"))
    length, kelvin = row["box_A"] / 10, row["temperature_K"]
    system = water(row["molecules"], length, hydrogen_mass=float(MASSES[1]))
    running = context(system, kelvin, TIME_STEP, options.seed)
    u, energies, parts, memory = universe(row["molecules"]), [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for k, index in enumerate(np.linspace(0, len(source.trajectory) - 1, options.frames).astype(int)):
            source.trajectory[index]
            fixed = centers(source.atoms.positions.astype(np.float64) / 10)
            file = Path(folder) / f"{k}.trr"
            with MDAnalysis.Writer(str(file), n_atoms=len(u.atoms)) as writer:
                whole = source.atoms.positions.astype(np.float64) / 10
                running.setPositions(whole)
                running.setVelocitiesToTemperature(kelvin, options.seed + k)
                axes = []
                for sample in range(options.samples):
                    if options.anneal:
                        random = start(row["molecules"], length, options.seed + options.samples * k + sample)
                        running.setPositions((random.reshape(-1, 3, 3) + fixed - centers(random)).reshape(-1, 3))
                        running.setVelocitiesToTemperature(HOT, options.seed + sample)
                        turn(running, fixed, options.anneal, (HOT, kelvin))
                    turn(running, fixed, options.interval, (kelvin, kelvin))
                    positions, forces, energy = positions_and_forces(running)
                    u.atoms.positions, u.atoms.forces = 10 * positions, forces / 10
                    u.dimensions = [10 * length] * 3 + [90.0] * 3
                    u.trajectory.ts.time, u.trajectory.ts.frame = float(sample), sample
                    writer.write(u.atoms)
                    energies.append(energy / row["molecules"])
                    axes.append(symmetry_axes(positions))
            memory.append(correlation(np.array(axes)))
            part = map_trajectory(file, topology=topology, temperature=kelvin)
            parts.append(replace(part, structures=tuple(replace(s, group=f"frame-{index}") for s in part.structures)))
            print(f"frame {index}: {np.mean(energies[-options.samples :]):.2f} kJ/mol", flush=True)
    data, _ = join_datasets(parts, [str(k) for k in range(len(parts))])
    write_dataset(options.out, data)
    each = np.reshape(energies, (options.frames, options.samples)).mean(1)
    error = each.std(ddof=1) / len(each) ** 0.5
    print(f"potential energy {each.mean():.2f} ± {error:.2f} kJ/mol, reference {row['potential_kJ_mol']:.2f}")
    found = np.mean(memory, axis=0)
    for lag in (1, options.samples // 4, options.samples // 2, options.samples - 1):
        print(f"correlation of the dipoles after {lag * options.interval:g} ps: {found[lag]:.3f}")
    for part in (part for part in (4, 2, 1) if options.samples // part > 1):
        first = [k for k in range(len(data)) if k % options.samples < options.samples // part]
        time = options.interval * (options.samples // part)
        print(f"variance of the forces at fixed centers, {time:g} ps: {force_noise(data[first])} (eV/Å)²")


if __name__ == "__main__":
    main()
