"""Many structures at once: in batches of like sizes that fit in memory, given back in the order in which they came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hesse.curvature.energy_derivatives import check_finite, evaluate
from hesse.curvature.hvp import gradients
from hesse.curvature.memory import DEFAULT_MEMORY_MIB, saved_tensor_bytes
from hesse.errors import ConfigError, GeometryError, LabelShapeError, RequestError
from hesse.potential import Potential, dtype_and_device, evaluation_mode
from hesse.runtime.progress import track
from hesse.structures import Properties, Request, Structure, collate, segment_indices, segment_offsets

__all__ = ["evaluate_structures"]

GRAPH_FRACTION = {"hessian": 0.25, "other": 0.5}
"""Part of the memory that the graph of a batch may take; the rest is for what derivatives make of it. With Hessians
that is several columns at once."""
HESSIAN_BATCH_MIB = {"cpu": 32.0, "other": 2048.0}
"""Memory of a batch with Hessians, by device. Columns are many already: on a CPU more of them at once are slower."""
REMEASURE_FACTOR = 1.5
"""Memory is measured again when structures have become larger by this factor."""


def evaluate_structures(
    potential: Potential,
    structures: Sequence[Structure],
    request: Request,
    *,
    memory_mib: float | None = None,
    quiet: bool = True,
) -> Properties:
    """What `request` asks, for any number of structures of any sizes, periodic or not.

    Structures are sorted by size, so that the columns of their Hessians end together and neighbor matrices hold
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
    starts = segment_offsets(n_atoms)[:-1]
    _check_inputs(potential, structures, request, int(n_atoms.sum()))
    dtype, device = dtype_and_device(potential)
    defaults = HESSIAN_BATCH_MIB if request.hessian else DEFAULT_MEMORY_MIB
    limit_mib = memory_mib or defaults.get(device.type, defaults["other"])
    graph_fraction = GRAPH_FRACTION["hessian" if request.hessian else "other"]
    results: list[Properties] = []
    order: list[int] = []
    with evaluation_mode(potential), track("evaluating", len(structures), quiet=quiet) as advance:
        for indices in _batches(potential, structures, graph_fraction * limit_mib * 2**20):
            selected = [structures[i] for i in indices]
            batch = collate(selected, potential.cutoff, dtype=dtype, device=device)
            batch_request = replace(request, stress=request.stress and any(all(s.pbc) for s in selected))
            if request.probes is not None:
                atom_indices = segment_indices(starts[indices], n_atoms[indices]).to(request.probes.device)
                batch_request = replace(batch_request, probes=request.probes[:, atom_indices].to(device))
            result = evaluate(potential, batch, batch_request, memory_mib=limit_mib)
            check_finite(batch, result)
            results.append(replace(result, regularizer=None).map_tensors(Tensor.double).to("cpu"))
            order += indices
            advance(len(indices))
    return Properties.concatenate(results).select(torch.tensor(order).argsort())


def _check_inputs(potential: Potential, structures: Sequence[Structure], request: Request, n_atoms: int) -> None:
    """What would stop the work half-way."""
    if request.probes is not None and (request.probes.dim() != 3 or request.probes.shape[1:] != (n_atoms, 3)):
        raise LabelShapeError(
            f"probes of shape {tuple(request.probes.shape)}, expected [probes, {n_atoms}, 3] for the atoms of all "
            f"{len(structures)} structures, end to end"
        )
    if request.stress and not any(all(s.pbc) for s in structures):
        raise GeometryError("stress was asked, but no structure is periodic in all three directions")
    supported = set(potential.elements)
    if supported:
        for structure in structures:
            if not supported.issuperset(structure.numbers.tolist()):
                evaluate(potential, collate([structure], potential.cutoff), Request())  # says what is wrong


def _batches(potential: Potential, structures: Sequence[Structure], max_bytes: float) -> Iterator[list[int]]:
    """Indices of structures that go through together, small structures first."""
    memory = _MemoryModel(potential)
    indices: list[int] = []
    max_neighbors = n_atoms = 0
    for index in sorted(range(len(structures)), key=lambda i: len(structures[i])):
        structure = structures[index]
        n_neighbors = int(structure.neighbors(potential.cutoff).counts.max())
        max_neighbors, n_atoms = max(max_neighbors, n_neighbors), n_atoms + len(structure)
        if indices and memory.bytes_for(structure, n_atoms * (max_neighbors + 1)) > max_bytes:
            yield indices
            indices, max_neighbors, n_atoms = [], n_neighbors, len(structure)
        indices.append(index)
    yield indices


class _MemoryModel:
    """Bytes that the graph keeps per place of the neighbor matrix (and per atom, counted as one more place)."""

    def __init__(self, potential: Potential) -> None:
        self.potential = potential
        self.measured_size, self.bytes_per_slot = 0, 0.0

    def bytes_for(self, structure: Structure, n_slots: int) -> float:
        """What so many places take, when the structures are like this one."""
        if len(structure) > REMEASURE_FACTOR * self.measured_size:
            self.measured_size = len(structure)
            dtype, device = dtype_and_device(self.potential)
            batch = collate([structure], self.potential.cutoff, dtype=dtype, device=device)
            positions = batch.positions.requires_grad_(True)
            with torch.enable_grad(), saved_tensor_bytes() as saved_bytes:
                gradients(
                    self.potential(batch.with_positions(positions=positions)).sum(), [positions], create_graph=True
                )
            self.bytes_per_slot = saved_bytes[0] / (batch.neighbors.numel() + len(structure))
        return self.bytes_per_slot * n_slots
