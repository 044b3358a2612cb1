"""A potential prepared for checks, and the questions that most checks ask it."""

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
from hesse.potential import Potential
from hesse.structures import Batch, Request, Structure, collate

__all__ = ["CheckContext", "Predictions", "largest_error", "make_context", "random_directions", "relative_error"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Energies (eV), forces (eV/Å) and Hessian-vector products (eV/Å²) of structures, float64 arrays."""

    energy: Float[Array, "structures"]
    forces: list[Float[Array, "n 3"]]
    hvp: list[Float[Array, "n 3"]]

    def all_finite(self) -> bool:
        """Whether all numbers are."""
        return all(np.isfinite(part).all() for part in (self.energy, *self.forces, *self.hvp))


@dataclass(frozen=True, eq=False)
class CheckContext:
    """What is checked, and on what.

    Attributes:
        potential: a copy in the type and on the device of the checks, in evaluation mode.
        molecules: open structures to try it on.
        crystals: structures periodic in all directions.
        elements: of these; further structures are made of them.
    """

    potential: Potential
    molecules: tuple[Structure, ...]
    crystals: tuple[Structure, ...]
    elements: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def tolerance(self, double: float, single: float) -> float:
        """The limit that belongs to the type of the checks."""
        return double if self.dtype == torch.float64 else single

    def batch(self, structures: Sequence[Structure], cutoff: float | None = None) -> Batch:
        """The structures with neighbors up to the potential's cutoff (or a longer one)."""
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
        """Energies, forces and, with directions `along`, Hessian-vector products: one structure at a time, so that no
        other one can interfere, or all in one batch."""
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
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> CheckContext:
    """A subject: the potential itself is left alone. Where `structures` hold no molecule (or no crystal), built-in ones
    of the same elements are taken.

    Raises:
        RequestError: the potential cannot be copied, or does not know an element of the structures; or these are all
            periodic in one or two directions only.
    """
    try:
        model = copy.deepcopy(potential).to(dtype=dtype, device=device).eval()
    except Exception as error:  # somebody else's module
        raise RequestError(
            f"this {type(potential).__name__} cannot be copied in {dtype} ({type(error).__name__}: {error}). Training "
            "copies a potential too: keep nothing but parameters, buffers and plain values in it."
        ) from error
    supplied = tuple(structures or ())
    supplied_elements = tuple(sorted({int(z) for s in supplied for z in s.numbers}))
    unknown = sorted(set(supplied_elements) - set(potential.elements)) if potential.elements else []
    if unknown:
        raise RequestError(
            f"the structures hold element Z = {unknown[0]}, which this {type(potential).__name__} does not know (it "
            f"knows {list(potential.elements)})"
        )
    if supplied and not any(not s.periodic or all(s.pbc) for s in supplied):
        raise RequestError(
            "all structures are periodic in one or two directions only; checks take open structures and crystals"
        )
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
    """Random directions, one per structure, with components of order one."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(len(s), 3)) for s in structures]


def relative_error(actual: Float[Array, "*any"], expected: Float[Array, "*any"], size: float | None = None) -> float:
    """Largest difference over `size` (by default the largest value wanted): 0 where both are zero, NaN where a number
    is not finite."""
    scale = float(np.abs(expected).max(initial=0.0)) if size is None else size
    difference = float(np.abs(actual - expected).max(initial=0.0))
    return difference / scale if scale != 0 else (np.inf if difference > 0 else difference)


def largest_error(context: CheckContext, actual: Predictions, expected: Predictions) -> tuple[float, str]:
    """The largest relative error of two sets of answers, and which it is, on the scale of the largest value of all
    structures. A relaxed structure has no forces to measure by: a hundredth of the curvature counts as one; energies
    have no zero of their own, and are measured by forces times 1 Å."""
    curvature = max((float(np.abs(p).max(initial=0.0)) for p in expected.hvp), default=0.0)
    force = max(0.01 * curvature, *(float(np.abs(f).max(initial=0.0)) for f in expected.forces))
    # Energies of 10⁴ eV are rounded more coarsely than forces of 1 eV/Å are wrong.
    rounding = 10.0 * float(np.abs(expected.energy).max()) * torch.finfo(context.dtype).eps
    energy = np.maximum(np.abs(actual.energy - expected.energy) - rounding, 0.0)
    errors = {"energy": relative_error(energy, np.zeros_like(energy), force)}
    for name, ours, theirs, size in (
        ("forces", actual.forces, expected.forces, force),
        ("H v", actual.hvp, expected.hvp, curvature),
    ):
        if theirs:
            errors[name] = relative_error(np.concatenate(ours), np.concatenate(theirs), size)
    name = max(errors, key=lambda k: np.inf if np.isnan(errors[k]) else errors[k])
    return errors[name], name


def _to_numpy(values: Tensor) -> Array:
    return values.detach().to("cpu", torch.float64).numpy()


def _split_by_structure(values: Tensor, sizes: Sequence[int]) -> list[Array]:
    return np.split(_to_numpy(values), np.cumsum(sizes)[:-1])
