"""Energies, forces and stress as one compiled function, for many evaluations of one potential: dynamics, relaxations.

The eager `evaluate` starts some hundred operations one by one, which for a small molecule takes longer than their
arithmetic. Compiled, they are a few fused loops. The compiled function is compared with `evaluate` when it is used for
the first time, and now and then later.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from hesse.curvature.compiled_batches import (
    OutputModule,
    compile_for_batches,
    compiled_shape,
    own_storage,
    refuse_random_layers,
)
from hesse.curvature.energy_derivatives import (
    apply_strain,
    check_energy_shape,
    evaluate,
    prepare_batch,
    stress_from_strain_gradient,
)
from hesse.errors import CompilationError
from hesse.potential import Potential
from hesse.structures import Batch, Properties, Request

__all__ = ["CHECK_EVERY", "TOLERANCE", "CompiledEvaluation"]

CHECK_EVERY: Final = 1000
"""Calls between comparisons with `evaluate`."""
TOLERANCE: Final = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest accepted difference to `evaluate`, relative to the largest value; sums have other orders."""

_FEW: Final = 2
"""Smaller numbers of atoms or neighbors are evaluated by `evaluate`: the compiler would treat 0 and 1 as constants."""


class CompiledEvaluation:
    """`hesse.curvature.evaluate` for energies, forces, stress and atomic energies, compiled.

    The first call of each kind (one structure or several, open or periodic, with stress or without) compiles, which
    takes half a minute to minutes, or seconds if PyTorch finds the result of an earlier process in its cache. One
    compilation serves all sizes, except that networks with another layout for large structures, or a table with a
    single entry, are compiled once more. Other properties, and structures so small that there is nothing to save
    (atoms, diatomic molecules), are evaluated by `evaluate`.

    Args:
        potential: one of Hesse's own networks, or one that passes the check `compile` of `hesse check`. Its parameters
            may change later.
        backend: backend of `torch.compile`; "aot_eager" traces without generating code, for debugging.

    Attributes:
        n_compiled: number of evaluations by the compiled function so far.
        largest_difference: largest relative difference to `evaluate` that was seen.

    Raises:
        CompilationError: the potential draws random numbers (dropout).
    """

    def __init__(self, potential: Potential, *, backend: str = "inductor") -> None:
        refuse_random_layers(potential)
        self.potential = potential
        self.n_compiled, self.largest_difference = 0, 0.0
        self._outputs = OutputModule(potential)
        self._function = compile_for_batches(_energies_and_gradients, backend=backend, cpp_wrapper=True)
        self._kinds: set[tuple[object, ...]] = set()

    def __call__(self, batch: Batch, request: Request) -> Properties:
        """Compute properties.

        Args:
            batch: structures with neighbors.
            request: the properties.

        Returns:
            See `hesse.curvature.evaluate`.

        Raises:
            CompilationError: the potential cannot be compiled, or the compiled function gives other values.
            HesseError: see `hesse.curvature.evaluate`.
        """
        prepared = prepare_batch(self.potential, batch, request, check_elements=True)
        if not request.forces or request.probes is not None or request.hessian or request.outputs:
            return evaluate(self.potential, prepared, request)
        if min(prepared.neighbors.shape) < _FEW:
            return evaluate(self.potential, prepared, request)
        tensors = {name: own_storage(value) for name, value in vars(prepared).items()}
        without_ids = Batch(**{**tensors, "ids": ()})  # the compiler would treat ids as constants
        try:
            atomic, gradient, stress = self._function(self._outputs, without_ids, request.stress)
        except CompilationError as error:
            name = type(self.potential).__name__
            raise CompilationError(f"{name} cannot be compiled ({error}). Use it without compile.") from error
        check_energy_shape(self.potential, atomic, len(batch.numbers))
        result = Properties(
            n_atoms=batch.n_atoms,
            energy=prepared.sum_over_atoms(atomic) if request.energy else None,
            forces=-gradient,
            atomic_energies=atomic if request.atomic_energies else None,
            stress=stress,
            stress_mask=None if stress is None else prepared.pbc.all(-1),
        )
        self.n_compiled += 1
        kind = (request.stress, compiled_shape(prepared))
        if kind not in self._kinds or self.n_compiled % CHECK_EVERY == 0:
            self._compare(result, evaluate(self.potential, prepared, request))
            self._kinds.add(kind)
        return result

    def _compare(self, compiled: Properties, eager: Properties) -> None:
        """Raises CompilationError if compiled and eager values differ."""
        assert eager.forces is not None
        tolerance = TOLERANCE[eager.forces.dtype]  # energies may be sums in float64 of float32 numbers
        for name in ("forces", "atomic_energies", "energy", "stress"):
            reference: Tensor | None = getattr(eager, name)
            if reference is None:
                continue
            values: Tensor = getattr(compiled, name)
            finite = torch.isfinite(reference)
            scale = float(reference[finite].abs().max()) if bool(finite.any()) else 0.0
            difference = float((values - reference)[finite].abs().max()) / max(scale, 1e-3) if scale else 0.0
            same = bool((torch.isfinite(values) == finite).all())
            self.largest_difference = max(self.largest_difference, difference)
            if not same or difference > tolerance:
                raise CompilationError(
                    f"compiled {name} differ from plain ones by {difference:.1e} of their largest value: use this "
                    "potential without compile, and please report it"
                )


def _energies_and_gradients(outputs: OutputModule, batch: Batch, stress: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """The function to compile: atomic energies, gradient of the energy, and stress."""

    def total_energy(x: Tensor, strain: Tensor) -> tuple[Tensor, Tensor]:
        displaced = apply_strain(batch, x, strain) if stress else batch.with_positions(positions=x)
        atomic = outputs(displaced)["atomic_energies"]
        return atomic.sum(), atomic

    zero_strain, argnums = torch.zeros_like(batch.cell), (0, 1) if stress else (0,)
    (gradient, *by_strain), atomic = torch.func.grad(total_energy, argnums=argnums, has_aux=True)(
        batch.positions, zero_strain
    )
    return atomic, gradient, stress_from_strain_gradient(batch, by_strain[0]) if by_strain else None
