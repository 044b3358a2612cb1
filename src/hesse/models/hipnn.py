"""HIP-NN-TS: the hierarchically interacting particle neural network with tensor sensitivities.

Lubbers, Smith, Barros, J. Chem. Phys. 148, 241715 (2018) for l = 0; Chigaev et al., J. Chem. Phys. 158, 184108 (2023),
arXiv 2212.03195, for l = 1, 2. It differs from the published network in three defaults, all because training on
curvature differentiates three times: a cutoff that is smooth to third order (the published cosine is an option), a
larger ε under the square roots of the tensor invariants, and sensitivities that start out fewer and wider.

Axes: atoms; k = neighbors of an atom; s = sensitivities; c = tensor components (1, 4 or 9); features.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from hesse.models.reference_energies import ReferenceEnergies
from hesse.potential import Potential
from hesse.smooth import cosine_cutoff, masked_norm, smooth_cutoff, softened_sqrt
from hesse.structures import Batch

__all__ = ["Hipnn", "HipnnConfig", "PaddedMolecules", "pad_molecules"]


class PaddedMolecules(NamedTuple):
    """Open structures of a batch, padded to the longest.

    Attributes:
        atoms: the atom at each place; padding repeats the first atom of its structure.
        pairs: which two places hold two different atoms.
        places: where each atom of the batch stands in the flattened `atoms`.
    """

    atoms: Int[Tensor, "structures longest"]
    pair_mask: Bool[Tensor, "structures longest longest"]
    slots: Int[Tensor, "atoms"]

    def vectors(self, positions: Float[Tensor, "atoms 3"]) -> Float[Tensor, "structures longest longest 3"]:
        """From each place to each other of its structure, Å."""
        padded_positions = positions.index_select(0, self.atoms.reshape(-1)).reshape(*self.atoms.shape, 3)
        return padded_positions[:, None] - padded_positions[:, :, None]


@torch.no_grad()
def pad_molecules(batch: Batch, max_atoms: int) -> PaddedMolecules:
    """Blocks of a batch of open structures, the longest of which has `longest` atoms."""
    slot = torch.arange(max_atoms, device=batch.numbers.device)
    is_atom = slot < batch.n_atoms[:, None]
    first = batch.n_atoms.cumsum(0) - batch.n_atoms
    off_diagonal = slot[:, None] != slot
    return PaddedMolecules(
        atoms=first[:, None] + torch.where(is_atom, slot, 0),
        pair_mask=is_atom[:, None] & is_atom[:, :, None] & off_diagonal,
        slots=(slot + max_atoms * torch.arange(len(batch), device=slot.device)[:, None])[is_atom],
    )


MAX_FEATURES_AGGREGATE_FIRST = 16
"""So many at most in a first layer, which sees elements: summing them over neighbors first is then shorter."""
MAX_PADDED_ATOMS = 64
"""Atoms; a block takes memory by the square of its size."""
COMPONENTS = {0: 1, 1: 4, 2: 9}
"""Tensor components up to order l: 1 scalar, 3 of a vector, 5 of a traceless symmetric matrix."""


class HipnnConfig(BaseModel):
    """What a HIP-NN-TS is made of. Lengths in Å."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["hipnn"] = "hipnn"
    l_max: Literal[0, 1, 2] = Field(1, description="highest tensor order of the sensitivities")
    features: int = Field(64, ge=1, description="features per atom")
    sensitivities: int = Field(12, ge=2, description="radial sensitivity functions")
    blocks: int = Field(2, ge=1, le=64, description="interaction blocks")
    onsite_layers: int = Field(3, ge=0, le=64, description="atom-wise layers after each interaction")
    cutoff: float = Field(6.5, gt=0, description="no interaction beyond")
    shortest: float = Field(0.75, gt=0, description="distance of the first sensitivity")
    longest: float = Field(5.5, gt=0, description="distance of the last sensitivity")
    sharpness: float = Field(0.5, gt=0, description="starting σ of the sensitivities, in units of the published one")
    cutoff_function: Literal["smooth", "cosine"] = "smooth"
    epsilon: float = Field(0.3, gt=0, description="rounding of the tensor norms; third derivatives grow like 1/epsilon")

    @model_validator(mode="after")
    def _ordered(self) -> HipnnConfig:
        if not self.shortest < self.longest <= self.cutoff:
            raise ValueError(
                f"expected shortest < longest <= cutoff, got {self.shortest}, {self.longest}, {self.cutoff} Å"
            )
        return self


class PairGeometry(NamedTuple):
    """What all layers need of the geometry: of an atom and its neighbors (`[atoms, k]`) or, in blocks, of every two
    atoms of a molecule (`[structures, longest, longest]`).

    Attributes:
        inverse_distance: 1/r, finite everywhere.
        envelope: cutoff function times mask.
        angular: components of the unit vector to the neighbor, without the scalar one; None for l = 0.
        neighbors: of each atom; None in blocks.
    """

    inverse_distance: Float[Tensor, "*atoms k"]
    envelope: Float[Tensor, "*atoms k"]
    angular: Float[Tensor, "*atoms c k"] | None
    neighbors: Int[Tensor, "atoms k"] | None


TensorsByOrder = tuple[Tensor, ...]
"""Features by order: scalars `[atoms, f]`; x, y, z `[atoms, 3, f]`; xx, yy, xy, xz, yz `[atoms, 5, f]`."""


class Sensitivity(nn.Module):
    """`s(r) = exp(−½ σ² (1/r − 1/μ)²) f_cut(r)`: bells in inverse distance, learnable in place and width."""

    def __init__(self, config: HipnnConfig) -> None:
        super().__init__()
        n = config.sensitivities
        self.inverse_mu = nn.Parameter(torch.linspace(1 / config.longest, 1 / config.shortest, n))
        self.sigma = nn.Parameter(torch.full((n,), config.sharpness * 2.0 * n * config.shortest))

    def forward(self, pairs: PairGeometry, *, last: Literal["neighbor", "sensitivity"]) -> Tensor:
        """Sensitivities of every pair, `[*atoms, s, k]` or, where sensitivities come last, `[*atoms, k, s]`."""
        inverse, envelope = pairs.inverse_distance, pairs.envelope
        if last == "neighbor":
            bell = self.sigma[:, None] * (inverse[..., None, :] - self.inverse_mu[:, None])
            return torch.exp(-0.5 * bell.square()) * envelope[..., None, :]
        bell = self.sigma * (inverse[..., None] - self.inverse_mu)
        return torch.exp(-0.5 * bell.square()) * envelope[..., None]


class Interaction(nn.Module):
    """Messages from neighbors, contracted to rotation-invariant features."""

    def __init__(self, config: HipnnConfig, features_in: int) -> None:
        super().__init__()
        self.l_max, self.epsilon, self.features = config.l_max, config.epsilon, config.features
        self.components = COMPONENTS[config.l_max]
        self.sensitivity = Sensitivity(config)
        self.weight = nn.Parameter(torch.empty(config.sensitivities, features_in, config.features))
        # Neighbors overlap about a third of the sensitivities each; this keeps features of order one at the start.
        nn.init.normal_(self.weight, std=(2.0 / (config.sensitivities * features_in + config.features)) ** 0.5)
        self.scales = nn.Parameter(torch.randn(config.l_max, config.features))
        self.self_term = nn.Linear(features_in, config.features)
        nn.init.xavier_normal_(self.self_term.weight)

    def forward(self, features: Float[Tensor, "atoms in"], pairs: PairGeometry) -> Float[Tensor, "atoms features"]:
        """New features of every atom (in blocks, of every place)."""
        # Both orders of the sums over neighbors and over what they send give the same; which is shorter depends on
        # how much a neighbor sends.
        mix_first = pairs.neighbors is None and features.shape[1] > MAX_FEATURES_AGGREGATE_FIRST
        aggregate = self._mix_then_aggregate if mix_first else self._aggregate_then_mix
        scalar, *tensors = aggregate(features, pairs)
        result = scalar + self.self_term(features)
        if self.l_max >= 1:
            squared = tensors[0].square().sum(1)
            result = result + self.scales[0] * softened_sqrt(squared, self.epsilon)
        if self.l_max >= 2:
            # xx, yy, xy, xz, yz of a traceless symmetric matrix: Tr T² = 2(Σ squares + xx·yy).
            matrix = tensors[1]
            squared = 2.0 * (matrix.square().sum(1) + matrix[:, 0] * matrix[:, 1])
            result = result + self.scales[1] * softened_sqrt(squared, self.epsilon)
        return result

    def _aggregate_then_mix(self, features: Tensor, pairs: PairGeometry) -> TensorsByOrder:
        """Sum what neighbors send for every sensitivity and component, then mix with the weights."""
        sensitivities = self.sensitivity(pairs, last="neighbor")
        if pairs.neighbors is None:
            sent = features.reshape(*sensitivities.shape[:1], -1, features.shape[1])
        else:
            sent = features.index_select(0, pairs.neighbors.reshape(-1)).reshape(*pairs.neighbors.shape, -1)
        weight = self.weight.reshape(-1, self.features)

        def aggregated(sensitivities: Tensor, components: int) -> Tensor:
            environment = torch.bmm(sensitivities.reshape(len(sent), -1, sent.shape[1]), sent)
            return (environment.reshape(len(features) * components, -1) @ weight).reshape(-1, components, self.features)

        if pairs.angular is None:
            return (aggregated(sensitivities, 1)[:, 0],)
        tensor = (pairs.angular[..., None, :] * sensitivities[..., None, :, :]).flatten(-3, -2)
        if pairs.neighbors is None:
            # Apart, so that no derivative has to be put together from slices.
            tensors = aggregated(tensor, self.components - 1)
            return (aggregated(sensitivities, 1)[:, 0], *tensors.split([3, 5][: self.l_max], dim=1))
        # With long lists of neighbors it is better to read only once what they send.
        combined = aggregated(torch.cat([sensitivities, tensor], dim=-2), self.components)
        return (combined[:, 0], *(combined[:, part] for part in (slice(1, 4), slice(4, 9))[: self.l_max]))

    def _mix_then_aggregate(self, features: Tensor, pairs: PairGeometry) -> TensorsByOrder:
        """Mix what every atom sends with the weights, once; then sum over sensitivities, and over the senders with each
        component of the angular part. Distances are the same both ways: the first of two places is the sender here."""
        sensitivities = self.sensitivity(pairs, last="sensitivity")
        structures, max_atoms = sensitivities.shape[:2]
        weight = self.weight.transpose(0, 1).reshape(features.shape[1], -1)
        sent = (features @ weight).reshape(structures * max_atoms, -1, self.features)
        messages = torch.bmm(sensitivities.flatten(0, 1), sent).reshape(structures, max_atoms, max_atoms, -1)
        scalar = messages.sum(1).reshape(structures * max_atoms, -1)
        if pairs.angular is None:
            return (scalar,)
        sums = [(part.transpose(1, 2)[..., None] * messages).sum(1) for part in pairs.angular.unbind(2)]
        orders = [sums[:3], sums[3:]][: self.l_max]
        return (scalar, *(torch.stack(of, dim=2).reshape(len(scalar), len(of), -1) for of in orders))


class Residual(nn.Module):
    """`x ↦ adjust(x) + W softplus(layer(x))`: every layer of the network is wrapped in one."""

    def __init__(self, layer: nn.Module, features_in: int, features: int) -> None:
        super().__init__()
        self.layer = layer
        self.after = nn.Linear(features, features)
        self.adjust = nn.Identity() if features_in == features else nn.Linear(features_in, features, bias=False)

    def forward(self, features: Float[Tensor, "atoms in"], *pairs: PairGeometry) -> Float[Tensor, "atoms features"]:
        """Features after the layer, added to what came in."""
        inner = nn.functional.softplus(self.layer(features, *pairs))
        return self.after(inner) + self.adjust(features)


class Hipnn(Potential):
    """HIP-NN-TS with l = 0, 1 or 2.

    The energy of an atom is its element's reference plus one contribution per block. References are float64 (total
    energies need it) and are no parameters of the optimizer: fit them with `hesse.models.fit_reference_energies`.
    """

    def __init__(
        self,
        config: HipnnConfig,
        elements: tuple[int, ...],
        reference_energies: Float[Tensor, "elements"] | None = None,
    ) -> None:
        """Args: config; `elements`, atomic numbers the network is for; `references`, eV per element (default zero)."""
        super().__init__()
        self.config, self.cutoff = config, config.cutoff
        self.references = ReferenceEnergies(elements, reference_energies)
        self.elements = self.references.elements
        self.interactions = nn.ModuleList()
        self.onsite = nn.ModuleList()
        self.readouts = nn.ModuleList()
        width = len(self.elements)
        for block in range(config.blocks):
            self.interactions.append(Residual(Interaction(config, width), width, config.features))
            width = config.features
            layers = [Residual(nn.Linear(width, width), width, width) for _ in range(config.onsite_layers)]
            self.onsite.append(nn.Sequential(*layers))
            readout = nn.Linear(width, 1)
            with torch.no_grad():  # later blocks start as small corrections: the hierarchy
                readout.weight.mul_(10.0 ** (-2 * block))
                readout.bias.zero_()
            self.readouts.append(readout)

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """Atomic energies, eV, float64 (computed in the network's own type)."""
        return self.forward_with_regularizer(batch)[0]

    def forward_with_regularizer(
        self, batch: Batch
    ) -> tuple[Float[Tensor, "atoms"], Float[Tensor, "structures"] | None]:
        """Atomic energies, and the mean over atoms of `Σ_n ε_n²/(ε_n² + ε_{n−1}²)`: how little of the energy the early
        blocks explain (between 0 and the number of blocks)."""
        padded: PaddedMolecules | None = self.precompute(batch).precomputed or None
        pairs = self._pair_geometry(batch, padded)
        numbers = batch.numbers if padded is None else batch.numbers.index_select(0, padded.atoms.reshape(-1))
        features = self.references.one_hot(numbers, batch.positions.dtype)
        reference = self.references(batch)
        terms = []
        for interaction, onsite, readout in zip(self.interactions, self.onsite, self.readouts, strict=True):
            features = onsite(interaction(features, pairs))
            terms.append(readout(features)[:, 0])
        if padded is not None:
            terms = [term.index_select(0, padded.slots) for term in terms]
        energies = reference + torch.stack(terms).sum(0)
        return energies, self._hierarchicality(batch, [reference.to(features.dtype), *terms])

    def precompute(self, batch: Batch) -> Batch:
        """With `tables` that hold small molecules as blocks, where these are quicker; else empty."""
        if batch.precomputed is not None:
            return batch
        worthwhile = (
            self.config.l_max > 0 and self.config.blocks > 1 and self.config.features > MAX_FEATURES_AGGREGATE_FIRST
        )
        if batch.cell_shifts is not None or not worthwhile or not len(batch):
            return replace(batch, precomputed=())
        max_atoms = int(batch.n_atoms.max())
        # Products in both orders (a sum over neighbors is differentiated more often than one of weights).
        components, width = COMPONENTS[self.config.l_max], self.config.features
        cost_per_pair = 1.0 + components / self.config.sensitivities
        padded_cost = len(batch) * max_atoms * (2.25 * max_atoms * cost_per_pair + width)
        neighbor_cost = len(batch.numbers) * components * (2.25 * batch.neighbors.shape[1] + width)
        use_padding = max_atoms <= MAX_PADDED_ATOMS and padded_cost < neighbor_cost
        return replace(batch, precomputed=pad_molecules(batch, max_atoms) if use_padding else ())

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """See `Potential.shift_reference_energies`."""
        self.references.shift_reference_energies(shifts)

    def _pair_geometry(self, batch: Batch, padded: PaddedMolecules | None) -> PairGeometry:
        """1/r, cutoff times mask, and the angular part of the sensitivities, all finite everywhere."""
        cutoff = self.config.cutoff
        vectors = batch.neighbor_vectors() if padded is None else padded.vectors(batch.positions)
        mask = batch.neighbor_mask if padded is None else padded.pair_mask
        distance = masked_norm(vectors, mask, fill=cutoff)
        function = smooth_cutoff if self.config.cutoff_function == "smooth" else cosine_cutoff
        envelope = function(distance, cutoff) * mask
        inverse = 1.0 / distance
        angular = None
        if self.config.l_max >= 1:
            x, y, z = (vectors * inverse[..., None]).unbind(-1)
            components = [x, y, z]
            if self.config.l_max == 2:
                components += [x * x - 1 / 3, y * y - 1 / 3, x * y, x * z, y * z]
            angular = torch.stack(components, dim=-2)
        return PairGeometry(inverse, envelope, angular, batch.neighbors if padded is None else None)

    @staticmethod
    def _hierarchicality(batch: Batch, terms: list[Float[Tensor, "atoms"]]) -> Float[Tensor, "structures"]:
        squares = [term.square() for term in terms]
        tiny = 1e-12
        ratios = [(b + tiny) / (a + b + 2 * tiny) for a, b in itertools.pairwise(squares)]
        return batch.sum_over_atoms(torch.stack(ratios).sum(0)) / batch.n_atoms


# MERGED DOCSTRING (fold into the module docstring): """Molecules as padded blocks: every atom of a molecule with every other. Small molecules have few pairs beyond a cutoff, and a block needs no gathering of neighbors: what a sender sends can be contracted with weights once per atom, not once per neighbor. """
