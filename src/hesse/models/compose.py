"""Potentials made of potentials: a sum (prior and learned part), a mean (committee)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hesse.errors import ConfigError, RequestError
from hesse.models.reference_energies import ReferenceEnergies
from hesse.potential import Potential
from hesse.structures import Batch

__all__ = ["Ensemble", "SumPotential", "with_reference_energies"]


class _CompositePotential(Potential):
    """What sums and means share: a batch that serves every part, and the elements that all of them know."""

    def __init__(self, parts: Sequence[Potential]) -> None:
        super().__init__()
        if not parts:
            raise ConfigError(f"a {type(self).__name__} needs at least one potential")
        for part in parts:
            if not isinstance(part, Potential):
                raise ConfigError(
                    f"expected potentials in a {type(self).__name__}, got a {type(part).__name__}. Any energy function "
                    "becomes one through hesse.models.adapters.CallablePotential."
                )
        self._parts = nn.ModuleList(parts)
        self.cutoff = max(part.cutoff for part in parts)
        self.has_atomic_energies = all(part.has_atomic_energies for part in parts)
        self.supports_vmap = all(part.supports_vmap for part in parts)
        known = [set(part.elements) for part in parts if part.elements]
        self.elements = tuple(sorted(set.intersection(*known))) if known else ()
        if known and not self.elements:
            raise ConfigError(f"no element is known to all parts of this {type(self).__name__}")

    @property
    def parts(self) -> tuple[Potential, ...]:
        """The potentials that this one is made of."""
        return tuple(self._parts)  # type: ignore[arg-type]

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """Atomic energies, eV."""
        return self.forward_with_regularizer(batch)[0]

    def precompute(self, batch: Batch) -> Batch:
        """With the tables of every part."""
        return replace(batch, precomputed=tuple(part.precompute(batch).precomputed for part in self.parts))

    def _evaluate_parts(self, batch: Batch) -> tuple[Float[Tensor, "parts atoms"], Float[Tensor, "structures"] | None]:
        """Energies of every part, and the sum of those penalties that there are."""
        precomputed = batch.precomputed or [None] * len(self.parts)
        results = [
            part.forward_with_regularizer(replace(batch, precomputed=t))
            for part, t in zip(self.parts, precomputed, strict=True)
        ]
        energies, regularizers = zip(*results, strict=True)
        present = [value for value in regularizers if value is not None]
        return torch.stack([e.to(torch.float64) for e in energies]), torch.stack(present).sum(0) if present else None


class SumPotential(_CompositePotential):
    """`E = Σ_p E_p`: a prior plus a learned part, references plus a network, short range plus long range.

    Args:
        parts: potentials; every element must be known to all of them (those that know any do not count).

    Raises:
        ConfigError: no parts, or no common element.
    """

    def forward_with_regularizer(
        self, batch: Batch
    ) -> tuple[Float[Tensor, "atoms"], Float[Tensor, "structures"] | None]:
        """Sums of the parts' atomic energies, eV, float64, and of their penalties."""
        energies, regularizer = self._evaluate_parts(batch)
        return energies.sum(0), regularizer

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """Goes to the first part that holds references. Raises RequestError where none does."""
        owners = _reference_owners(self)
        if not owners:
            super().shift_reference_energies(shifts)
        for owner in owners:
            owner.shift_reference_energies(shifts)


class Ensemble(_CompositePotential):
    """`E = (1/M) Σ_m E_m`. How far the members lie apart, in any observable, tells `hesse.curvature.ensemble`.

    Args:
        members: potentials of any kinds.

    Raises:
        ConfigError: no members, or no common element.
    """

    def forward_with_regularizer(
        self, batch: Batch
    ) -> tuple[Float[Tensor, "atoms"], Float[Tensor, "structures"] | None]:
        """Means of the members' atomic energies, eV, float64, and of their penalties."""
        energies, regularizer = self._evaluate_parts(batch)
        return energies.mean(0), None if regularizer is None else regularizer / len(self.parts)

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """Goes to every member; references that members share are shifted once. Raises RequestError, before anything
        is changed, where a member holds none."""
        for member in self.parts:
            if not _reference_owners(member):
                member.shift_reference_energies(shifts)  # raises
        for owner in _reference_owners(self):
            owner.shift_reference_energies(shifts)


def _reference_owners(potential: Potential) -> list[Potential]:
    """The potentials, each once, whose references a shift of `potential` moves."""
    if isinstance(potential, Ensemble):
        return list({id(owner): owner for member in potential.parts for owner in _reference_owners(member)}.values())
    if isinstance(potential, SumPotential):
        return next((owners for part in potential.parts if (owners := _reference_owners(part))), [])
    try:
        potential.shift_reference_energies({})  # moves nothing
    except RequestError:
        return []
    return [potential]


def with_reference_energies(potential: Potential, energies: Mapping[int, float]) -> SumPotential:
    """`potential` plus an energy per element, `{atomic number: eV}`; it knows those elements only."""
    elements = tuple(sorted(energies))
    values = torch.tensor([energies[z] for z in elements], dtype=torch.float64)
    return SumPotential([ReferenceEnergies(elements, values), potential])
