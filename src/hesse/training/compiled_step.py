"""Loss and gradient of a training step as one compiled function.

The function computes energies, forces, Hessian-vector products and stress, their loss, and its gradient in the trained
parameters. It is traced in one piece by nested `torch.func.grad`, including the gradient in parameters: with separate
compiled forward and backward passes, the compiler would treat the strides of the tensors between them as constants.
Derivatives are reverse over reverse, as in `hesse.curvature.evaluate`: forward over reverse is miscompiled by some
versions of PyTorch, and reverse over forward crashed the compiler on one of Hesse's networks. Index tables
(neighbors, triplets, blocks) are computed before, by `Potential.precompute`.

One compilation serves batches of all sizes except 0 and 1, which the compiler treats as constants: a batch of one
structure, of diatomic molecules, or without triplets of atoms would each be compiled anew. Such batches are padded by a
dummy molecule of zero loss weight (`pad_with_dummy`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hesse.curvature.compiled_batches import (
    OutputModule,
    compile_for_batches,
    min_dimension,
    own_storage,
    refuse_random_layers,
)
from hesse.curvature.energy_derivatives import apply_strain, prepare_batch, stress_from_strain_gradient
from hesse.errors import CompilationError
from hesse.losses import Loss, default_loss
from hesse.potential import Potential
from hesse.structures import Batch, Properties, Quantity, Request

__all__ = ["DUMMY_ATOMS", "CompiledLossAndGradient", "append_zeros", "pad_with_dummy"]

DUMMY_ATOMS = 3
"""Atoms of the dummy molecule, an equilateral triangle: each has two neighbors, which form a triplet."""
DUMMY_EDGE = 1.5
"""Their distances, Å."""


def pad_with_dummy(batch: Batch) -> Batch:
    """Append a dummy molecule: a triangle of three atoms of the batch's first element.

    Args:
        batch: the structures.

    Returns:
        A batch with one structure more, without precomputed tables.
    """
    atoms, old_width = batch.neighbors.shape
    width = max(old_width, DUMMY_ATOMS - 1)
    atom_index = torch.arange(atoms + DUMMY_ATOMS, device=batch.numbers.device)
    neighbors = atom_index[:, None].repeat(1, width)
    neighbors[:atoms, :old_width] = batch.neighbors
    mask = torch.zeros_like(neighbors, dtype=torch.bool)
    mask[:atoms, :old_width] = batch.neighbor_mask
    for step in range(1, DUMMY_ATOMS):
        neighbors[atoms:, step - 1] = atoms + (atom_index[:DUMMY_ATOMS] + step) % DUMMY_ATOMS
    mask[atoms:, : DUMMY_ATOMS - 1] = True
    corners = batch.positions.new_tensor(
        [[0.0, 0.0, 0.0], [DUMMY_EDGE, 0.0, 0.0], [0.5 * DUMMY_EDGE, 0.75**0.5 * DUMMY_EDGE, 0.0]]
    )
    shifts = None
    if batch.cell_shifts is not None:
        shifts = batch.cell_shifts.new_zeros(atoms + DUMMY_ATOMS, width, 3)
        shifts[:atoms, :old_width] = batch.cell_shifts
    return replace(
        batch,
        numbers=torch.cat([batch.numbers, batch.numbers[:1].expand(DUMMY_ATOMS)]),
        positions=torch.cat([batch.positions, corners]),
        n_atoms=torch.cat([batch.n_atoms, batch.n_atoms.new_tensor([DUMMY_ATOMS])]),
        structure_index=torch.cat([batch.structure_index, batch.structure_index.new_full((DUMMY_ATOMS,), len(batch))]),
        cell=append_zeros(batch.cell, 1),
        pbc=append_zeros(batch.pbc, 1),
        neighbors=neighbors,
        neighbor_mask=mask,
        cell_shifts=shifts,
        rng_keys=append_zeros(batch.rng_keys, 1),
        ids=(*batch.ids, ""),
        precomputed=None,
    )


def append_zeros(values: Tensor, count: int, dim: int = 0) -> Tensor:
    """Append zeros along one dimension.

    Args:
        values: per-atom or per-structure values.
        count: number of entries to append.
        dim: dimension along which to append.

    Returns:
        A new tensor.
    """
    shape = list(values.shape)
    shape[dim] = count
    return torch.cat([values, values.new_zeros(shape)], dim=dim)


Parameters = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class _Inputs:
    """Arguments of the compiled function: tensors only.

    Attributes:
        batch: the structures.
        probes: directions of the products, if there are any.
        targets, factors: see `hesse.losses.Loss.means`.
        weights: weight of each term by name, float64.
        stress_mask: structures with a stress label, if there are any.
    """

    batch: Batch
    probes: Float[Tensor, "probes atoms 3"] | None
    targets: dict[str, Tensor]
    factors: dict[str, Tensor]
    weights: dict[str, Tensor]
    stress_mask: Bool[Tensor, "structures"] | None


class CompiledLossAndGradient:
    """Loss of a potential on labeled structures, and its gradient in the parameters, compiled.

    The first call of each kind (with or without products, periodic or not, ...) compiles. This takes half a minute to
    minutes, less if PyTorch finds the result of an earlier run in its cache.

    Args:
        potential: one of Hesse's own networks, or one that passes the check `compile` of `hesse check`.
        loss: the loss; None: squared errors of all labels.
        backend: backend of `torch.compile`; "aot_eager" traces without generating code, for debugging.

    Raises:
        CompilationError: the potential draws random numbers (dropout), which compiled code would draw in another order.
    """

    def __init__(self, potential: Potential, loss: Loss | None = None, *, backend: str = "inductor") -> None:
        refuse_random_layers(potential)
        self.potential, self.loss = potential, loss or default_loss()
        self._energy_module = OutputModule(potential)
        self._function = compile_for_batches(partial(_gradients_and_means, self.loss), backend=backend)

    def unsupported_reason(self, request: Request) -> str:
        """The reason why a request cannot be compiled.

        Args:
            request: the derivatives that the loss needs.

        Returns:
            The reason; empty if it can be compiled.
        """
        return "full Hessians are not compiled" if request.hessian else ""

    def __call__(
        self,
        batch: Batch,
        labels: Properties,
        request: Request,
        weights: Mapping[str, float],
        counts: Mapping[str, Tensor],
        *,
        linear: bool = False,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute loss and gradient.

        Args:
            batch: structures, as for `hesse.curvature.evaluate`.
            labels: their labels.
            request: the predictions that the loss needs.
            weights: weight of each requested term by name.
            counts: see `hesse.losses.Loss.counts`.
            linear: see `hesse.losses.Loss.total`.

        Returns:
            The means (`hesse.losses.Loss.means`) by name of the term; the gradient by name of the parameter.

        Raises:
            CompilationError: the compiler fails, or the request cannot be compiled (`unsupported_reason`).
            RequestError, LabelShapeError, GeometryError: see `hesse.curvature.evaluate`.
        """
        reason = self.unsupported_reason(request)
        if reason:
            raise CompilationError(reason)
        trainable: Parameters = {f"potential.{n}": p for n, p in self.potential.named_parameters() if p.requires_grad}
        inputs = self._make_inputs(batch, labels, request, weights, counts)
        gradients, means = self._function(self._energy_module, trainable, inputs, linear)
        return means, {name.removeprefix("potential."): value for name, value in gradients.items()}

    def _make_inputs(
        self,
        batch: Batch,
        labels: Properties,
        request: Request,
        weights: Mapping[str, float],
        counts: Mapping[str, Tensor],
    ) -> _Inputs:
        """Arguments of the compiled function; padded by a dummy molecule if a dimension is below two."""
        targets = self.loss.targets(labels, weights, batch)
        factors = self.loss.factors(labels, weights, counts, batch)
        stress_mask = labels.mask("stress") if request.stress else None
        probes, prepared = request.probes, None
        if min_dimension(batch) >= 2:
            prepared = prepare_batch(self.potential, batch, request, check_elements=False)
        if prepared is None or min_dimension(prepared) < 2:
            if probes is not None:
                probes = append_zeros(probes, DUMMY_ATOMS, dim=1)
            prepared = prepare_batch(
                self.potential, pad_with_dummy(batch), request.replace(probes=probes), check_elements=False
            )
            quantities = {name: self.loss.entries[name] for name in factors}
            entries = {entry.name: entry for entry in quantities.values()}
            entries |= {f"{name}_scale": entry for name, entry in quantities.items()}
            targets = {name: _pad(value, entries[name]) for name, value in targets.items()}
            factors = {name: _pad(value, quantities[name]) for name, value in factors.items()}
            stress_mask = None if stress_mask is None else append_zeros(stress_mask, 1)
        device = prepared.positions.device
        tensors = {name: own_storage(value) for name, value in vars(prepared).items()}
        return _Inputs(
            Batch(**{**tensors, "ids": ()}),  # the compiler would treat ids as constants
            None if probes is None else own_storage(probes.to(prepared.positions)),
            {name: own_storage(value.to(device)) for name, value in targets.items()},
            {name: own_storage(value.to(device)) for name, value in factors.items()},
            # Not torch.tensor, whose copy to a GPU waits for the GPU.
            {name: torch.full((), weights[name], dtype=torch.float64, device=device) for name in factors},
            None if stress_mask is None else own_storage(stress_mask.to(device)),
        )


def _pad(values: Tensor, entry: Quantity) -> Tensor:
    """Labels or factors of a quantity with zeros for the dummy molecule."""
    dim = values.dim() - 1 - len(entry.components)
    return append_zeros(values, 1 if entry.per == "structure" else DUMMY_ATOMS, dim=dim)


def _gradients_and_means(
    loss: Loss, energy_module: OutputModule, parameters: Parameters, inputs: _Inputs, linear: bool
) -> tuple[Parameters, dict[str, Tensor]]:
    """The function to compile: gradient of the loss in the parameters, and the means of its terms."""
    batch, probes, stress = inputs.batch, inputs.probes, inputs.stress_mask is not None
    needs_gradient = probes is not None or stress or "forces" in inputs.targets
    argnums, zero_strain = (0, 1) if stress else (0,), torch.zeros_like(batch.cell)

    def objective(parameters: Parameters) -> tuple[Tensor, dict[str, Tensor]]:
        def total_energy(x: Tensor, strain: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            displaced = apply_strain(batch, x, strain) if stress else batch.with_positions(positions=x)
            outputs = torch.func.functional_call(energy_module, parameters, (displaced,))
            energy = batch.sum_over_atoms(outputs["atomic_energies"])
            return energy.sum(), {**outputs, "energy": energy}

        def energy_gradient(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            (gradient, *by_strain), outputs = torch.func.grad(total_energy, argnums=argnums, has_aux=True)(
                x, zero_strain
            )
            if inputs.stress_mask is not None:
                # The stress of molecules is NaN, which must not enter the loss of structures without this label.
                values = stress_from_strain_gradient(batch, by_strain[0])
                outputs["stress"] = torch.where(inputs.stress_mask[:, None, None], values, 0.0)
            return gradient, outputs

        if probes is not None:
            gradient, vjp_function, predictions = torch.func.vjp(energy_gradient, batch.positions, has_aux=True)  # type: ignore[misc]
            predictions["hvp"] = torch.stack([vjp_function(probe)[0] for probe in probes.unbind(0)])
            predictions["forces"] = -gradient
        elif needs_gradient:
            gradient, predictions = energy_gradient(batch.positions)
            predictions["forces"] = -gradient
        else:
            predictions = total_energy(batch.positions, zero_strain)[1]
        means = loss.means(predictions, inputs.targets, inputs.factors)
        total = loss.total(means, inputs.weights, linear=linear)  # type: ignore[arg-type]
        assert total is not None
        return total, means

    return torch.func.grad(objective, has_aux=True)(parameters)
