"""Energies, forces, Hessian-vector products, Hessians and stress of any potential, by automatic differentiation.

Hessian-vector products are computed in reverse over reverse mode: the gradient g is computed with its graph, and `H v`
is the gradient of `g · v`. Structures of a batch do not interact, so the Hessian of the batch is block-diagonal, and
one pass computes the products of all structures.

`evaluate` is the eager implementation, used almost everywhere. Derivatives are also taken in `HessianOperator` (many
products at one geometry), in compiled training steps, which are compared with `evaluate` at regular intervals, and in
some checks of potentials.

Stress is the derivative of the energy with respect to a strain of the cell, divided by the volume.

Axes: structures of a batch; atoms of all structures, concatenated; probes = directions per structure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from hesse.curvature.hvp import energy_and_gradient, hessian_vector_products, hvp_sequential, hvp_vmapped
from hesse.curvature.memory import DEFAULT_MEMORY_MIB, saved_tensor_bytes
from hesse.errors import EngineError, GeometryError, LabelShapeError, RequestError
from hesse.potential import Potential, structure_at
from hesse.potential import check_elements as check_known_elements
from hesse.structures import QUANTITIES, Batch, Properties, Request, quantity, segment_ids
from hesse.structures.hessian_blocks import blocks_from_rows

__all__ = [
    "apply_strain",
    "check_energy_shape",
    "check_finite",
    "evaluate",
    "further_output_names",
    "gradient_with_graph",
    "prepare_batch",
    "stress_from_strain_gradient",
]


def evaluate(
    potential: Potential,
    batch: Batch,
    request: Request,
    *,
    create_graph: bool = False,
    memory_mib: float | None = None,
) -> Properties:
    """Compute the requested properties of all structures of a batch.

    Args:
        potential: any differentiable energy; its `cutoff` must not exceed the cutoff of the batch.
        batch: structures with neighbors. It is converted to the floating-point type and device of the parameters of the
            potential.
        request: properties to compute. Probes have the shape `[probes, atoms, 3]`.
        create_graph: keep the graph, so that a loss of the result can be differentiated with respect to the parameters.
        memory_mib: memory limit for one chunk of Hessian columns; None for a default by device. Not used with
            `create_graph`, where the graph of all columns is kept.

    Returns:
        Energies in eV, forces in eV/Å, `H v` and Hessians in eV/Å², stress in eV/Å³.

    Raises:
        RequestError: the cutoff of the batch is smaller than that of the potential, the energy is detached from
            autograd, or the potential has no atomic energies.
        LabelShapeError: probes or atomic energies of a wrong shape.
        UnknownElementError: an unsupported element (not checked with `create_graph`: training checks its data once).
        GeometryError: stress of a batch without a structure periodic in three directions.
    """
    batch = prepare_batch(potential, batch, request, check_elements=not create_graph)
    second_order = request.probes is not None or request.hessian
    first_order = request.forces or second_order or request.stress
    with torch.enable_grad():
        variables = _variables(batch, request) if first_order else []
        outputs: dict[str, Tensor] = {}

        def energies(*displaced: Tensor) -> Tensor:
            energy, predicted = _energies_and_outputs(potential, batch, displaced)
            outputs.update(predicted)
            return energy

        with (
            _grad_enabled(first_order or create_graph),
            saved_tensor_bytes() if request.hessian and not create_graph else nullcontext([0]) as saved_bytes,
        ):
            gradient = stress = None
            if first_order:
                energy, (gradient, *by_strain) = energy_and_gradient(
                    energies, variables, create_graph=create_graph or second_order
                )
                stress = stress_from_strain_gradient(batch, by_strain[0]) if by_strain else None
            else:
                energy = energies()
        hvp = hessian = None
        hvp_function = hvp_vmapped if potential.supports_vmap else hvp_sequential
        if request.probes is not None:
            assert gradient is not None
            retain_graph = create_graph or request.hessian
            hvp = hessian_vector_products(
                gradient,
                variables[0],
                request.probes,
                create_graph,
                retain_graph,
                supports_vmap=potential.supports_vmap,
            )
        if request.hessian:
            assert gradient is not None
            limit_mib = memory_mib or DEFAULT_MEMORY_MIB.get(batch.positions.device.type, DEFAULT_MEMORY_MIB["other"])
            chunk = None if create_graph else max(1, int(limit_mib * 2**20 / max(saved_bytes[0], 1)))
            graph = (gradient, variables[0])
            hessian = blocks_from_rows(
                batch.n_atoms,
                lambda rows, last: hvp_function(*graph, rows, create_graph, retain_graph=not last),
                dtype=gradient.dtype,
                chunk=chunk,
            )
    result = Properties(
        n_atoms=batch.n_atoms,
        energy=energy if request.energy else None,
        forces=-gradient if request.forces and gradient is not None else None,
        probes=request.probes,
        hvp=hvp,
        hessian=hessian,
        atomic_energies=outputs["atomic_energies"] if request.atomic_energies else None,
        stress=stress,
        stress_mask=None if stress is None else batch.pbc.all(-1),
        regularizer=outputs.get("regularizer"),
        **_further_outputs(potential, batch, outputs, request),
    )
    return result if create_graph else result.detach()


def gradient_with_graph(
    potential: Potential, batch: Batch
) -> tuple[Float[Tensor, "structures"], Float[Tensor, "atoms 3"], Float[Tensor, "atoms 3"]]:
    """Compute energies and their gradient, which can be differentiated once more.

    Args:
        potential: any differentiable energy.
        batch: structures with neighbors, as `prepare_batch` returns them.

    Returns:
        The energies, eV; the gradient with its graph, eV/Å; and the positions with respect to which it is taken.

    Raises:
        HesseError: see `evaluate`.
    """
    positions = batch.positions.detach().requires_grad_(True)

    def energies(displaced: Tensor) -> Tensor:
        return _energies_and_outputs(potential, batch, (displaced,))[0]

    energy, (gradient,) = energy_and_gradient(energies, [positions])
    return energy.detach(), gradient, positions


def _energies_and_outputs(
    potential: Potential, batch: Batch, displaced: Sequence[Tensor]
) -> tuple[Float[Tensor, "structures"], Mapping[str, Tensor]]:
    """Energies of the structures at displaced positions, checked, and all outputs of the potential."""
    outputs = potential.outputs(_displace(batch, *displaced))
    check_energy_shape(potential, outputs["atomic_energies"], len(batch.numbers))
    energy = batch.sum_over_atoms(outputs["atomic_energies"])
    if displaced:
        _check_gradient(potential, energy)
    return energy, outputs


def _further_outputs(
    potential: Potential, batch: Batch, outputs: Mapping[str, Tensor], request: Request
) -> dict[str, Tensor]:
    """The requested registered quantities, in the order of their names."""
    result = {}
    for name in sorted(request.outputs):
        entry = quantity(name)
        rows = len(batch) if entry.per == "structure" else len(batch.numbers)
        received = outputs.get(name)
        if not isinstance(received, Tensor) or tuple(received.shape) != (rows, *entry.components):
            got = "no such output" if received is None else f"shape {tuple(getattr(received, 'shape', ()))}"
            got = got if received is None or isinstance(received, Tensor) else type(received).__name__
            raise LabelShapeError(
                f"{type(potential).__name__}.outputs: expected {name} of shape {(rows, *entry.components)}, got {got}"
            )
        result[name] = received
    return result


def further_output_names(potential: Potential) -> tuple[str, ...]:
    """Further quantities that a potential predicts.

    Args:
        potential: any potential.

    Returns:
        Their names.

    Raises:
        RequestError: its `output_names` are not names of registered quantities.
    """
    names = potential.output_names
    if isinstance(names, str):
        raise RequestError(f"{type(potential).__name__}.output_names: expected a tuple of names: ({names!r},)")
    for name in names:
        if name not in QUANTITIES:
            raise RequestError(
                f"{type(potential).__name__}.output_names: {name!r} is not a registered quantity: "
                "hesse.register_quantity(hesse.Quantity(...))"
            )
    return tuple(names)


def prepare_batch(potential: Potential, batch: Batch, request: Request, *, check_elements: bool) -> Batch:
    """Check a batch and prepare it for a potential.

    Args:
        potential: any potential.
        batch: structures with neighbors.
        request: properties to compute.
        check_elements: whether to check that all elements are supported.

    Returns:
        The batch in the floating-point type and on the device of the potential, with its precomputed tables.

    Raises:
        HesseError: see `evaluate`.
    """
    _check_request(potential, batch, request)
    parameter = next((p for p in potential.parameters() if p.is_floating_point()), None)
    if parameter is not None and (batch.positions.dtype, batch.positions.device) != (parameter.dtype, parameter.device):
        batch = batch.to(parameter.device, parameter.dtype)
    if check_elements:
        check_known_elements(potential, batch.numbers, where=structure_at(batch.ids, batch.n_atoms))
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
            f"{type(potential).__name__} gives energies of whole structures only: its atoms have no energies"
        )
    missing = request.outputs - set(further_output_names(potential))
    if missing:
        raise RequestError(
            f"{type(potential).__name__} does not predict {', '.join(sorted(missing))}; it predicts energies and their "
            f"derivatives{''.join(f', {name}' for name in potential.output_names)} (see Potential.outputs)"
        )
    if request.stress and not bool(batch.pbc.all(-1).any()):
        raise GeometryError("stress was requested, but no structure of the batch is periodic in all three directions")


def check_energy_shape(potential: Potential, atomic: object, n_atoms: int) -> None:
    """Check the shape of atomic energies.

    Args:
        potential: the potential, for the message.
        atomic: result of its `forward`.
        n_atoms: number of atoms of the batch.

    Raises:
        LabelShapeError: not a tensor `[atoms]`.
    """
    received = f"shape {tuple(atomic.shape)}" if isinstance(atomic, Tensor) else f"type {type(atomic).__name__}"
    if not isinstance(atomic, Tensor) or atomic.shape != (n_atoms,):
        raise LabelShapeError(
            f"{type(potential).__name__} returned energies of {received}, expected a tensor with one per atom: "
            f"{(n_atoms,)}"
        )


def _variables(batch: Batch, request: Request) -> list[Tensor]:
    """Differentiable positions; for stress also a differentiable strain, of value zero."""
    positions = batch.positions.detach().requires_grad_(True)
    if not request.stress:
        return [positions]
    return [positions, positions.new_zeros(len(batch), 3, 3).requires_grad_(True)]


def _displace(batch: Batch, positions: Tensor | None = None, strain: Tensor | None = None) -> Batch:
    """The batch as a function of the variables."""
    if positions is None:
        return batch
    return batch.with_positions(positions=positions) if strain is None else apply_strain(batch, positions, strain)


@contextmanager
def _grad_enabled(enabled: bool) -> Iterator[None]:
    with torch.set_grad_enabled(enabled):
        yield


def _check_gradient(potential: Potential, energy: Tensor) -> None:
    """Check that the energy of a trainable potential is connected to autograd."""
    if not energy.requires_grad and any(p.requires_grad for p in potential.parameters()):
        raise RequestError(
            f"the energies of {type(potential).__name__} depend neither on positions nor on its parameters: its "
            "forward leaves autograd (detach(), no_grad(), numpy, .item()?). Compute them with torch operations on "
            "batch.positions or batch.neighbor_vectors()."
        )


def check_finite(batch: Batch, predictions: Properties) -> None:
    """Check that predictions are finite.

    Args:
        batch: the structures, for the message.
        predictions: their predicted properties.

    Raises:
        EngineError: energies, forces, products or Hessians contain NaN or infinity; the message names the structures.
    """
    rows = {"structure": torch.arange(len(batch), device=batch.structure_index.device), "atom": batch.structure_index}
    for column, values in predictions.items():
        if column.kind != "value" or column.quantity.role != "label" or column.name == "stress":
            continue  # the stress of molecules is NaN
        is_hessian = column.rows == "element"
        structure_index = segment_ids(predictions.hessian_lengths()) if is_hessian else rows[column.rows]
        by_row = values.transpose(0, 1) if column.probe_axis else values
        non_finite = ~torch.isfinite(by_row).reshape(len(by_row), -1).all(-1)
        if bool(non_finite.any()):
            names = [batch.ids[i] for i in structure_index[non_finite].unique()[:3].tolist()]
            raise EngineError(
                f"the prediction is not finite for structure {', '.join(map(repr, names))}. "
                "Check the geometry (atoms on top of each other?) and the potential (`hesse check`)."
            )


def apply_strain(batch: Batch, positions: Float[Tensor, "atoms 3"], strain: Float[Tensor, "structures 3 3"]) -> Batch:
    """Apply a strain to each structure of a batch.

    Args:
        batch: structures; their cells are strained.
        positions: positions before the strain, Å (a differentiable copy of those of the batch).
        strain: dimensionless, `[structures, 3, 3]`; only its symmetric part is used.

    Returns:
        The batch with strained positions and cells.
    """
    symmetric = 0.5 * (strain + strain.transpose(1, 2))
    strained_positions = positions + (positions[:, None] @ symmetric.index_select(0, batch.structure_index))[:, 0]
    return batch.with_positions(positions=strained_positions, cell=batch.cell + batch.cell @ symmetric)


def stress_from_strain_gradient(
    batch: Batch, strain_gradient: Float[Tensor, "structures 3 3"]
) -> Float[Tensor, "structures 3 3"]:
    """Stress from the derivative of the energy with respect to strain.

    Args:
        batch: structures, for their cells.
        strain_gradient: eV, `[structures, 3, 3]`.

    Returns:
        Stress in eV/Å³, `[structures, 3, 3]`; NaN for structures that are not periodic in three directions.
    """
    volume = torch.linalg.det(batch.cell).abs()[:, None, None]
    periodic = batch.pbc.all(-1)[:, None, None]
    return torch.where(periodic, strain_gradient / torch.where(periodic, volume, 1.0), torch.nan)
