"""Small all-atom frames with molecules across boundaries, for the tests of the mapping."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hesse.datasets import Dataset
from hesse.structures import Properties, Structure

WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
CELL = np.array([[9.0, 0.0, 0.0], [1.5, 8.5, 0.0], [-1.0, 0.5, 9.5]])


def waters(frames: int = 3, *, wrapped: bool = True, seed: int = 0, cell: np.ndarray = CELL) -> Dataset:
    """Eight water molecules in a skewed cell, atom by atom in the cell if `wrapped`, with random forces."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), -1).reshape(-1, 3) / 2 + 0.02
    structures, forces = [], []
    for frame in range(frames):
        molecules = []
        for corner in grid:
            rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
            molecules.append(WATER @ rotation + (corner + 0.03 * rng.normal(size=3)) @ cell)
        positions = np.concatenate(molecules)
        if wrapped:
            positions = (positions @ np.linalg.inv(cell) % 1.0) @ cell
        structures.append(
            Structure(
                np.array([8, 1, 1] * len(grid)), positions, id=f"frame {frame}", cell=cell, pbc=(True, True, True)
            )
        )
        force = rng.normal(size=(len(positions), 3))
        forces.append(force - force.mean(0))
    labels = Properties(n_atoms=torch.full((frames,), 24), forces=torch.from_numpy(np.concatenate(forces)))
    return Dataset(tuple(structures), labels)


def write_dump(path: Path, dataset: Dataset, *, forces: bool = True, mass: bool = True, scramble: int = 0) -> None:
    """The frames as a LAMMPS dump in "real" units; molecules of three consecutive atoms, atoms in any order."""
    kcal = 0.0433641153087705
    lines = []
    for k, s in enumerate(dataset.structures):
        a, b, c = s.cell
        assert a[1] == a[2] == b[2] == 0
        xy, xz, yz = b[0], c[0], c[1]
        low = [min(0, xy, xz, xy + xz), min(0, yz), 0.0]
        high = [a[0] + max(0, xy, xz, xy + xz), b[1] + max(0, yz), c[2]]
        lines += ["ITEM: TIMESTEP", str(100 * k), "ITEM: NUMBER OF ATOMS", str(len(s))]
        lines += ["ITEM: BOX BOUNDS xy xz yz pp pp pp"]
        bounds = zip(low, high, (xy, xz, yz), strict=True)
        lines += [" ".join(repr(float(x)) for x in row) for row in bounds]
        lines += ["ITEM: ATOMS id mol type" + " mass" * mass + " x y z" + " fx fy fz" * forces]
        f = dataset.labels.forces[dataset.labels.atom_slice(k)].numpy() / kcal  # type: ignore[index]
        order = np.random.default_rng(scramble).permutation(len(s)) if scramble else range(len(s))
        for i in order:
            words: list[float] = [int(i) + 1, int(i) // 3 + 1, 1 if s.numbers[i] == 8 else 2]
            words += [15.999 if s.numbers[i] == 8 else 1.008] * mass
            words += [*map(float, s.positions[i])] + [*map(float, f[i])] * forces
            lines.append(" ".join(map(repr, words)))
    path.write_text("\n".join(lines) + "\n")
