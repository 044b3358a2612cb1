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

from hesse.checks.samples import chosen_elements, sample_structures
from hesse.curvature import evaluate
from hesse.errors import RequestError
from hesse.potential import Potential
from hesse.structures import Batch, Request, Structure, collate

__all__ = ["Answers", "Subject", "directions", "prepare", "relative_error", "worst"]


@dataclass(frozen=True, eq=False)
class Answers:
    """Energies (eV), forces (eV/Å) and Hessian-vector products (eV/Å²) of structures, float64 arrays."""

    energy: Float[Array, "structures"]
    forces: list[Float[Array, "n 3"]]
    hvp: list[Float[Array, "n 3"]]

    def finite(self) -> bool:
        """Whether all numbers are."""
        return all(np.isfinite(part).all() for part in (self.energy, *self.forces, *self.hvp))


@dataclass(frozen=True, eq=False)
class Subject:
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

    def limit(self, double: float, single: float) -> float:
        """The limit that belongs to the type of the checks."""
        return double if self.dtype == torch.float64 else single

    def batch(self, structures: Sequence[Structure], cutoff: float | None = None) -> Batch:
        """The structures with neighbours up to the potential's cutoff (or a longer one)."""
        reach = self.potential.cutoff if cutoff is None else cutoff
        return collate(structures, reach, dtype=self.dtype, device=self.device)

    def ask(
        self,
        structures: Sequence[Structure],
        along: Sequence[Float[Array, "n 3"]] | None = None,
        *,
        together: bool = False,
        cutoff: float | None = None,
    ) -> Answers:
        """Energies, forces and, with directions `along`, Hessian-vector products: one structure at a time, so that no
        other one can interfere, or all in one batch."""
        if not together and len(structures) > 1:
            lone = [
                self.ask([s], None if along is None else [along[k]], cutoff=cutoff) for k, s in enumerate(structures)
            ]
            return Answers(
                np.concatenate([a.energy for a in lone]),
                [a.forces[0] for a in lone],
                [a.hvp[0] for a in lone if a.hvp],
            )
        probes = None
        if along is not None:
            probes = torch.from_numpy(np.concatenate(along))[None].to(device=self.device, dtype=self.dtype)
        labels = evaluate(self.potential, self.batch(structures, cutoff), Request(forces=True, probes=probes))
        sizes = [len(s) for s in structures]
        assert labels.energy is not None
        assert labels.forces is not None
        hvp = [] if labels.hvp is None else _parts(labels.hvp[0], sizes)
        return Answers(_numpy(labels.energy), _parts(labels.forces, sizes), hvp)


def prepare(
    potential: Potential,
    structures: Sequence[Structure] | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Subject:
    """A subject: the potential itself is left alone. Where `structures` hold no molecule (or no crystal), built-in ones
    of the same elements are taken.

    Raises:
        RequestError: the potential cannot be copied, or does not know an element of the structures; or these are all
            periodic in one or two directions only.
    """
    try:
        own = copy.deepcopy(potential).to(dtype=dtype, device=device).eval()
    except Exception as error:  # somebody else's module
        raise RequestError(
            f"this {type(potential).__name__} cannot be copied in {dtype} ({type(error).__name__}: {error}). Training "
            "copies a potential too: keep nothing but parameters, buffers and plain values in it."
        ) from error
    given = tuple(structures or ())
    used = tuple(sorted({int(z) for s in given for z in s.numbers}))
    foreign = sorted(set(used) - set(potential.elements)) if potential.elements else []
    if foreign:
        raise RequestError(
            f"the structures hold element Z = {foreign[0]}, which this {type(potential).__name__} does not know (it "
            f"knows {list(potential.elements)})"
        )
    if given and not any(not s.periodic or all(s.pbc) for s in given):
        raise RequestError(
            "all structures are periodic in one or two directions only; checks take open structures and crystals"
        )
    elements = chosen_elements(used or potential.elements)
    built_in = sample_structures(elements)
    return Subject(
        potential=own,
        molecules=tuple(s for s in given if not s.periodic) or tuple(s for s in built_in if not s.periodic),
        crystals=tuple(s for s in given if all(s.pbc)) or tuple(s for s in built_in if s.periodic),
        elements=elements,
        dtype=dtype,
        device=torch.device(device),
    )


def directions(structures: Sequence[Structure], seed: int) -> list[Float[Array, "n 3"]]:
    """Random directions, one per structure, with components of order one."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(len(s), 3)) for s in structures]


def relative_error(found: Float[Array, "*any"], wanted: Float[Array, "*any"], size: float | None = None) -> float:
    """Largest difference over `size` (by default the largest value wanted): 0 where both are zero, NaN where a number
    is not finite."""
    scale = float(np.abs(wanted).max(initial=0.0)) if size is None else size
    gap = float(np.abs(found - wanted).max(initial=0.0))
    return gap / scale if scale != 0 else (np.inf if gap > 0 else gap)


def worst(subject: Subject, found: Answers, wanted: Answers) -> tuple[float, str]:
    """The largest relative error of two sets of answers, and which it is, on the scale of the largest value of all
    structures. A relaxed structure has no forces to measure by: a hundredth of the curvature counts as one; energies
    have no zero of their own, and are measured by forces times 1 Å."""
    curvature = max((float(np.abs(p).max(initial=0.0)) for p in wanted.hvp), default=0.0)
    force = max(0.01 * curvature, *(float(np.abs(f).max(initial=0.0)) for f in wanted.forces))
    # Energies of 10⁴ eV are rounded more coarsely than forces of 1 eV/Å are wrong.
    rounding = 10.0 * float(np.abs(wanted.energy).max()) * torch.finfo(subject.dtype).eps
    energy = np.maximum(np.abs(found.energy - wanted.energy) - rounding, 0.0)
    errors = {"energy": relative_error(energy, np.zeros_like(energy), force)}
    for name, ours, theirs, size in (
        ("forces", found.forces, wanted.forces, force),
        ("H v", found.hvp, wanted.hvp, curvature),
    ):
        if theirs:
            errors[name] = relative_error(np.concatenate(ours), np.concatenate(theirs), size)
    name = max(errors, key=lambda k: np.inf if np.isnan(errors[k]) else errors[k])
    return errors[name], name


def _numpy(values: Tensor) -> Array:
    return values.detach().to("cpu", torch.float64).numpy()


def _parts(values: Tensor, sizes: Sequence[int]) -> list[Array]:
    return np.split(_numpy(values), np.cumsum(sizes)[:-1])
