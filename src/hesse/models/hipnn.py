"""HIP-NN-TS: the hierarchically interacting particle neural network with tensor sensitivities.

Lubbers, Smith, Barros, J. Chem. Phys. 148, 241715 (2018) for l = 0; Chigaev et al., J. Chem. Phys. 158, 184108 (2023),
arXiv 2212.03195, for l = 1, 2. It differs from the published network in three defaults, all because training on
curvature differentiates three times: a cutoff that is smooth to third order (the published cosine is an option), a
larger ε under the square roots of the tensor invariants, and sensitivities that start out fewer and wider.

Axes: atoms; k = neighbours of an atom; s = sensitivities; c = tensor components (1, 4 or 9); features.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from hesse.models.references import ElementReferences
from hesse.potential import Potential
from hesse.smooth import cosine_cutoff, masked_norm, smooth_cutoff, sqrt_plus
from hesse.structures import Batch

__all__ = ["Hipnn", "HipnnConfig"]

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


class Sensitivity(nn.Module):
    """`s(r) = exp(−½ σ² (1/r − 1/μ)²) f_cut(r)`: bells in inverse distance, learnable in place and width."""

    def __init__(self, config: HipnnConfig) -> None:
        super().__init__()
        n = config.sensitivities
        self.inverse_mu = nn.Parameter(torch.linspace(1 / config.longest, 1 / config.shortest, n))
        self.sigma = nn.Parameter(torch.full((n,), config.sharpness * 2.0 * n * config.shortest))

    def forward(
        self, inverse_distance: Float[Tensor, "atoms 1 k"], envelope: Float[Tensor, "atoms 1 k"]
    ) -> Float[Tensor, "atoms s k"]:
        """Sensitivities of every pair; the envelope carries the cutoff and the mask."""
        bell = self.sigma[:, None] * (inverse_distance - self.inverse_mu[:, None])
        return torch.exp(-0.5 * bell.square()) * envelope


class Interaction(nn.Module):
    """Messages from neighbours, contracted to rotation-invariant features."""

    def __init__(self, config: HipnnConfig, features_in: int) -> None:
        super().__init__()
        self.l_max, self.epsilon, self.features = config.l_max, config.epsilon, config.features
        self.components = COMPONENTS[config.l_max]
        self.sensitivity = Sensitivity(config)
        self.weight = nn.Parameter(torch.empty(config.sensitivities, features_in, config.features))
        # Neighbours overlap about a third of the sensitivities each; this keeps features of order one at the start.
        nn.init.normal_(self.weight, std=(2.0 / (config.sensitivities * features_in + config.features)) ** 0.5)
        self.scales = nn.Parameter(torch.randn(config.l_max, config.features))
        self.self_term = nn.Linear(features_in, config.features)
        nn.init.xavier_normal_(self.self_term.weight)

    def forward(
        self,
        features: Float[Tensor, "atoms in"],
        neighbours: Float[Tensor, "atoms k"],
        inverse_distance: Float[Tensor, "atoms 1 k"],
        envelope: Float[Tensor, "atoms 1 k"],
        angular: Float[Tensor, "atoms c k"] | None,
    ) -> Float[Tensor, "atoms features"]:
        """New features of every atom."""
        n_atoms, k = neighbours.shape
        sense = self.sensitivity(inverse_distance, envelope)
        if angular is not None:
            tensor = (angular[:, :, None] * sense[:, None]).reshape(n_atoms, -1, k)
            sense = torch.cat([sense, tensor], dim=1)
        sent = features.index_select(0, neighbours.reshape(-1)).reshape(n_atoms, k, -1)
        environment = torch.bmm(sense, sent).reshape(n_atoms * self.components, -1)
        tensors = (environment @ self.weight.reshape(-1, self.features)).reshape(n_atoms, self.components, -1)
        result = tensors[:, 0] + self.self_term(features)
        if self.l_max >= 1:
            squared = tensors[:, 1:4].square().sum(1)
            result = result + self.scales[0] * sqrt_plus(squared, self.epsilon)
        if self.l_max >= 2:
            # xx, yy, xy, xz, yz of a traceless symmetric matrix: Tr T² = 2(Σ squares + xx·yy).
            five = tensors[:, 4:9]
            squared = 2.0 * (five.square().sum(1) + five[:, 0] * five[:, 1])
            result = result + self.scales[1] * sqrt_plus(squared, self.epsilon)
        return result


class Residual(nn.Module):
    """`x ↦ adjust(x) + W softplus(layer(x))`: every layer of the network is wrapped in one."""

    def __init__(self, layer: nn.Module, features_in: int, features: int) -> None:
        super().__init__()
        self.layer = layer
        self.after = nn.Linear(features, features)
        self.adjust = nn.Identity() if features_in == features else nn.Linear(features_in, features, bias=False)

    def forward(self, features: Float[Tensor, "atoms in"], *geometry: Tensor | None) -> Float[Tensor, "atoms features"]:
        """Features after the layer, added to what came in."""
        inner = nn.functional.softplus(self.layer(features, *geometry))
        return self.after(inner) + self.adjust(features)


class Hipnn(Potential):
    """HIP-NN-TS with l = 0, 1 or 2.

    The energy of an atom is its element's reference plus one contribution per block. References are float64 (total
    energies need it) and are no parameters of the optimiser: fit them with `hesse.models.fit_references`.
    """

    def __init__(
        self, config: HipnnConfig, elements: tuple[int, ...], references: Float[Tensor, "elements"] | None = None
    ) -> None:
        """Args: config; `elements`, atomic numbers the network is for; `references`, eV per element (default zero)."""
        super().__init__()
        self.config, self.cutoff = config, config.cutoff
        self.references = ElementReferences(elements, references)
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
        return self.energies_and_penalty(batch)[0]

    def energies_and_penalty(self, batch: Batch) -> tuple[Float[Tensor, "atoms"], Float[Tensor, "structures"] | None]:
        """Atomic energies, and the mean over atoms of `Σ_n ε_n²/(ε_n² + ε_{n−1}²)`: how little of the energy the early
        blocks explain (between 0 and the number of blocks)."""
        geometry = self._geometry(batch)
        features = self.references.one_hot(batch.numbers, batch.positions.dtype)
        reference = self.references(batch)
        terms = []
        for interaction, onsite, readout in zip(self.interactions, self.onsite, self.readouts, strict=True):
            features = onsite(interaction(features, *geometry))
            terms.append(readout(features)[:, 0])
        energies = reference + torch.stack(terms).sum(0)
        return energies, self._hierarchy(batch, [reference.to(features.dtype), *terms])

    def shift_elements(self, shifts: Mapping[int, float]) -> None:
        """See `Potential.shift_elements`."""
        self.references.shift_elements(shifts)

    def _geometry(self, batch: Batch) -> tuple[Tensor, ...]:
        """Neighbours, 1/r, cutoff times mask, and the angular part of the sensitivities, all finite everywhere."""
        cutoff = self.config.cutoff
        vectors, mask = batch.pair_vectors(), batch.neighbour_mask
        distance = masked_norm(vectors, mask, fill=cutoff)
        function = smooth_cutoff if self.config.cutoff_function == "smooth" else cosine_cutoff
        envelope = (function(distance, cutoff) * mask)[:, None]
        inverse = 1.0 / distance
        angular = None
        if self.config.l_max >= 1:
            unit = vectors * inverse[..., None]
            x, y, z = unit.unbind(-1)
            parts = [x, y, z]
            if self.config.l_max == 2:
                parts += [x * x - 1 / 3, y * y - 1 / 3, x * y, x * z, y * z]
            angular = torch.stack(parts, dim=1)
        return batch.neighbours, inverse[:, None], envelope, angular  # type: ignore[return-value]

    @staticmethod
    def _hierarchy(batch: Batch, terms: list[Float[Tensor, "atoms"]]) -> Float[Tensor, "structures"]:
        squares = [term.square() for term in terms]
        tiny = 1e-12
        ratios = [(b + tiny) / (a + b + 2 * tiny) for a, b in itertools.pairwise(squares)]
        return batch.sum_by_structure(torch.stack(ratios).sum(0)) / batch.n_atoms
