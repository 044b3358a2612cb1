"""Many structures at once: in batches of like sizes that fit in memory, given back in the order in which they came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hesse.curvature.derivatives import gradients
from hesse.curvature.evaluate import evaluate
from hesse.curvature.finite import require_finite
from hesse.curvature.home import home_of
from hesse.curvature.memory import DEFAULT_MEMORY_MIB, graph_bytes
from hesse.errors import ConfigError, GeometryError, LabelShapeError, RequestError
from hesse.potential import Potential, judging
from hesse.progress import track
from hesse.structures import Labels, Request, Structure, collate, offsets_of, ragged_indices

__all__ = ["evaluate_many"]

SHARES = {"hessian": 0.25, "other": 0.5}
"""Part of the memory that the graph of a batch may take; the rest is for what derivatives make of it. With Hessians
that is several columns at once."""
HESSIAN_MIB = {"cpu": 32.0, "other": 2048.0}
"""Memory of a batch with Hessians, by device. Columns are many already: on a CPU more of them at once are slower."""
GROWTH = 1.5
"""Memory is measured again when structures have become larger by this factor."""


def evaluate_many(
    potential: Potential,
    structures: Sequence[Structure],
    request: Request,
    *,
    memory_mib: float | None = None,
    quiet: bool = True,
) -> Labels:
    """What `request` asks, for any number of structures of any sizes, periodic or not.

    Structures are sorted by size, so that the columns of their Hessians end together and neighbour matrices hold
    little padding. How many go through together follows from the memory that the graph of one takes, measured.

    Args:
        potential: any differentiable energy, on any device, in its own floating-point type.
        structures: at least one.
        request: what to compute. Probes have shape `[probes, atoms, 3]`, the atoms of all structures end to end:
            `torch.cat(directions, dim=1)` of one `[probes, n, 3]` for each structure. Stress is given for structures
            that are periodic in all directions, the others are masked.
        memory_mib: bound on the memory of one batch; None for a default by device (64 on a CPU, 32 with Hessians, since
            larger batches are slower there; 2048 elsewhere). A structure that needs more runs alone.
        quiet: show no progress.

    Returns:
        Labels in the order of `structures`, in float64, on the CPU.

    Raises:
        RequestError: no structures; and all that `evaluate` raises.
        LabelShapeError: probes of another shape.
        EngineError: an answer that is not a finite number; the message names the structures.
    """
    if isinstance(structures, Structure) or not all(isinstance(s, Structure) for s in structures):
        raise RequestError("expected a list of hesse.Structure; hesse.from_ase makes them of ASE atoms")
    if not structures:
        raise RequestError("no structures were given")
    if memory_mib is not None and not memory_mib > 0:
        raise ConfigError(f"memory_mib must be a positive number, got {memory_mib}")
    n_atoms = torch.tensor([len(s) for s in structures])
    starts = offsets_of(n_atoms)[:-1]
    _check(potential, structures, request, int(n_atoms.sum()))
    dtype, device = home_of(potential)
    defaults = HESSIAN_MIB if request.hessian else DEFAULT_MEMORY_MIB
    bound = memory_mib or defaults.get(device.type, defaults["other"])
    share = SHARES["hessian" if request.hessian else "other"]
    parts: list[Labels] = []
    done: list[int] = []
    with judging(potential), track("evaluating", len(structures), quiet=quiet) as advance:
        for indices in _batches(potential, structures, share * bound * 2**20):
            chosen = [structures[i] for i in indices]
            batch = collate(chosen, potential.cutoff, dtype=dtype, device=device)
            asked = replace(request, stress=request.stress and any(all(s.pbc) for s in chosen))
            if request.probes is not None:
                atoms = ragged_indices(starts[indices], n_atoms[indices]).to(request.probes.device)
                asked = replace(asked, probes=request.probes[:, atoms].to(device))
            found = evaluate(potential, batch, asked, memory_mib=bound)
            require_finite(batch, found)
            parts.append(replace(found, penalty=None).map(Tensor.double).to("cpu"))
            done += indices
            advance(len(indices))
    return Labels.concatenate(parts).select(torch.tensor(done).argsort())


def _check(potential: Potential, structures: Sequence[Structure], request: Request, atoms: int) -> None:
    """What would stop the work half-way."""
    if request.probes is not None and (request.probes.dim() != 3 or request.probes.shape[1:] != (atoms, 3)):
        raise LabelShapeError(
            f"probes of shape {tuple(request.probes.shape)}, expected [probes, {atoms}, 3] for the atoms of all "
            f"{len(structures)} structures, end to end"
        )
    if request.stress and not any(all(s.pbc) for s in structures):
        raise GeometryError("stress was asked, but no structure is periodic in all three directions")
    known = set(potential.elements)
    if known:
        for structure in structures:
            if not known.issuperset(structure.numbers.tolist()):
                evaluate(potential, collate([structure], potential.cutoff), Request())  # says what is wrong


def _batches(potential: Potential, structures: Sequence[Structure], bound: float) -> Iterator[list[int]]:
    """Indices of structures that go through together, small structures first."""
    cost = _Cost(potential)
    taken: list[int] = []
    widest = atoms = 0
    for index in sorted(range(len(structures)), key=lambda i: len(structures[i])):
        structure = structures[index]
        width = int(structure.neighbours(potential.cutoff).counts.max())
        widest, atoms = max(widest, width), atoms + len(structure)
        if taken and cost.of(structure, atoms * (widest + 1)) > bound:
            yield taken
            taken, widest, atoms = [], width, len(structure)
        taken.append(index)
    yield taken


class _Cost:
    """Bytes that the graph keeps per place of the neighbour matrix (and per atom, counted as one more place)."""

    def __init__(self, potential: Potential) -> None:
        self.potential = potential
        self.size, self.per_place = 0, 0.0

    def of(self, structure: Structure, places: int) -> float:
        """What so many places take, when the structures are like this one."""
        if len(structure) > GROWTH * self.size:
            self.size = len(structure)
            dtype, device = home_of(self.potential)
            batch = collate([structure], self.potential.cutoff, dtype=dtype, device=device)
            positions = batch.positions.requires_grad_(True)
            with torch.enable_grad(), graph_bytes() as saved:
                gradients(self.potential(batch.replace(positions=positions)).sum(), [positions], create_graph=True)
            self.per_place = saved[0] / (batch.neighbours.numel() + len(structure))
        return self.per_place * places
