"""Potentials composed of potentials: a sum (repulsion plus network), a mean (ensemble)."""

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
    """Common base of sums and means: the largest cutoff, and the elements that all parts support."""

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
        """The potentials it is composed of."""
        return tuple(self._parts)  # type: ignore[arg-type]

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """Atomic energies.

        Args:
            batch: neighbors up to the largest cutoff of the parts.

        Returns:
            eV, float64.
        """
        return self.outputs(batch)["atomic_energies"]

    def precompute(self, batch: Batch) -> Batch:
        """See `Potential.precompute`: a tuple with the tables of every part."""
        return replace(batch, precomputed=tuple(part.precompute(batch).precomputed for part in self.parts))

    @property
    def output_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Outputs of any of the parts."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.output_names))

    def _sum_outputs(self, batch: Batch) -> dict[str, Tensor]:
        """Sums over the parts that have an output; energies in float64."""
        tables = batch.precomputed or [None] * len(self.parts)
        results = [
            part.outputs(replace(batch, precomputed=table)) for part, table in zip(self.parts, tables, strict=True)
        ]
        names = dict.fromkeys(name for result in results for name in result)
        stacks = {name: [result[name] for result in results if name in result] for name in names}
        stacks["atomic_energies"] = [energy.to(torch.float64) for energy in stacks["atomic_energies"]]
        return {name: torch.stack(values).sum(0) for name, values in stacks.items()}


class SumPotential(_CompositePotential):
    """`E = Σ_p E_p`: repulsion plus network, reference energies plus network, short range plus long range.

    Args:
        parts: potentials. The sum supports the elements that all of them support.

    Raises:
        ConfigError: no parts, a part that is not a potential, or no common element.
    """

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """Sums of the parts' outputs.

        Args:
            batch: neighbors up to the largest cutoff of the parts.

        Returns:
            Atomic energies in eV, float64, and each output that a part has.
        """
        return self._sum_outputs(batch)

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """See `Potential.shift_reference_energies`. Shifts the first part that has reference energies; raises
        RequestError if none has."""
        owners = _reference_owners(self)
        if not owners:
            super().shift_reference_energies(shifts)
        for owner in owners:
            owner.shift_reference_energies(shifts)


class Ensemble(_CompositePotential):
    """`E = (1/M) Σ_m E_m`. The standard deviation over the members comes from `hesse.curvature.evaluate_ensemble`.

    Args:
        parts: the members, potentials of any kind. The ensemble supports the elements that all of them support.

    Raises:
        ConfigError: no members, a member that is not a potential, or no common element.
    """

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """Means of the members' outputs.

        Args:
            batch: neighbors up to the largest cutoff of the members.

        Returns:
            Atomic energies in eV, float64, and each output that a member has.
        """
        return {name: value / len(self.parts) for name, value in self._sum_outputs(batch).items()}

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """See `Potential.shift_reference_energies`. Shifts every member; reference energies that members share are
        shifted once. Raises RequestError, before anything is changed, if a member has none."""
        for member in self.parts:
            if not _reference_owners(member):
                member.shift_reference_energies(shifts)  # raises
        for owner in _reference_owners(self):
            owner.shift_reference_energies(shifts)


def _reference_owners(potential: Potential) -> list[Potential]:
    """The potentials, each once, whose reference energies change when those of `potential` are shifted."""
    if isinstance(potential, Ensemble):
        return list({id(owner): owner for member in potential.parts for owner in _reference_owners(member)}.values())
    if isinstance(potential, SumPotential):
        return next((owners for part in potential.parts if (owners := _reference_owners(part))), [])
    try:
        potential.shift_reference_energies({})  # changes nothing
    except RequestError:
        return []
    return [potential]


def with_reference_energies(potential: Potential, energies: Mapping[int, float]) -> SumPotential:
    """A potential plus a constant energy per element.

    Args:
        potential: any potential.
        energies: eV by atomic number.

    Returns:
        The sum; it supports the elements in `energies` only.
    """
    elements = tuple(sorted(energies))
    values = torch.tensor([energies[z] for z in elements], dtype=torch.float64)
    return SumPotential([ReferenceEnergies(elements, values), potential])
