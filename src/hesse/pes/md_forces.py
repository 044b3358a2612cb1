"""Energies and forces of many replicas at once, each a structure that moves: in one pass for potentials, one after the
other for other engines.

A replica that cannot be computed does not stop the others: its energy and forces are NaN and `errors` has the reason.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hesse.curvature import CompiledEvaluation, evaluate
from hesse.engines import Engine, PotentialEngine
from hesse.errors import CompilationError, HesseError, first_line
from hesse.pes.surface import CountedSurface
from hesse.potential import Potential, check_elements, dtype_and_device
from hesse.structures import Batch, Request, Structure, batch_from_pairs, find_neighbors, rng_key
from hesse.structures.pairs import squared_distances

__all__ = ["BatchedForces", "EngineForces", "ReplicaForces", "compile_forces", "replica_forces"]

SKIN = 1.0
"""Å; pairs are listed this far beyond the cutoff and searched again when an atom may have moved by half of it."""
MAX_JUMP = 5.0
"""Å; a replica with an atom that moved farther since its last neighbor search (a few steps before) has exploded."""

EnergiesAndForces = tuple[Float[Tensor, "replicas"], Float[Tensor, "atoms 3"]]


class ReplicaForces(ABC):
    """Energies and forces of replicas as a function of all their positions.

    Attributes:
        errors: reasons of replicas that failed in the last call, by index.
    """

    errors: dict[int, str]

    @abstractmethod
    def __call__(self, positions: Float[Tensor, "atoms 3"]) -> EnergiesAndForces:
        """Compute energies and forces.

        Args:
            positions: Å, float64, of all replicas, end to end.

        Returns:
            Energies (eV, `[replicas]`) and forces (eV/Å, `[atoms, 3]`), float64; NaN for replicas that failed.
        """


def replica_forces(
    engine: Engine, starts: Sequence[Structure], compiled: CompiledEvaluation | None = None
) -> ReplicaForces:
    """The forces of replicas with any engine.

    Args:
        engine: potentials are evaluated in one pass, other engines replica by replica.
        starts: the structure of each replica.
        compiled: compiled evaluation of a potential.

    Returns:
        The function of positions.

    Raises:
        UnknownElementError: an element that the potential does not have.
    """
    if isinstance(engine, PotentialEngine):
        return BatchedForces(engine.potential, starts, compiled=compiled)
    return EngineForces(engine, starts)


def compile_forces(engine: PotentialEngine, starts: Sequence[Structure], *, max_atoms: int) -> None:
    """Compute forces once with the compiled potential, which compiles it: seconds to minutes that are no dynamics.

    Args:
        engine: the potential.
        starts: the structure of each replica; those of the first batch are computed.
        max_atoms: size of a batch.

    Raises:
        CompilationError: the potential cannot be compiled.
    """
    sizes = np.cumsum([len(start) for start in starts])
    batch = starts[: max(1, int(np.searchsorted(sizes, max_atoms, side="right")))]
    positions = np.concatenate([start.positions for start in batch])
    device = dtype_and_device(engine.potential)[1]
    replica_forces(engine, batch, engine.compiled)(torch.tensor(positions, dtype=torch.float64, device=device))


@final
class EngineForces(ReplicaForces):
    """Forces of an engine that computes one structure at a time.

    Args:
        engine: any engine.
        starts: the structure of each replica.
    """

    def __init__(self, engine: Engine, starts: Sequence[Structure]) -> None:
        self.surfaces = [CountedSurface(engine, start) for start in starts]
        self.errors = {}

    def __call__(self, positions: Float[Tensor, "atoms 3"]) -> EnergiesAndForces:
        """See `ReplicaForces`."""
        self.errors = {}
        energies, forces = np.empty(len(self.surfaces)), np.empty(tuple(positions.shape))
        coordinates, first = positions.numpy(), 0
        for i, surface in enumerate(self.surfaces):
            atoms = slice(first, first + len(surface.structure))
            first = atoms.stop
            try:
                energies[i], gradient = surface.gradient(coordinates[atoms])
                forces[atoms] = -gradient
            except HesseError as error:
                self.errors[i] = first_line(error)
                energies[i], forces[atoms] = np.nan, np.nan
        return torch.from_numpy(energies), torch.from_numpy(forces)


@final
class BatchedForces(ReplicaForces):
    """Forces of a potential, all replicas in one pass, with Verlet neighbor lists (fixed cells).

    Args:
        potential: any potential; positions and results are on its device.
        starts: the structure of each replica.
        skin: see `SKIN`.
        compiled: compiled evaluation of the potential; None: plain.

    Attributes:
        n_builds: number of neighbor searches of single replicas so far.
    """

    def __init__(
        self,
        potential: Potential,
        starts: Sequence[Structure],
        skin: float = SKIN,
        *,
        compiled: CompiledEvaluation | None = None,
    ) -> None:
        for start in starts:
            check_elements(potential, start.numbers, where=f'structure "{start.id}"')
        self.potential, self.structures, self.skin = potential.eval(), list(starts), skin
        self.dtype, self.device = dtype_and_device(potential)
        self._properties = compiled or partial(evaluate, potential)
        self.errors, self.n_builds = {}, 0
        self._pairs = [self._search(s, s.positions) for s in self.structures]
        self._reference = torch.tensor(np.concatenate([s.positions for s in self.structures]), device=self.device)
        n_atoms = [len(s) for s in self.structures]
        self._n_atoms = torch.tensor(n_atoms, device=self.device)
        self._index = torch.repeat_interleave(torch.arange(len(n_atoms), device=self.device), self._n_atoms)
        self._numbers = torch.tensor(np.concatenate([s.numbers for s in self.structures]), device=self.device)
        self._cell = torch.tensor(np.stack([s.cell for s in self.structures]), device=self.device)
        self._pbc = torch.tensor([s.pbc for s in self.structures], device=self.device)
        self._keys = torch.tensor([rng_key(s.id) for s in self.structures], device=self.device)
        self._starts = (np.cumsum(n_atoms) - n_atoms).tolist()
        self._join()

    def _search(self, structure: Structure, positions: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Centers, neighbors (within the replica) and cell shifts up to cutoff + skin."""
        listed = find_neighbors(positions, structure.cell, structure.pbc, self.potential.cutoff + self.skin)
        self.n_builds += 1
        arrays = (listed.centers, listed.neighbors, listed.cell_shifts)
        centers, neighbors, shifts = (torch.from_numpy(a).to(self.device) for a in arrays)
        return centers, neighbors, shifts

    def _join(self) -> None:
        """The pairs of all replicas, end to end."""
        self._centers = torch.cat([p[0] + first for p, first in zip(self._pairs, self._starts, strict=True)])
        self._neighbors = torch.cat([p[1] + first for p, first in zip(self._pairs, self._starts, strict=True)])
        periodic = any(s.periodic for s in self.structures)
        self._shifts = torch.cat([p[2] for p in self._pairs]) if periodic else None
        vectors = [p[2].to(cell.dtype) @ cell for p, cell in zip(self._pairs, self._cell, strict=True)]
        self._translations = torch.cat(vectors) if periodic else None

    def __call__(self, positions: Float[Tensor, "atoms 3"]) -> EnergiesAndForces:
        """See `ReplicaForces`."""
        self.errors = {}
        lost = self._update(positions)
        if lost:
            positions = positions.clone()
            for i in lost:  # anything finite: the results of this replica are discarded
                atoms = self._atoms(i)
                positions[atoms] = self._reference[atoms]
        try:
            energies, forces = self._evaluate(self._batch(positions))
        except CompilationError:
            raise
        except (HesseError, RuntimeError, ValueError, ArithmeticError) as error:
            if len(self.structures) == 1:
                self.errors[0] = first_line(error)
                return torch.full((1,), torch.nan, dtype=torch.float64), torch.full_like(positions, torch.nan)
            energies, forces = self._one_by_one(positions)
        else:
            if len(self.structures) > 1 and not bool(torch.isfinite(energies.sum() + forces.sum())):
                # One NaN can spread: the backward pass multiplies it by zeros of other structures.
                energies, forces = self._one_by_one(positions)
        for i in lost:
            self.errors[i] = f"an atom moved by more than {MAX_JUMP:g} Å within a few steps"
            energies[i], forces[self._atoms(i)] = torch.nan, torch.nan
        return energies, forces

    def _one_by_one(self, positions: Float[Tensor, "atoms 3"]) -> EnergiesAndForces:
        """The replicas separately, after the evaluation of all of them failed: finds the ones that cause it. Their own
        neighbor lists are not used: they may be the cause."""
        energies, forces = [], []
        for i, structure in enumerate(self.structures):
            single = BatchedForces(self.potential, [structure], self.skin)
            energy, force = single(positions[self._atoms(i)])
            if 0 in single.errors:
                self.errors[i] = single.errors[0]
            energies.append(energy)
            forces.append(force)
        return torch.cat(energies), torch.cat(forces)

    def _atoms(self, i: int) -> slice:
        return slice(self._starts[i], self._starts[i] + len(self.structures[i]))

    def _update(self, positions: Float[Tensor, "atoms 3"]) -> list[int]:
        """Search the neighbors of replicas that have moved too far again. Returns replicas that have exploded."""
        moved = torch.linalg.vector_norm(positions - self._reference, dim=-1).nan_to_num(torch.inf, torch.inf)
        if float(moved.max()) <= 0.5 * self.skin:
            return []
        farthest = torch.zeros_like(self._cell[:, 0, 0]).scatter_reduce(0, self._index, moved, "amax")
        lost = []
        for i in torch.nonzero(farthest > 0.5 * self.skin)[:, 0].tolist():
            if float(farthest[i]) > MAX_JUMP:
                lost.append(i)
                continue
            atoms = self._atoms(i)
            self._reference[atoms] = positions[atoms]
            self._pairs[i] = self._search(self.structures[i], positions[atoms].cpu().numpy())
        self._join()
        return lost

    def _batch(self, positions: Float[Tensor, "atoms 3"]) -> Batch:
        """The batch with the pairs within the cutoff."""
        squared = squared_distances(positions, self._centers, self._neighbors, self._translations)
        inside = torch.nonzero(squared < self.potential.cutoff**2)[:, 0]
        counts = torch.bincount(self._centers.index_select(0, inside), minlength=len(positions))
        return batch_from_pairs(
            numbers=self._numbers,
            positions=positions,
            n_atoms=self._n_atoms,
            cell=self._cell,
            pbc=self._pbc,
            pair_counts=counts,
            pair_starts=counts.cumsum(0) - counts,
            pair_neighbors=self._neighbors.index_select(0, inside),
            pair_shifts=None if self._shifts is None else self._shifts.index_select(0, inside),
            rng_keys=self._keys,
            ids=tuple(s.id for s in self.structures),
            cutoff=self.potential.cutoff,
        ).to(dtype=self.dtype)

    def _evaluate(self, batch: Batch) -> EnergiesAndForces:
        labels = self._properties(batch, Request(forces=True))
        assert labels.energy is not None
        assert labels.forces is not None
        return labels.energy.double(), labels.forces.double()
