"""A potential prepared for checks, with test structures, and the predictions and comparisons that checks share."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray as Array
from torch import Tensor

from hesse.checks.builtin_structures import choose_elements, sample_structures
from hesse.curvature import evaluate
from hesse.errors import RequestError
from hesse.potential import Potential, check_elements
from hesse.runtime.dtypes import DTypeLike, as_dtype
from hesse.structures import Batch, Request, Structure, collate

__all__ = ["CheckContext", "Predictions", "largest_error", "make_context", "random_directions", "relative_error"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of a potential, as float64 arrays.

    Attributes:
        energy: eV, one per structure.
        forces: eV/Å, one array per structure.
        hvp: Hessian-vector products, eV/Å², one array per structure; empty if none were requested.
    """

    energy: Float[Array, "structures"]
    forces: list[Float[Array, "n 3"]]
    hvp: list[Float[Array, "n 3"]]

    def all_finite(self) -> bool:
        """Check for NaN and infinity.

        Returns:
            True if all numbers are finite.
        """
        return all(np.isfinite(part).all() for part in (self.energy, *self.forces, *self.hvp))


@dataclass(frozen=True, eq=False)
class CheckContext:
    """The potential to check, and the structures to check it on.

    Attributes:
        potential: a copy with the dtype and on the device of the checks, in evaluation mode.
        molecules: non-periodic structures.
        crystals: structures that are periodic in three directions.
        elements: atomic numbers in these structures; checks build further structures of them.
        dtype: float64 or float32.
        device: where the potential is.
    """

    potential: Potential
    molecules: tuple[Structure, ...]
    crystals: tuple[Structure, ...]
    elements: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def tolerance(self, double: float, single: float) -> float:
        """Limit for the dtype of the checks.

        Args:
            double: limit in float64.
            single: limit in float32.

        Returns:
            One of the two.
        """
        return double if self.dtype == torch.float64 else single

    def batch(self, structures: Sequence[Structure], cutoff: float | None = None) -> Batch:
        """Collate structures.

        Args:
            structures: the structures.
            cutoff: cutoff of the neighbor lists, Å; default: that of the potential.

        Returns:
            A batch with the dtype and on the device of the checks.
        """
        list_cutoff = self.potential.cutoff if cutoff is None else cutoff
        return collate(structures, list_cutoff, dtype=self.dtype, device=self.device)

    def predict(
        self,
        structures: Sequence[Structure],
        along: Sequence[Float[Array, "n 3"]] | None = None,
        *,
        batched: bool = False,
        cutoff: float | None = None,
    ) -> Predictions:
        """Energies, forces and Hessian-vector products.

        Args:
            structures: the structures.
            along: one direction per structure; None for no products.
            batched: True for one batch of all structures; by default each structure is computed alone, so that others
                cannot interfere.
            cutoff: cutoff of the neighbor lists, Å; default: that of the potential.

        Returns:
            Predictions in the order of the structures.
        """
        if not batched and len(structures) > 1:
            separate = [
                self.predict([s], None if along is None else [along[k]], cutoff=cutoff)
                for k, s in enumerate(structures)
            ]
            return Predictions(
                np.concatenate([a.energy for a in separate]),
                [a.forces[0] for a in separate],
                [a.hvp[0] for a in separate if a.hvp],
            )
        probes = None
        if along is not None:
            probes = torch.from_numpy(np.concatenate(along))[None].to(device=self.device, dtype=self.dtype)
        labels = evaluate(self.potential, self.batch(structures, cutoff), Request(forces=True, probes=probes))
        sizes = [len(s) for s in structures]
        assert labels.energy is not None
        assert labels.forces is not None
        hvp = [] if labels.hvp is None else _split_by_structure(labels.hvp[0], sizes)
        return Predictions(_to_numpy(labels.energy), _split_by_structure(labels.forces, sizes), hvp)


def make_context(
    potential: Potential,
    structures: Sequence[Structure] | None = None,
    *,
    dtype: DTypeLike = torch.float64,
    device: torch.device | str = "cpu",
) -> CheckContext:
    """Copy a potential and choose the structures to check it on.

    Args:
        potential: any potential; it is not changed.
        structures: structures to check it on. If they contain no molecule (or no crystal), built-in ones of the same
            elements are added; None for built-in structures only.
        dtype: float64 or float32.
        device: device of the calculation.

    Returns:
        The context of all checks.

    Raises:
        UnknownElementError: the potential does not support an element of the structures.
        RequestError: the potential cannot be copied; or all structures are periodic in one or two directions only; or
            another dtype.
    """
    dtype = as_dtype(dtype)
    try:
        model = copy.deepcopy(potential).to(dtype=dtype, device=device).eval()
    except Exception as error:  # third-party code
        raise RequestError(
            f"this {type(potential).__name__} cannot be copied in {dtype} ({type(error).__name__}: {error}). Training "
            "copies a potential too, so it may hold only parameters, buffers and plain values."
        ) from error
    supplied = tuple(structures or ())
    for structure in supplied:
        check_elements(potential, structure.numbers, where=f'structure "{structure.id}"')
    if supplied and not any(not s.periodic or all(s.pbc) for s in supplied):
        raise RequestError(
            "all structures are periodic in one or two directions only; checks need molecules or crystals"
        )
    supplied_elements = sorted({int(z) for s in supplied for z in s.numbers})
    elements = choose_elements(supplied_elements or potential.elements)
    built_in = sample_structures(elements)
    return CheckContext(
        potential=model,
        molecules=tuple(s for s in supplied if not s.periodic) or tuple(s for s in built_in if not s.periodic),
        crystals=tuple(s for s in supplied if all(s.pbc)) or tuple(s for s in built_in if s.periodic),
        elements=elements,
        dtype=dtype,
        device=torch.device(device),
    )


def random_directions(structures: Sequence[Structure], seed: int) -> list[Float[Array, "n 3"]]:
    """Random directions with components of order one.

    Args:
        structures: the structures.
        seed: seed of the random numbers.

    Returns:
        One direction per structure.
    """
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(len(s), 3)) for s in structures]


def relative_error(actual: Float[Array, "*any"], expected: Float[Array, "*any"], size: float | None = None) -> float:
    """Largest absolute difference, relative to a size.

    Args:
        actual: values to compare.
        expected: values they should have.
        size: the number to divide by; default: the largest absolute value in `expected`.

    Returns:
        0 if both are zero everywhere; NaN if a number is not finite.
    """
    scale = float(np.abs(expected).max(initial=0.0)) if size is None else size
    difference = float(np.abs(actual - expected).max(initial=0.0))
    return difference / scale if scale != 0 else (np.inf if difference > 0 else difference)


def largest_error(context: CheckContext, actual: Predictions, expected: Predictions) -> tuple[float, str]:
    """Largest relative error among energies, forces and Hessian-vector products.

    Errors are relative to the largest value among all structures. As relaxed structures have no forces, a hundredth of
    the curvature (times 1 Å) counts as a force; and as energies have no natural zero, they are compared with forces
    times 1 Å.

    Args:
        context: gives the dtype.
        actual: predictions to compare.
        expected: predictions they should equal.

    Returns:
        The error, and the name of the quantity.
    """
    curvature = max((float(np.abs(p).max(initial=0.0)) for p in expected.hvp), default=0.0)
    force = max(0.01 * curvature, *(float(np.abs(f).max(initial=0.0)) for f in expected.forces))
    # Subtract rounding: that of an energy of 10⁴ eV is larger than an acceptable error of forces of 1 eV/Å.
    rounding = 10.0 * float(np.abs(expected.energy).max()) * torch.finfo(context.dtype).eps
    energy = np.maximum(np.abs(actual.energy - expected.energy) - rounding, 0.0)
    errors = {"energy": relative_error(energy, np.zeros_like(energy), force)}
    for name, values, references, size in (
        ("forces", actual.forces, expected.forces, force),
        ("H v", actual.hvp, expected.hvp, curvature),
    ):
        if references:
            errors[name] = relative_error(np.concatenate(values), np.concatenate(references), size)
    name = max(errors, key=lambda k: np.inf if np.isnan(errors[k]) else errors[k])
    return errors[name], name


def _to_numpy(values: Tensor) -> Array:
    return values.detach().to("cpu", torch.float64).numpy()


def _split_by_structure(values: Tensor, sizes: Sequence[int]) -> list[Array]:
    return np.split(_to_numpy(values), np.cumsum(sizes)[:-1])
