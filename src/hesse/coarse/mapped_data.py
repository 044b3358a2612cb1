"""Data sets of beads from all-atom trajectories."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.coarse.atom_frames import AtomFrame, Trajectory
from hesse.coarse.bead_mapping import BeadMapping, map_molecules
from hesse.coarse.open_trajectory import open_trajectory
from hesse.coarse.state_points import StatePoint, check_state_points, density_of
from hesse.coarse.wholeness import MoleculeTrees
from hesse.datasets import Dataset
from hesse.errors import GeometryError, MissingLabelError, RequestError, check_numbers, check_whole_numbers
from hesse.runtime.progress import track
from hesse.structures import BEAD_OVERLAP, Properties, Structure, find_neighbors, species_names

__all__ = ["describe_beads", "map_trajectory"]

_SAME_CELL: Final = 1e-4
"""Relative; cells that differ by less are the same."""


def map_trajectory(
    source: Any,
    mapping: BeadMapping | None = None,
    *,
    temperature: float,
    start: int = 0,
    stop: int | None = None,
    step: int = 1,
    variable_cell: bool = False,
    allow_overlap: bool = False,
    blocks: int = 10,
    tag: str | None = None,
    quiet: bool = True,
    **options: Any,
) -> Dataset:
    """Map the frames of an all-atom simulation at one state point to beads.

    Args:
        source: see `open_trajectory`.
        mapping: which atoms the beads are made of; by default one bead for each molecule, at its center of mass.
        temperature: K, of the simulation.
        start: index of the first frame to map.
        stop: end of the range, exclusive; None for the last frame.
        step: 2 for every second frame.
        variable_cell: also if the cell changes along the trajectory (constant pressure).
        allow_overlap: also if beads come closer to each other than 0.5 Å.
        blocks: number of groups of consecutive frames, which stay together when data are split: neighboring frames are
            alike.
        tag: tag of the frames; by default the state point, with the mean density.
        quiet: no progress on standard error.
        **options: of `open_trajectory`.

    Returns:
        Beads with positions (Å; molecules are whole, their centers in the cell), forces (eV/Å), masses, cell and tag;
        and, if all frames have Hessian-vector products along displacements of whole beads, those between the beads,
        which `curvature_labels` makes labels of.

    Raises:
        MissingLabelError: frames without forces.
        GeometryError: a cell that changes without `variable_cell`, overlapping beads, or molecules that cannot be made
            whole.
        RequestError: no frames, or what `open_trajectory` and `map_molecules` raise.
    """
    check_numbers(temperature=temperature)
    StatePoint(temperature)  # refuses other temperatures before any work
    check_whole_numbers(start=start, step=step, blocks=blocks)
    trajectory = open_trajectory(source, **options)
    count = len(range(len(trajectory))[start:stop:step])
    if not count:
        end = "on" if stop is None else f"up to before {stop}"
        n = len(trajectory)
        raise RequestError(f"{trajectory.source}: no frames from {start} {end}: it has {n}, numbered 0 to {n - 1}")
    mapping = mapping or map_molecules(trajectory.topology)
    if mapping.position_weights.shape[1] != len(trajectory.topology):
        raise RequestError(
            f"{trajectory.source} has {len(trajectory.topology)} atoms, the mapping is of "
            f"{mapping.position_weights.shape[1]}"
        )
    mapper = _FrameMapper(trajectory, mapping, variable_cell=variable_cell, allow_overlap=allow_overlap)
    structures, forces, times, curvature = [], [], [], []
    stem = Path(trajectory.source.split(",")[0]).stem.replace("/", "_")
    with track("map", count, quiet=quiet) as advance:
        for k, frame in enumerate(trajectory.frames(start, stop, step)):
            positions, force = mapper.map(frame, start + k * step)
            structures.append(
                Structure(
                    mapping.numbers,
                    positions,
                    id=f"{stem}/{start + k * step:06d}",
                    cell=frame.cell,
                    pbc=frame.pbc,
                    masses=mapping.masses,
                )
            )
            forces.append(force)
            times.append(frame.time)
            curvature.append(mapper.curvature(frame, start + k * step))
            advance()
    densities = [density for s in structures if (density := density_of(s)) is not None]
    point = StatePoint(temperature, float(np.mean(densities)) if densities else None)
    name = str(point) if tag is None else tag
    size = -(-count // max(1, blocks))
    structures = [replace(s, tag=name, group=f"{stem} {name} block {k // size}") for k, s in enumerate(structures)]
    labels = Properties(n_atoms=torch.full((count,), len(mapping)), forces=torch.from_numpy(np.concatenate(forces)))
    pairs = [pair for pair in curvature if pair is not None]
    if len(pairs) == count and len({len(directions) for directions, _ in pairs}) == 1:
        probes, products = (torch.from_numpy(np.concatenate([pair[k] for pair in pairs], axis=1)) for k in (0, 1))
        labels = labels.replace(probes=probes, hvp=products)
    metadata = {
        "mapping": mapping.description,
        "molecules": json.dumps(_kinds_of(mapping)),
        "temperature": f"{temperature:.10g} K",
        "mapped_from": trajectory.source,
    }
    if all(time is not None for time in times) and count > 1:
        metadata["frame_time"] = f"{float(np.median(np.diff(np.array(times, dtype=float)))):.6g} ps"
    return Dataset(tuple(structures), labels, metadata=metadata)


def _kinds_of(mapping: BeadMapping) -> list[list[str]]:
    """Types of the beads of each kind of molecule."""
    beads: dict[int, list[str]] = {}
    for molecule, name in zip(mapping.molecules.tolist(), species_names(mapping.numbers), strict=True):
        beads.setdefault(molecule, []).append(name)
    return [list(kind) for kind in dict.fromkeys(map(tuple, beads.values()))]


class _FrameMapper:
    """Maps frames and checks them."""

    def __init__(
        self, trajectory: Trajectory, mapping: BeadMapping, *, variable_cell: bool, allow_overlap: bool
    ) -> None:
        self.trajectory, self.mapping = trajectory, mapping
        self.variable_cell, self.allow_overlap = variable_cell, allow_overlap
        self.trees: MoleculeTrees | None = None
        self.first_cell: Float[Array, "3 3"] | None = None
        self.n_lost = len(mapping.lost_atoms())

    def map(self, frame: AtomFrame, index: int) -> tuple[Float[Array, "beads 3"], Float[Array, "beads 3"]]:
        """Positions and forces of the beads. Raises MissingLabelError and GeometryError as `map_trajectory` does."""
        where = f"{self.trajectory.source}: frame {index}"
        if frame.forces is None:
            raise MissingLabelError(
                f"{where} has no forces, which the model is matched to. Write them with the trajectory (GROMACS: "
                "nstfout and a .trr file; LAMMPS: fx fy fz in dump custom; OpenMM: a reporter with forces), or compute "
                "them for these frames (a rerun)"
            )
        for name, values in (("positions", frame.positions), ("forces", frame.forces)):
            if not np.isfinite(values).all():
                raise GeometryError(f"{where}: {name} that are not finite numbers")
        self._check_cell(frame, where)
        if self.trees is None:
            self.trees = MoleculeTrees(self.trajectory.topology, frame)
        positions = self.mapping.positions(self.trees.whole(frame, where))
        positions = self._into_cell(positions, frame)
        if not self.allow_overlap:
            self._check_overlap(positions, frame, where)
        return positions, self.mapping.forces(frame.forces)

    def curvature(
        self, frame: AtomFrame, index: int
    ) -> tuple[Float[Array, "probes beads 3"], Float[Array, "probes beads 3"]] | None:
        """Directions of the beads and products between them; None for a frame without. Raises RequestError for
        directions that do not move whole beads."""
        if frame.probes is None or frame.hvps is None:
            return None
        directions = np.stack([self.mapping.positions(probe) for probe in frame.probes])
        moved = np.stack([self.mapping.displacements(direction) for direction in directions])
        scale = max(float(np.abs(frame.probes).max()), 1e-12)
        if np.abs(moved - frame.probes).max() > 1e-5 * scale:
            raise RequestError(
                f"{self.trajectory.source}: frame {index}: the directions of its Hessian-vector products deform beads. "
                "Products between beads need directions that move beads as a whole: mapping.displacements(directions)"
            )
        return directions, np.stack([self.mapping.forces(product) for product in frame.hvps])

    def _check_cell(self, frame: AtomFrame, where: str) -> None:
        if self.first_cell is None:
            self.first_cell = frame.cell
        scale = max(float(np.abs(self.first_cell).max()), 1e-9)
        change = float(np.abs(frame.cell - self.first_cell).max()) / scale
        if change > _SAME_CELL and not self.variable_cell:
            lengths = [np.round(np.linalg.norm(cell, axis=1), 3).tolist() for cell in (self.first_cell, frame.cell)]
            raise GeometryError(
                f"{where}: the cell is {lengths[1]} Å, it was {lengths[0]} Å at first. If the simulation had constant "
                "pressure, say so (variable_cell, --variable-cell): its density is then the mean"
            )

    def _into_cell(self, positions: Float[Array, "beads 3"], frame: AtomFrame) -> Float[Array, "beads 3"]:
        """Shift whole molecules so that the mean position of their beads is inside the cell."""
        pbc = np.asarray(frame.pbc)
        if not pbc.any():
            return positions
        full = np.where(pbc[:, None], frame.cell, np.eye(3))
        _, owner, counts = np.unique(self.mapping.molecules, return_inverse=True, return_counts=True)
        centers = np.zeros((len(counts), 3))
        np.add.at(centers, owner, positions)
        shifts = np.floor(centers / counts[:, None] @ np.linalg.inv(full)) * pbc
        return np.asarray(positions - (shifts @ full)[owner])

    def _check_overlap(self, positions: Float[Array, "beads 3"], frame: AtomFrame, where: str) -> None:
        pairs = find_neighbors(positions, frame.cell, frame.pbc, BEAD_OVERLAP)
        if len(pairs.distances):
            k = int(pairs.distances.argmin())
            i, j = int(pairs.centers[k]), int(pairs.neighbors[k])
            names = species_names(self.mapping.numbers[[i, j]])
            raise GeometryError(
                f"{where}: beads {i} ({names[0]}) and {j} ({names[1]}) are {pairs.distances[k]:.3g} Å apart. Are the "
                "molecules those of the topology, and is the length unit right? (allow_overlap, --allow-overlap)"
            )


def describe_beads(dataset: Dataset) -> list[tuple[str, str]]:
    """The card of mapped data: what a reader of the file wants to know first.

    Args:
        dataset: beads with forces.

    Returns:
        Rows of names and texts.
    """
    structures = dataset.structures
    check_state_points(structures, dataset.source or "the data")
    numbers = np.concatenate([s.numbers for s in structures])
    masses = np.concatenate([s.atomic_masses for s in structures])
    rows = [("frames", str(len(structures)))]
    first = structures[0]
    names, counts = np.unique(species_names(first.numbers), return_counts=True)
    for name, count in zip(names.tolist(), counts.tolist(), strict=True):
        of_type = [n == name for n in species_names(first.numbers)]
        rows.append((f"beads {name}", f"{count} in the first frame, {first.atomic_masses[of_type].mean():.3f} u each"))
    for tag, frames in Counter(s.tag for s in structures).items():
        cell, periodic = next((s.cell, all(s.pbc)) for s in structures if s.tag == tag)
        lengths = " x ".join(f"{x:.2f}" for x in np.linalg.norm(cell, axis=1))
        size = f"cell {lengths} Å" if periodic else "no periodic cell: dynamics, priors and g(r) of beads need one"
        rows.append((f"state point {tag or '(no tag)'}", f"{frames} frames, {size}"))
    if dataset.labels.forces is not None:
        forces = dataset.labels.forces.numpy()
        for number, name in zip(np.unique(numbers).tolist(), species_names(np.unique(numbers)), strict=True):
            rms = float(np.sqrt((forces[numbers == number] ** 2).mean()))
            rows.append((f"force of {name}", f"{rms:.4f} eV/Å (RMS of a component)"))
        sums = np.add.reduceat(forces, np.cumsum([0, *map(len, structures)])[:-1], axis=0)
        rows.append(("net force", f"{float(np.sqrt((sums**2).mean())):.2g} eV/Å (RMS over frames)"))
    closest = min(_closest(s) for s in structures[:: max(1, len(structures) // 50)])
    rows.append(("closest beads", f"{closest:.2f} Å"))
    rows.append(("mass", f"{masses[: len(first)].sum():.2f} u in the first frame"))
    rows += [
        (key, dataset.metadata[key]) for key in ("mapping", "frame_time", "mapped_from") if key in dataset.metadata
    ]
    return rows


def _closest(structure: Structure) -> float:
    for cutoff in (4.0, 8.0, 16.0):
        pairs = find_neighbors(structure.positions, structure.cell, structure.pbc, cutoff)
        if len(pairs.distances):
            return float(pairs.distances.min())
    return np.inf
