"""Energies, forces and stress as one compiled function, for many evaluations of one potential: dynamics, relaxations.

The eager `evaluate` starts some hundred operations one by one, which for a small molecule takes longer than their
arithmetic. Compiled, they are a few fused loops. The compiled function is compared with `evaluate` when it is used for
the first time, and now and then later.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
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
ROUNDING_RATIO: Final = 4.0
"""In float32, compiled values may be this many times as far from those in float64 as plain ones are."""

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
            self._compare(result, prepared, request)
            self._kinds.add(kind)
        return result

    def _compare(self, compiled: Properties, batch: Batch, request: Request) -> None:
        """Raises CompilationError if compiled and plain values differ by more than rounding."""
        plain = evaluate(self.potential, batch, request)
        assert plain.forces is not None
        differences = _differences(compiled, plain)
        self.largest_difference = max(self.largest_difference, *differences.values())
        # Energies may be sums in float64 of float32 numbers.
        tolerance = TOLERANCE[plain.forces.dtype]
        wrong = [name for name, difference in differences.items() if not difference <= tolerance]
        if wrong and plain.forces.dtype == torch.float32:
            # Sums of large numbers that cancel, as in a perfect crystal: are both equally far from the exact ones?
            exact = evaluate(copy.deepcopy(self.potential).double(), replace(batch, precomputed=None), request)
            of_compiled, of_plain = _differences(compiled, exact), _differences(plain, exact)
            wrong = [name for name in wrong if not of_compiled[name] <= ROUNDING_RATIO * of_plain[name]]
        if wrong:
            raise CompilationError(
                f"compiled {wrong[0]} differ from plain ones by {differences[wrong[0]]:.1e} of their largest value: "
                "use this potential without compile, and please report it"
            )


def _differences(values: Properties, reference: Properties) -> dict[str, float]:
    """Largest difference of each property, relative to its largest value (at least 1e-3); infinity if other values are
    missing or not finite."""
    result = {}
    for name in ("forces", "atomic_energies", "energy", "stress"):
        expected: Tensor | None = getattr(reference, name)
        if expected is None:
            continue
        given: Tensor = getattr(values, name)
        finite = torch.isfinite(expected)
        if not bool((torch.isfinite(given) == finite).all()):
            result[name] = math.inf
        elif bool(finite.any()):
            gap = (given.double() - expected.double())[finite].abs().max()
            result[name] = float(gap) / max(float(expected[finite].abs().max()), 1e-3)
    return result


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
