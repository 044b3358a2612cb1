"""Langevin dynamics of periodic boxes of beads, at the temperatures of their state points, and their pressure.

The integrator, neighbor lists and the folder that lets a run continue are those of `hesse.sampling.run_replicas`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.coarse.bead_contacts import closest_contacts
from hesse.coarse.state_points import StatePoint
from hesse.datasets import Dataset, StructuresLike, as_structures, join_datasets, with_metadata
from hesse.engines import EngineLike, as_engine, compute
from hesse.errors import ExecutionError, GeometryError, RequestError, check_whole_numbers
from hesse.pes import ReplicaSettings
from hesse.runtime.short_repr import ShortRepr
from hesse.sampling import run_replicas
from hesse.sampling.replica_runs import ReplicaResult
from hesse.sampling.replica_store import store_path
from hesse.structures import Structure
from hesse.units import BOLTZMANN

__all__ = ["BeadRun", "repeated", "run_beads", "virial_pressures"]

BAR = 1.602176634e6
"""bar per eV/Å³."""


@dataclass(frozen=True, eq=False, repr=False)
class BeadRun(ShortRepr):
    """The result of dynamics of beads.

    Attributes:
        rows: one per run, see `hesse.sampling.ReplicaResult`; `state_point` is added.
        dataset: the frames, with the state point as tag; positions are continuous, not wrapped into the cell. None
            without any.
        bead_steps_per_second: number of beads times steps per second of dynamics, without compilation; None if an
            earlier call had done a part of the work.
    """

    rows: tuple[dict[str, Any], ...]
    dataset: Dataset | None
    bead_steps_per_second: float | None

    def to_ase(self) -> list[Atoms]:
        """Convert the frames to ASE.

        Returns:
            Boxes whose calculators hold energies (eV) and forces (eV/Å).
        """
        return [] if self.dataset is None else self.dataset.to_ase()


def run_beads(
    starts: StructuresLike,
    engine: EngineLike,
    output: str | Path | None = None,
    settings: ReplicaSettings | None = None,
    *,
    temperature: float | None = None,
    state_points: Sequence[str] | None = None,
    repeat: int = 1,
    seeds: int | Sequence[int] = 1,
    quiet: bool = False,
    **options: Any,
) -> BeadRun:
    """Run Langevin dynamics of beads from the last frame of each state point.

    Two beads collide, which ends a run, below half the closest distance that their types have in `starts`, unless
    `failure` is another criterion.

    Args:
        starts: mapped frames, or any periodic boxes of beads: a data set, its file, or a list of structures.
        engine: the model.
        output: the output file of the caller: runs are kept in the folder `OUTPUT.replicas`, and the same call
            continues there. None keeps nothing.
        settings: length, time step (by default 4 fs), friction (by default 0.01 / fs), stride. No relaxation, constant
            temperature.
        temperature: K; None: that of each state point.
        state_points: tags of those to run; None for all.
        repeat: the box is repeated so often along each lattice vector.
        seeds: how many runs of each state point (0, 1, 2, ...), or the seeds themselves.
        quiet: no progress.
        **options: the fields of `ReplicaSettings` in place of `settings`.

    Returns:
        Rows, frames and speed. A run that failed has a `reason` in its row.

    Raises:
        RequestError: no such state point, or one without a temperature.
        GeometryError: a box that is not periodic, or beads that overlap.
        ExecutionError: no run could be started.
        InterruptedRunError: SIGINT or SIGTERM; with an output, the same call continues.
    """
    check_whole_numbers(repeat=repeat)
    if repeat < 1:
        raise RequestError(f"repeat: expected a whole number of at least 1, got {repeat}")
    frames = as_structures(starts)
    boxes = _chosen(frames, state_points)
    kelvins = {tag: _temperature(tag, temperature) for tag in boxes}
    engine = as_engine(engine)
    fixed = {"relax": False, "ensemble": "langevin", "contacts": closest_contacts(frames)}
    defaults = {} if settings is not None else {"time_step": 4.0, "friction": 0.01}
    base = (settings or ReplicaSettings(**(defaults | options))).model_dump() | fixed
    fresh = output is None or not store_path(Path(output)).exists()
    rows: list[dict[str, Any]] = []
    parts: list[Dataset] = []
    bead_steps, seconds = 0, 0.0
    for tag, box in boxes.items():
        start = replace(repeated(box, repeat), id=_run_name(tag, box), tag=tag)
        result = run_replicas(
            [start], engine, output, ReplicaSettings(**base | {"temperature": kelvins[tag]}), seeds=seeds, quiet=quiet
        )
        seconds += result.seconds
        bead_steps += len(start) * sum(row["steps"] for row in result.rows)
        rows += [{**row, "state_point": tag} for row in result.rows]
        if result.dataset is not None:
            parts.append(_tagged(result, tag))
    if all(row["time"] is None for row in rows):
        raise ExecutionError(f"no run was started: {rows[0]['reason']}: {rows[0]['detail']}")
    used = ReplicaSettings(**base | {"temperature": 300.0})
    dataset = None
    if parts:
        joined, _ = join_datasets(parts, [_run_name(part.structures[0].tag, part.structures[0]) for part in parts])
        dataset = with_metadata(joined, frame_time=f"{used.stride * used.step_length / 1000:g} ps")
        failed = [row["id"] for row in rows if not row["survived"] and row["time"] is not None]
        if failed:
            dataset = with_metadata(dataset, failed_runs="; ".join(failed))
    return BeadRun(tuple(rows), dataset, bead_steps / seconds if fresh and seconds > 0 else None)


def _chosen(frames: Sequence[Structure], state_points: Sequence[str] | None) -> dict[str, Structure]:
    """The last frame of each state point."""
    boxes = {structure.tag: structure for structure in frames}
    for structure in boxes.values():
        if not all(structure.pbc):
            raise GeometryError(f'structure "{structure.id}": dynamics of beads needs a box that is periodic')
    if state_points is None:
        return boxes
    missing = [tag for tag in state_points if tag not in boxes]
    if missing:
        raise RequestError(
            f'no state point "{missing[0]}": there are {", ".join(repr(t) for t in list(boxes)[:8]) or "none"}'
        )
    return {tag: boxes[tag] for tag in state_points}


def _temperature(tag: str, given: float | None) -> float:
    if given is not None:
        return given
    point = StatePoint.parse(tag)
    if point is None:
        raise RequestError(
            f'the temperature of "{tag or "frames without a tag"}" is not known: give one (temperature, K), or tags '
            f'such as "{StatePoint(300.0, 1.0)}"'
        )
    return point.temperature


def _run_name(tag: str, box: Structure) -> str:
    return tag.replace(" ", "-").replace("/", "-per-") or box.id.replace("/", "-")


def _tagged(result: ReplicaResult, tag: str) -> Dataset:
    """Frames with the state point as tag, in the group of their run."""
    assert result.dataset is not None
    structures = tuple(replace(s, tag=tag, group=s.id.rpartition("/")[0]) for s in result.dataset.structures)
    return replace(result.dataset, structures=structures)


def repeated(box: Structure, times: int) -> Structure:
    """A box repeated along each of its lattice vectors.

    Args:
        box: a periodic structure.
        times: how often.

    Returns:
        The larger box; a new id says so.
    """
    if times == 1:
        return box
    shifts = np.stack(np.meshgrid(*[np.arange(times)] * 3, indexing="ij"), -1).reshape(-1, 3) @ box.cell
    positions = (box.positions + shifts[:, None]).reshape(-1, 3)
    copies = len(shifts)
    return replace(
        box,
        numbers=np.tile(box.numbers, copies),
        positions=positions,
        cell=times * np.asarray(box.cell),
        masses=None if box.masses is None else np.tile(box.masses, copies),
        id=f"{box.id}-{times}x{times}x{times}",
    )


def virial_pressures(
    frames: StructuresLike, engine: EngineLike, *, temperature: float | None = None, chunk: int = 16
) -> Float[Array, "frames"]:
    """Pressures from the virial of a coarse model.

    A coarse potential is a free energy, which depends on density itself. The virial of its pair forces misses that
    dependence, so that this pressure is not that of the atoms: force matching does not fix it, and models that
    reproduce every distribution can be wrong by thousands of bar.

    Args:
        frames: boxes periodic in three directions.
        engine: the model.
        temperature: K; None: that of the state point of each frame.
        chunk: frames that are computed together.

    Returns:
        bar: `(N k T − V tr σ / 3) / V` with the stress σ.

    Raises:
        RequestError: the temperature of a frame is not known, or the engine has no stress.
    """
    structures, engine = as_structures(frames), as_engine(engine)
    pressures = []
    for first in range(0, len(structures), chunk):
        boxes = structures[first : first + chunk]
        stress = compute(boxes, engine, energy=False, stress=True).stress
        assert stress is not None
        for box, tensor in zip(boxes, stress.numpy(), strict=True):
            kinetic = len(box) * BOLTZMANN * _temperature(box.tag, temperature) / abs(np.linalg.det(box.cell))
            pressures.append(BAR * (kinetic - np.trace(tensor) / 3.0))
    return np.array(pressures)
