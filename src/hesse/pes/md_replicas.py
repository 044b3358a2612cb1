"""Molecular dynamics of many replicas (structures times seeds), each until it fails or its time is over.

Replicas move together, in one evaluation of forces per step for potentials. They are taken up and dismissed at the end
of blocks of 200 steps, so that the batch stays full. Velocities and noise of a replica are functions of its seed, the
id of its structure and the step: other replicas do not change them. (Rounding in a batch of another composition may,
which in a chaotic system changes trajectories but not their statistics.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray as Array
from torch import Tensor

from hesse.curvature import CompiledEvaluation
from hesse.engines import Engine, PotentialEngine
from hesse.pes.md_failures import Failure, FailureMonitor, FailureReason
from hesse.pes.md_forces import replica_forces
from hesse.pes.md_integrators import MovingReplicas, integrate_step, remove_drift
from hesse.pes.md_settings import ReplicaSettings
from hesse.potential import dtype_and_device
from hesse.structures import Structure, rng_key
from hesse.units import BOLTZMANN, FEMTOSECOND

__all__ = [
    "BLOCK",
    "Replica",
    "ReplicaRun",
    "Trajectory",
    "advance_replicas",
    "replica_row",
]

BLOCK = 200
"""Steps between changes of the batch; a multiple of the window of the failure criterion."""
SAMPLE_STRIDE = 10
"""Steps between samples of energies and temperatures."""
MAX_ATOMS = 1024
"""Largest number of atoms in a batch."""


@dataclass(frozen=True, eq=False)
class Replica:
    """One run to do.

    Attributes:
        start: the geometry at the start.
        seed: of velocities and noise, together with the id of the structure.
    """

    start: Structure
    seed: int

    @property
    def id(self) -> str:
        """`{structure}/seed-{seed}`."""
        return f"{self.start.id}/seed-{self.seed}"

    def rng(self, block: int) -> np.random.Generator:
        """The random numbers of a block of steps; block -1 is for the velocities.

        Args:
            block: number of the block.

        Returns:
            The generator.
        """
        return np.random.default_rng([self.seed, rng_key(self.start.id), block + 1])


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Snapshots of a replica.

    Attributes:
        steps: numbers of their steps.
        positions: Å.
        energies: eV.
        forces: eV/Å.
    """

    steps: Int[Array, "k"]
    positions: Float[Array, "k n 3"]
    energies: Float[Array, "k"]
    forces: Float[Array, "k n 3"]


@dataclass(eq=False)
class ReplicaRun:
    """The state of a replica between two blocks, and what has happened to it.

    Attributes:
        replica: the run.
        step: steps done.
        positions: Å.
        velocities: Å per internal unit of time.
        heat: energy that the thermostat has brought, eV.
        failure: why it has failed, if it has.
        samples: of every 10th step: time (fs), conserved energy (eV), temperature (K).
        snapshots: step, positions, energy and forces of each.
    """

    replica: Replica
    step: int
    positions: Float[Array, "n 3"]
    velocities: Float[Array, "n 3"]
    heat: float = 0.0
    failure: Failure | None = None
    samples: list[tuple[float, float, float]] = field(default_factory=list)
    snapshots: list[tuple[int, Float[Array, "n 3"], float, Float[Array, "n 3"]]] = field(default_factory=list)

    @classmethod
    def begin(cls, replica: Replica, settings: ReplicaSettings) -> ReplicaRun:
        """Draw the velocities of a replica.

        Args:
            replica: the run.
            settings: for the temperature.

        Returns:
            The state before the first step.
        """
        masses = np.array(replica.start.atomic_masses)[:, None]  # own masses are read-only
        width = np.sqrt(BOLTZMANN * settings.target(0) / masses)
        velocities = width * replica.rng(-1).standard_normal((len(masses), 3))
        one = torch.zeros(len(masses), dtype=torch.int64)
        still = remove_drift(torch.from_numpy(velocities), torch.from_numpy(masses), one, 1)
        return cls(replica, 0, np.array(replica.start.positions), still.numpy())

    def trajectory(self) -> Trajectory:
        """The snapshots as arrays.

        Returns:
            The snapshots.
        """
        n = len(self.replica.start)
        steps, positions, energies, forces = zip(*self.snapshots, strict=True) if self.snapshots else ((),) * 4
        return Trajectory(
            np.array(steps, dtype=np.int64),
            np.array(positions, dtype=np.float64).reshape(-1, n, 3),
            np.array(energies, dtype=np.float64),
            np.array(forces, dtype=np.float64).reshape(-1, n, 3),
        )

    def row(self, settings: ReplicaSettings) -> dict[str, Any]:
        """The row of the replica in a table.

        Args:
            settings: the settings of the run.

        Returns:
            JSON values by name: time in ps, temperatures in K, drift in eV/ps.
        """
        start = self.replica.start
        samples = np.array(self.samples).reshape(-1, 3)
        row = replica_row(start.id, self.replica.seed, self.failure)
        if self.failure is not None and not self.failure.reason.counted:
            return row
        row["time"] = self.step * settings.step_length / 1000.0
        row["steps"] = self.step
        row["temperature"] = settings.target(self.step)
        if len(samples):
            row["mean_temperature"] = float(samples[:, 2].mean())
        if len(samples) >= 3:
            centered = samples[:, 0] - samples[:, 0].mean()
            row["energy_drift"] = float(centered @ samples[:, 1] / (centered @ centered) * 1000.0)
        return row


def replica_row(structure_id: str, seed: int, failure: Failure | None) -> dict[str, Any]:
    """The columns that every replica has.

    Args:
        structure_id: id of its structure.
        seed: its seed.
        failure: why it failed, if it did.

    Returns:
        JSON values by name.
    """
    return {
        "id": f"{structure_id}/seed-{seed}",
        "structure": structure_id,
        "seed": seed,
        "survived": failure is None,
        "reason": None if failure is None else str(failure.reason),
        "detail": "" if failure is None else failure.detail,
        "time": None if failure is not None and not failure.reason.counted else 0.0,
        "steps": 0,
        "temperature": None,
        "mean_temperature": None,
        "energy_drift": None,
    }


def advance_replicas(
    runs: Sequence[ReplicaRun],
    engine: Engine,
    settings: ReplicaSettings,
    *,
    on_finished: Callable[[ReplicaRun], None],
    on_block: Callable[[Sequence[ReplicaRun], int], bool] = lambda live, steps: True,
    stop: Callable[[], bool] = lambda: False,
    max_atoms: int = MAX_ATOMS,
) -> None:
    """Move replicas until each has failed or its time is over.

    Args:
        runs: the replicas, new ones or those of an interrupted call.
        engine: a potential moves all of a batch in one pass.
        settings: the settings of all.
        on_finished: called with each replica at the end of its last block.
        on_block: called after each block with the replicas in motion and the number of replica steps of the block;
            False ends the call.
        stop: asked before each step; True ends the call in the middle of a block, whose replicas are then in no state
            to go on from (earlier copies are).
        max_atoms: size of the batch.
    """
    pending = deque(runs)
    live: list[ReplicaRun] = []
    group: _Group | None = None
    single = not isinstance(engine, PotentialEngine)
    compiled = engine.compiled if settings.compile and isinstance(engine, PotentialEngine) else None
    while live or pending:
        n_live, n_atoms = len(live), sum(len(r.positions) for r in live)
        while pending and (not live or (not single and n_atoms + len(pending[0].positions) <= max_atoms)):
            live.append(pending.popleft())
            n_atoms += len(live[-1].positions)
        if group is None or len(live) > n_live:
            group = _Group(live, engine, settings, compiled)
        before = sum(run.step for run in live)
        if not group.advance(stop):
            return
        steps = sum(run.step for run in live) - before
        finished = [run for run in live if _is_finished(run, settings)]
        for run in finished:
            on_finished(run)
        if finished:
            live, group = [run for run in live if not _is_finished(run, settings)], None
        if not on_block([*live, *pending], steps):
            return


def _is_finished(run: ReplicaRun, settings: ReplicaSettings) -> bool:
    return run.failure is not None or run.step >= settings.n_steps


class _Group:
    """Replicas that move together."""

    def __init__(
        self,
        runs: Sequence[ReplicaRun],
        engine: Engine,
        settings: ReplicaSettings,
        compiled: CompiledEvaluation | None,
    ) -> None:
        self.runs, self.settings = list(runs), settings
        potential = engine.potential if isinstance(engine, PotentialEngine) else None
        self.device = torch.device("cpu") if potential is None else dtype_and_device(potential)[1]
        starts = [run.replica.start for run in self.runs]
        self.n_atoms = [len(s) for s in starts]
        moved = [run.replica.start.with_positions(run.positions, id=run.replica.start.id) for run in self.runs]
        self.forces = replica_forces(engine, moved, compiled)
        self.monitor = FailureMonitor(settings.criterion, starts, self.device, contacts=settings.contact_distances)
        positions = self._tensor(np.concatenate([run.positions for run in self.runs]))
        energies, forces = self.forces(positions)
        self.state = MovingReplicas(
            positions,
            self._tensor(np.concatenate([run.velocities for run in self.runs])),
            forces,
            energies,
            self._tensor(np.concatenate([s.atomic_masses for s in starts]))[:, None],
            torch.repeat_interleave(torch.tensor(self.n_atoms)).to(self.device),
            self._tensor(np.array([run.heat for run in self.runs])),
        )
        self.freedom = self._tensor(3.0 * np.array(self.n_atoms) - 3.0)
        self.active = [True] * len(self.runs)
        self._fail_at_start()

    def _tensor(self, values: Float[Array, "*n"]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self.device)

    def _atoms(self, i: int) -> slice:
        start = sum(self.n_atoms[:i])
        return slice(start, start + self.n_atoms[i])

    def _fail_at_start(self) -> None:
        bad = self.monitor.not_finite(self.state.positions, self.state.energies, self.state.forces)
        for i, failure in bad.items():
            run = self.runs[i]
            reason = FailureReason.NOT_STARTED if run.step == 0 else failure.reason
            self._stop(i, Failure(reason, self.forces.errors.get(i, failure.detail)))

    def advance(self, stop: Callable[[], bool]) -> bool:
        """One block of steps, less where all replicas end before. Returns False if it was abandoned."""
        settings, state = self.settings, self.state
        langevin = settings.ensemble == "langevin"
        noise = self._noise() if langevin else None
        dt = settings.step_length * FEMTOSECOND
        targets: list[float] = []
        temperatures: float | Tensor = 0.0
        for k in range(BLOCK):
            self._record()
            if not any(self.active):
                break
            if stop():
                return False
            now = [settings.target(run.step + 1) for run in self.runs]
            if langevin and now != targets:
                targets = now
                temperatures = self._tensor(np.array(targets))[state.index][:, None]
            integrate_step(
                state,
                self.forces,
                dt,
                friction=settings.damping / FEMTOSECOND,
                temperature=temperatures,
                noise=None if noise is None else noise[k],
            )
            self._count_step(k + 1)
        self._record()
        self._write_back()
        return True

    def _noise(self) -> Float[Tensor, "steps atoms 3"]:
        blocks = [
            run.replica.rng(run.step // BLOCK).standard_normal((BLOCK, n, 3))
            for run, n in zip(self.runs, self.n_atoms, strict=True)
        ]
        return torch.from_numpy(np.concatenate(blocks, axis=1)).to(self.device)

    def _count_step(self, k: int) -> None:
        state = self.state
        for run, active in zip(self.runs, self.active, strict=True):
            run.step += active
        # Replicas join at multiples of the block only, so that k counts the steps of the windows of all of them.
        for i, failure in self.monitor.check(k, state.positions, state.energies, state.forces).items():
            if not self.active[i]:
                continue
            if i in self.forces.errors:
                known = failure.reason is FailureReason.NOT_FINITE
                reason = FailureReason.ENGINE_FAILED if known else failure.reason
                failure = Failure(reason, self.forces.errors[i])
            self._stop(i, failure)
        for i, run in enumerate(self.runs):
            if self.active[i] and run.step >= self.settings.n_steps:
                self._record([i])
                self._stop(i, None)

    def _record(self, replicas: Sequence[int] | None = None) -> None:
        """Samples and snapshots that are due and not taken yet (a block begins where the last one ended)."""
        stride = self.settings.stride
        live = [i for i, active in enumerate(self.active) if active] if replicas is None else replicas
        self._sample([i for i in live if self.runs[i].step % SAMPLE_STRIDE == 0])
        for i in live if stride else ():
            if self.runs[i].step % stride == 0:
                self._snapshot(i)

    def _sample(self, replicas: Sequence[int]) -> None:
        if not replicas:
            return
        state = self.state
        kinetic = state.kinetic_energies()
        conserved = (state.energies + kinetic - state.heat).cpu().tolist()
        temperatures = (2.0 * kinetic / (BOLTZMANN * self.freedom)).cpu().tolist()
        for i in replicas:
            run = self.runs[i]
            time = run.step * self.settings.step_length
            if not run.samples or run.samples[-1][0] < time:
                run.samples.append((time, conserved[i], temperatures[i]))

    def _snapshot(self, i: int) -> None:
        atoms, run, state = self._atoms(i), self.runs[i], self.state
        if run.snapshots and run.snapshots[-1][0] == run.step:
            return
        values = (state.positions[atoms].cpu().numpy().copy(), float(state.energies[i]))
        run.snapshots.append((run.step, *values, state.forces[atoms].cpu().numpy().copy()))

    def _stop(self, i: int, failure: Failure | None) -> None:
        """The end of a replica. Until the end of the block its atoms stand for it at the start, where forces are
        harmless."""
        run, atoms = self.runs[i], self._atoms(i)
        if failure is not None and self.settings.stride and run.step and failure.reason.counted:
            positions = self.state.positions[atoms]
            if bool(torch.isfinite(positions).all() & torch.isfinite(self.state.forces[atoms]).all()):
                self._snapshot(i)
        run.failure = failure
        self.active[i] = False
        run.positions = self.state.positions[atoms].cpu().numpy().copy()
        self.state.positions[atoms] = self._tensor(run.replica.start.positions)
        self.state.velocities[atoms] = 0.0
        self.state.forces[atoms] = 0.0

    def _write_back(self) -> None:
        positions, velocities = self.state.positions.cpu().numpy(), self.state.velocities.cpu().numpy()
        for i, run in enumerate(self.runs):
            if self.active[i]:
                atoms = self._atoms(i)
                run.positions, run.velocities = positions[atoms].copy(), velocities[atoms].copy()
                run.heat = float(self.state.heat[i])
