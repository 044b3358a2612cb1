"""The one door to derivatives: energies, forces, Hessian-vector products, Hessians and stress of any potential.

Every observable is *energy x directions x derivative*. The order is reverse over reverse: the gradient is taken with a
graph, and `H v` is the gradient of `g · v`. Structures of a batch do not interact, so one pass serves them all: the
product of the whole batch's block-diagonal Hessian with all directions at once. No class of model is known here.

Axes: structures of a batch; atoms of all structures, end to end; probes = directions per structure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from ase.data import chemical_symbols
from jaxtyping import Float
from torch import Tensor

from hesse.curvature.hvp import gradients, hessian_vector_products, hvp_sequential, hvp_vmapped
from hesse.curvature.memory import DEFAULT_MEMORY_MIB, saved_tensor_bytes
from hesse.errors import EngineError, GeometryError, LabelShapeError, RequestError, UnknownElementError
from hesse.potential import Potential
from hesse.structures import Batch, Properties, Request, segment_ids, segment_offsets

__all__ = [
    "apply_strain",
    "check_energy_shape",
    "check_finite",
    "evaluate",
    "prepare_batch",
    "stress_from_strain_gradient",
]


def check_finite(batch: Batch, predictions: Properties) -> None:
    """Raise EngineError, naming the structures, where energies, forces, products or Hessians are not finite."""
    checks = []
    if predictions.energy is not None:
        checks.append((predictions.energy, torch.arange(len(batch), device=batch.structure_index.device)))
    if predictions.forces is not None:
        checks.append((predictions.forces, batch.structure_index))
    if predictions.hvp is not None:
        checks.append((predictions.hvp.transpose(0, 1), batch.structure_index))
    if predictions.hessian is not None:
        checks.append((predictions.hessian, segment_ids(9 * batch.n_atoms**2)))
    for values, structure_index in checks:
        non_finite = ~torch.isfinite(values).reshape(len(values), -1).all(-1)
        if bool(non_finite.any()):
            names = [batch.ids[i] for i in structure_index[non_finite].unique()[:3].tolist()]
            raise EngineError(
                f"the potential's answer is not a finite number for structure {', '.join(map(repr, names))}. "
                "Check the geometry (atoms on top of each other?) and the potential (`hesse check`)."
            )


def apply_strain(batch: Batch, positions: Float[Tensor, "atoms 3"], strain: Float[Tensor, "structures 3 3"]) -> Batch:
    """The batch on other positions, each structure with its cell under the symmetric part of its strain."""
    symmetric = 0.5 * (strain + strain.transpose(1, 2))
    strained_positions = positions + (positions[:, None] @ symmetric.index_select(0, batch.structure_index))[:, 0]
    return batch.with_positions(positions=strained_positions, cell=batch.cell + batch.cell @ symmetric)


def stress_from_strain_gradient(
    batch: Batch, strain_gradient: Float[Tensor, "structures 3 3"]
) -> Float[Tensor, "structures 3 3"]:
    """Stress, eV/Å³, from the derivative by strain; NaN for cells that are not periodic in all directions."""
    volume = torch.linalg.det(batch.cell).abs()[:, None, None]
    periodic = batch.pbc.all(-1)[:, None, None]
    return torch.where(periodic, strain_gradient / torch.where(periodic, volume, 1.0), torch.nan)


def evaluate(
    potential: Potential,
    batch: Batch,
    request: Request,
    *,
    create_graph: bool = False,
    memory_mib: float | None = None,
) -> Properties:
    """What `request` asks, for every structure of the batch.

    Args:
        potential: any differentiable energy; its `cutoff` must not exceed the one the batch was built for.
        batch: structures; derivatives are taken in its positions, in the type and on the device of the potential's
            parameters (a batch of another type is converted).
        request: which labels to compute. Probes have shape `[probes, atoms, 3]`.
        create_graph: keep the graph, so that a loss of the result can be differentiated in parameters (training).
        memory_mib: bound on the memory of one chunk of Hessian columns (without `create_graph`; with it the graph of
            all columns is kept and there is no bound). None for a default by device.

    Returns:
        Energies in eV, forces in eV/Å, `H v` and Hessians in eV/Å², stress in eV/Å³.

    Raises:
        RequestError: the batch's neighbor matrix is shorter than the potential's cutoff, the potential is
            detached from autograd, or atomic energies are asked of one that has none.
        LabelShapeError: probes of the wrong shape.
        UnknownElementError: an element the potential was not made for (not looked for with `create_graph`: training
            checks its data once).
        GeometryError: stress was asked of a batch without a periodic structure.
    """
    batch = prepare_batch(potential, batch, request, check_elements=not create_graph)
    second_order = request.probes is not None or request.hessian
    first_order = request.forces or second_order or request.stress
    with torch.enable_grad():
        inputs, positions, strain = (
            _differentiable_inputs(batch, request) if first_order else (batch, batch.positions, None)
        )
        with (
            _grad_enabled(first_order or create_graph),
            saved_tensor_bytes(second_order and not create_graph) as saved_bytes,
        ):
            atomic, regularizer = potential.forward_with_regularizer(inputs)
            check_energy_shape(potential, atomic, len(batch.numbers))
            energy = batch.sum_over_atoms(atomic)
            gradient = stress = None
            if first_order:
                variables = [positions] if strain is None else [positions, strain]
                _check_gradient(potential, energy)
                derivatives = gradients(energy.sum(), variables, create_graph=create_graph or second_order)
                gradient = derivatives[0]
                if strain is not None:
                    stress = stress_from_strain_gradient(batch, derivatives[1])
        hvp = hessian = None
        hvp_function = hvp_vmapped if potential.supports_vmap else hvp_sequential
        if request.probes is not None:
            assert gradient is not None
            retain_graph = create_graph or request.hessian
            hvp = hessian_vector_products(
                gradient, positions, request.probes, create_graph, retain_graph, supports_vmap=potential.supports_vmap
            )
        if request.hessian:
            assert gradient is not None
            limit_mib = memory_mib or DEFAULT_MEMORY_MIB.get(batch.positions.device.type, DEFAULT_MEMORY_MIB["other"])
            chunk = None if create_graph else max(1, int(limit_mib * 2**20 / max(saved_bytes[0], 1)))
            hessian = _dense_hessian(hvp_function, gradient, positions, batch, create_graph, chunk)
    result = Properties(
        n_atoms=batch.n_atoms,
        energy=energy if request.energy else None,
        forces=-gradient if request.forces and gradient is not None else None,
        probes=request.probes,
        hvp=hvp,
        hessian=hessian,
        atomic_energies=atomic if request.atomic_energies else None,
        stress=stress,
        stress_mask=None if stress is None else batch.pbc.all(-1),
        regularizer=regularizer,
    )
    return result if create_graph else result.detach()


def prepare_batch(potential: Potential, batch: Batch, request: Request, *, check_elements: bool) -> Batch:
    """The batch as the potential wants it: in its type, on its device, with its tables. Raises what `evaluate` does."""
    _check_request(potential, batch, request)
    parameter = next((p for p in potential.parameters() if p.is_floating_point()), None)
    if parameter is not None and (batch.positions.dtype, batch.positions.device) != (parameter.dtype, parameter.device):
        batch = batch.to(parameter.device, parameter.dtype)
    if potential.elements and check_elements:
        _check_elements(potential, batch)
    return potential.precompute(batch) if batch.precomputed is None else batch


def _check_request(potential: Potential, batch: Batch, request: Request) -> None:
    if batch.cutoff < potential.cutoff:
        raise RequestError(
            f"the batch lists neighbors up to {batch.cutoff} Å, but {type(potential).__name__} needs them up to "
            f"{potential.cutoff} Å: build it with collate(structures, potential.cutoff)"
        )
    if request.probes is not None:
        shape = tuple(request.probes.shape)
        if len(shape) != 3 or shape[0] < 1 or shape[1:] != (len(batch.numbers), 3):
            raise LabelShapeError(
                f"probes of shape {shape}, expected [probes, atoms, 3] with {len(batch.numbers)} atoms in the batch"
            )
    if request.atomic_energies and not potential.has_atomic_energies:
        raise RequestError(
            f"{type(potential).__name__} gives energies of whole structures: energies of its atoms mean nothing"
        )
    if request.stress and not bool(batch.pbc.all(-1).any()):
        raise GeometryError("stress was asked, but no structure of the batch is periodic in all three directions")


def check_energy_shape(potential: Potential, atomic: object, n_atoms: int) -> None:
    received = f"shape {tuple(atomic.shape)}" if isinstance(atomic, Tensor) else f"type {type(atomic).__name__}"
    if not isinstance(atomic, Tensor) or atomic.shape != (n_atoms,):
        raise LabelShapeError(
            f"{type(potential).__name__} returned energies of {received}, expected a tensor with one per atom: {(n_atoms,)}"
        )


def _check_elements(potential: Potential, batch: Batch) -> None:
    supported = torch.tensor(potential.elements, device=batch.numbers.device)
    unsupported = torch.nonzero(~torch.isin(batch.numbers, supported))[:, 0]
    if len(unsupported):
        symbol = chemical_symbols[int(batch.numbers[unsupported[0]])]
        raise UnknownElementError(
            f'structure "{batch.ids[int(batch.structure_index[unsupported[0]])]}" holds {symbol}; {type(potential).__name__} knows '
            f"{', '.join(chemical_symbols[z] for z in potential.elements)} only. Remove the structure, or train a "
            "potential on data with that element."
        )


def _differentiable_inputs(batch: Batch, request: Request) -> tuple[Batch, Tensor, Tensor | None]:
    """The batch on fresh differentiable positions; where stress is asked, under a zero strain of every cell."""
    positions = batch.positions.detach().requires_grad_(True)
    if not request.stress:
        return batch.with_positions(positions=positions), positions, None
    strain = positions.new_zeros(len(batch), 3, 3).requires_grad_(True)
    return apply_strain(batch, positions, strain), positions, strain


@contextmanager
def _grad_enabled(enabled: bool) -> Iterator[None]:
    with torch.set_grad_enabled(enabled):
        yield


def _check_gradient(potential: Potential, energy: Tensor) -> None:
    """A trainable potential whose energy depends on nothing has cut itself off from autograd."""
    if not energy.requires_grad and any(p.requires_grad for p in potential.parameters()):
        raise RequestError(
            f"the energies of {type(potential).__name__} depend neither on positions nor on its parameters: its "
            "forward leaves autograd (detach(), no_grad(), numpy, .item()?). Compute them with torch operations on "
            "batch.positions or batch.neighbor_vectors()."
        )


def _dense_hessian(
    hvp_function: Callable[..., Float[Tensor, "probes atoms 3"]],
    gradient: Tensor,
    positions: Tensor,
    batch: Batch,
    create_graph: bool,
    chunk: int | None,
) -> Float[Tensor, "elements"]:
    """Hessians of all structures, flat. Row c of every structure is computed in the same pass."""
    rows = 3 * int(batch.n_atoms.max())
    atom = (
        torch.arange(len(batch.structure_index), device=batch.structure_index.device)
        - segment_offsets(batch.n_atoms)[batch.structure_index]
    )
    coordinate = 3 * atom[:, None] + torch.arange(3, device=atom.device)
    step = rows if chunk is None else min(rows, chunk)
    chunks = []
    for start in range(0, rows, step):
        selected = torch.arange(start, min(start + step, rows), device=atom.device)
        one_hot = (coordinate[None] == selected[:, None, None]).to(gradient.dtype)
        chunks.append(hvp_function(gradient, positions, one_hot, create_graph, retain_graph=start + step < rows))
    hessian_rows = torch.cat(chunks).reshape(rows, -1)
    structure_index = segment_ids(9 * batch.n_atoms**2)
    size = 3 * batch.n_atoms[structure_index]
    index_in_block = (
        torch.arange(len(structure_index), device=structure_index.device)
        - segment_offsets(9 * batch.n_atoms**2)[structure_index]
    )
    return hessian_rows[
        index_in_block // size, 3 * segment_offsets(batch.n_atoms)[structure_index] + index_in_block % size
    ]


# MERGED DOCSTRING (fold into the module docstring): """Answers that are no numbers are no answers."""

# MERGED DOCSTRING (fold into the module docstring): """Stress: the derivative of the energy by a strain of the cell, over its volume."""
