"""Properties of many structures: evaluated in batches of similar sizes that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from weakref import WeakKeyDictionary, ref

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from hesse.curvature.energy_derivatives import check_finite, evaluate
from hesse.curvature.hvp import energy_and_gradient
from hesse.curvature.memory import saved_tensor_bytes
from hesse.errors import ConfigError, GeometryError, LabelShapeError, RequestError
from hesse.potential import (
    Potential,
    check_elements,
    dtype_and_device,
    evaluation_mode,
    structure_at,
    warn_of_charge_states,
)
from hesse.runtime.progress import track
from hesse.structures import Properties, Request, Structure, collate, segment_indices, segment_offsets, to_structure

__all__ = ["evaluate_structures"]

GRAPH_FRACTION = {"hessian": 0.25, "other": 0.5}
"""Fraction of the memory limit available for the autograd graph; the rest is for the derivatives. It is smaller with
Hessians, where several columns are computed at once."""
BATCH_MIB = {
    "hessian": {"cpu": 32.0, "other": 2048.0},
    "other": {"cpu": 256.0, "other": 2048.0},
}
"""Default memory limit of a batch with and without Hessians, by device. On a CPU larger batches of columns are slower.
Energies, forces and products of 900 molecules of 4-15 atoms took 0.95, 0.78, 0.77, 0.93 s (hipnn) and 1.25, 1.13, 1.03,
0.97 s (hessenet) at 64, 128, 256 and 512 MiB on one thread."""
REMEASURE_FACTOR = 1.5
"""The memory per neighbor is measured again when structures become larger by this factor."""


def evaluate_structures(
    potential: Potential,
    structures: Sequence[Structure | Atoms] | Structure | Atoms,
    request: Request,
    *,
    memory_mib: float | None = None,
    quiet: bool = True,
) -> Properties:
    """Compute the requested properties of any number of structures.

    Structures are sorted by size, so that their Hessians have similar numbers of columns and neighbor matrices need
    little padding. The size of the batches follows from the measured memory of the autograd graph.

    Args:
        potential: any differentiable energy, on any device, in its own floating-point type.
        structures: at least one, of any sizes, periodic or not.
        request: properties to compute. Probes have the shape `[probes, atoms, 3]`, with the atoms of all structures
            concatenated: `torch.cat(directions, dim=1)` of one `[probes, n, 3]` per structure. Stress is computed for
            structures that are periodic in three directions, and masked for the others.
        memory_mib: memory limit of one batch; None for a default by device (256 on a CPU, 32 with Hessians, since
            larger batches are slower there; 2048 elsewhere). A structure that exceeds it is evaluated alone.
        quiet: show no progress.

    Returns:
        Properties in the order of `structures`, in float64, on the CPU.

    Raises:
        RequestError: no structures, or objects that are not structures; see also `evaluate`.
        ConfigError: a memory limit that is not positive.
        LabelShapeError: probes of a wrong shape.
        EngineError: predictions that are not finite; the message names the structures.
    """
    if isinstance(structures, Structure | Atoms):
        structures = [structures]
    all_structures = [to_structure(s) for s in structures]
    if not all_structures:
        raise RequestError("no structures were given")
    if memory_mib is not None and not memory_mib > 0:
        raise ConfigError(f"memory_mib must be a positive number, got {memory_mib}")
    n_atoms = torch.tensor([len(s) for s in all_structures])
    starts = segment_offsets(n_atoms)[:-1]
    _check_inputs(potential, all_structures, request, int(n_atoms.sum()))
    warn_of_charge_states(potential, all_structures)
    dtype, device = dtype_and_device(potential)
    kind = "hessian" if request.hessian else "other"
    limit_mib = memory_mib or BATCH_MIB[kind].get(device.type, BATCH_MIB[kind]["other"])
    graph_fraction = GRAPH_FRACTION[kind]
    results: list[Properties] = []
    order: list[int] = []
    with evaluation_mode(potential), track("evaluating", len(all_structures), quiet=quiet) as advance:
        for indices in _batches(potential, all_structures, graph_fraction * limit_mib * 2**20):
            selected = [all_structures[i] for i in indices]
            batch = collate(selected, potential.cutoff, dtype=dtype, device=device)
            batch_request = request.replace(stress=request.stress and any(all(s.pbc) for s in selected))
            if request.probes is not None:
                atom_indices = segment_indices(starts[indices], n_atoms[indices]).to(request.probes.device)
                batch_request = batch_request.replace(probes=request.probes[:, atom_indices].to(device))
            result = evaluate(potential, batch, batch_request, memory_mib=limit_mib)
            check_finite(batch, result)
            results.append(result.replace(regularizer=None).map_tensors(Tensor.double).to("cpu"))
            order += indices
            advance(len(indices))
    return Properties.concatenate(results).select(torch.tensor(order).argsort())


def _check_inputs(potential: Potential, structures: Sequence[Structure], request: Request, n_atoms: int) -> None:
    """Raise errors before the first batch instead of in the middle."""
    if request.probes is not None and (request.probes.dim() != 3 or request.probes.shape[1:] != (n_atoms, 3)):
        raise LabelShapeError(
            f"probes of shape {tuple(request.probes.shape)}, expected [probes, {n_atoms}, 3] for the atoms of all "
            f"{len(structures)} structures, end to end"
        )
    if request.stress and not any(all(s.pbc) for s in structures):
        raise GeometryError("stress was requested, but no structure is periodic in all three directions")
    where = structure_at([s.id for s in structures], [len(s) for s in structures])
    check_elements(potential, np.concatenate([s.numbers for s in structures]), where=where)


def _batches(potential: Potential, structures: Sequence[Structure], max_bytes: float) -> Iterator[list[int]]:
    """Indices of the structures of each batch, small structures first."""
    memory = _memory_model(potential)
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


_MEMORY_MODELS: WeakKeyDictionary[Potential, tuple[tuple[torch.dtype, torch.device], _MemoryModel]] = (
    WeakKeyDictionary()
)
"""Measured for each potential once: an optimization of few small structures calls it thousands of times."""


def _memory_model(potential: Potential) -> _MemoryModel:
    known = _MEMORY_MODELS.get(potential)
    if known is None or known[0] != dtype_and_device(potential):
        known = _MEMORY_MODELS[potential] = dtype_and_device(potential), _MemoryModel(potential)
    return known[1]


class _MemoryModel:
    """Bytes saved for the backward pass per slot: per entry of the neighbor matrix, and per atom."""

    def __init__(self, potential: Potential) -> None:
        self._potential = ref(potential)  # not kept alive
        self.measured_size, self.bytes_per_slot = 0, 0.0

    def bytes_for(self, structure: Structure, n_slots: int) -> float:
        """Bytes for `n_slots` slots of structures that resemble this one."""
        if len(structure) > REMEASURE_FACTOR * self.measured_size:
            self.measured_size = len(structure)
            potential = self._potential()
            assert potential is not None
            dtype, device = dtype_and_device(potential)
            batch = collate([structure], potential.cutoff, dtype=dtype, device=device)
            with saved_tensor_bytes() as saved_bytes:
                energy_and_gradient(
                    lambda positions: potential(batch.with_positions(positions=positions)),
                    [batch.positions.requires_grad_(True)],
                )
            self.bytes_per_slot = saved_bytes[0] / (batch.neighbors.numel() + len(structure))
        return self.bytes_per_slot * n_slots
