"""A potential as a TorchScript function of tensors, for programs that load models without Python.

The operations of one evaluation are recorded (`torch.jit.trace`). What depends on values instead of shapes, such as a
loop over the atoms in Python, is not recorded right; so the result is compared with the potential on structures of
other sizes and compositions before it is returned.
"""

from __future__ import annotations

import linecache
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ase.data import covalent_radii
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hesse.errors import HesseError, RequestError, first_line
from hesse.potential import Potential, dtype_and_device
from hesse.structures import Batch, Structure, collate

__all__ = ["TensorPotential", "batch_tensors", "trace_potential"]

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest difference to the potential, relative to the largest value."""

_FEW_ELEMENTS = (1, 6, 8)
"""Elements of the structures for potentials that support all."""


class TensorPotential(nn.Module):
    """A potential as a function of tensors instead of a batch.

    Args:
        potential: any potential.
    """

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential
        self.cutoff = float(potential.cutoff)

    def forward(
        self,
        numbers: Int[Tensor, "atoms"],
        positions: Float[Tensor, "atoms 3"],
        cell: Float[Tensor, "structures 3 3"],
        pbc: Bool[Tensor, "structures 3"],
        structure_index: Int[Tensor, "atoms"],
        n_atoms: Int[Tensor, "structures"],
        neighbors: Int[Tensor, "atoms k"],
        neighbor_mask: Bool[Tensor, "atoms k"],
        cell_shifts: Float[Tensor, "atoms k 3"],
    ) -> Float[Tensor, "atoms"]:
        """Atomic energies.

        Args:
            numbers: see `hesse.Batch` for this and the others.
            positions: Å.
            cell: Å.
            pbc: periodic directions.
            structure_index: structure of each atom.
            n_atoms: atoms of each structure.
            neighbors: indices of the neighbors.
            neighbor_mask: used entries.
            cell_shifts: lattice translations of the neighbors; zeros in open structures.

        Returns:
            eV, `[atoms]`.
        """
        batch = Batch(
            numbers=numbers,
            positions=positions,
            n_atoms=n_atoms,
            structure_index=structure_index,
            cell=cell,
            pbc=pbc,
            neighbors=neighbors,
            neighbor_mask=neighbor_mask,
            cell_shifts=cell_shifts,
            rng_keys=n_atoms,
            ids=(),
            cutoff=self.cutoff,
        )
        return self.potential(batch)


def batch_tensors(batch: Batch) -> tuple[Tensor, ...]:
    """The arguments of `TensorPotential.forward`.

    Args:
        batch: any batch.

    Returns:
        Its tensors, in their order.
    """
    shifts = batch.cell_shifts
    if shifts is None:
        shifts = batch.positions.new_zeros(*batch.neighbors.shape, 3)
    return (
        batch.numbers,
        batch.positions,
        batch.cell,
        batch.pbc,
        batch.structure_index,
        batch.n_atoms,
        batch.neighbors,
        batch.neighbor_mask,
        shifts,
    )


def trace_potential(potential: Potential) -> torch.jit.ScriptModule:
    """Record a potential as TorchScript, in its dtype and on its device.

    Args:
        potential: any potential; it is switched to evaluation mode.

    Returns:
        A TorchScript module with the arguments of `TensorPotential.forward`, differentiable in positions and cell. It
        runs on the device of the potential only.

    Raises:
        RequestError: the potential cannot be recorded; the message has the operation.
    """
    module = TensorPotential(potential.eval())
    dtype, device = dtype_and_device(potential)
    example, *others = (
        collate(structures, potential.cutoff, dtype=dtype, device=device) for structures in _structures(potential)
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            traced = torch.jit.trace(module, batch_tensors(example), check_trace=False)
        except HesseError:
            raise
        except Exception as error:
            raise _refusal(potential, first_line(error)) from error
    constants = [w for w in caught if issubclass(w.category, torch.jit.TracerWarning)]
    for batch in others:
        difference = _compare(potential, traced, batch)
        if difference is not None:
            raise _refusal(potential, difference, constants)
    return traced


def _structures(potential: Potential) -> list[list[Structure]]:
    """Batches of different sizes and compositions; the first has two or more atoms of every element."""
    elements = potential.elements or _FEW_ELEMENTS
    generator = np.random.default_rng(0)
    spacing = min(2.2 * float(max(covalent_radii[list(elements)].max(), 0.7)), max(0.6 * potential.cutoff, 1.0))

    def grid(numbers: list[int], *, periodic: bool) -> Structure:
        side = int(np.ceil(len(numbers) ** (1 / 3)))
        corners = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[: len(numbers)]
        positions = spacing * (corners + 0.15 * generator.uniform(-1, 1, size=(len(numbers), 3)))
        cell = spacing * side * (np.eye(3) + 0.05 * generator.uniform(-1, 1, size=(3, 3)))
        return Structure(np.array(numbers), positions, cell=cell if periodic else np.zeros((3, 3)), pbc=periodic)  # type: ignore[arg-type]

    twice, first, last = [*elements, *elements], elements[0], elements[-1]
    return [
        [grid(twice, periodic=True), grid(twice[:5], periodic=False)],
        [grid([last], periodic=False)],
        [grid([first, last], periodic=True), grid([last] * 7, periodic=False), grid([first] * 3, periodic=True)],
        [grid([*twice, first, last, first], periodic=False)],
    ]


def _compare(potential: Potential, traced: torch.jit.ScriptModule, batch: Batch) -> str | None:
    """Difference between a potential and its recording, in words; None if there is none."""
    positions, cell = batch.positions.requires_grad_(True), batch.cell.requires_grad_(True)
    batch = replace(batch, positions=positions, cell=cell, cell_shifts=batch_tensors(batch)[-1])
    expected = potential(batch)
    try:
        with torch.jit.optimized_execution(False):
            energies = traced(*batch_tensors(batch))
            results = [energies, *_slopes(energies, [positions, cell])]
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        return next((line for line in reversed(lines) if line.startswith("RuntimeError")), lines[-1])
    names = ("energies", "gradients", "derivatives by the cell")
    for name, a, b in zip(names, results, [expected, *_slopes(expected, [positions, cell])], strict=True):
        largest = float((a.double() - b.double()).detach().abs().max())
        if not largest <= TOLERANCE[positions.dtype] * max(1.0, float(b.detach().abs().max())):
            return f"{name} of {len(batch.numbers)} atoms differ by {largest:.2g}"
    return None


def _slopes(energies: Tensor, variables: list[Tensor]) -> list[Tensor]:
    """Derivatives of the total energy; zeros where it does not depend on a variable."""
    if not energies.requires_grad:
        return [torch.zeros_like(v) for v in variables]
    slopes = torch.autograd.grad(energies.sum(), variables, allow_unused=True)
    return [torch.zeros_like(v) if s is None else s for s, v in zip(slopes, variables, strict=True)]


def _refusal(potential: Potential, what: str, constants: list[warnings.WarningMessage] | None = None) -> RequestError:
    places = list(dict.fromkeys(_describe(warning) for warning in constants or ()))
    cause = f" Operations whose values were taken as constants: {'; '.join(places[:3])}." if places else ""
    return RequestError(
        f"{type(potential).__name__} cannot be exported as TorchScript ({what}).{cause} Use it through Python instead: "
        "the ASE calculator, torch-sim, i-PI, LAMMPS' fix external and OpenMM take every potential."
    )


def _describe(warning: warnings.WarningMessage) -> str:
    code = linecache.getline(warning.filename, warning.lineno).strip()
    return f"{Path(warning.filename).name}:{warning.lineno}: {code}"
