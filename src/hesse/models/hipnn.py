"""HIP-NN-TS: the hierarchically interacting particle neural network with tensor sensitivities.

Lubbers, Smith, Barros, J. Chem. Phys. 148, 241715 (2018) for l = 0; Chigaev et al., J. Chem. Phys. 158, 184108 (2023),
arXiv 2212.03195, for l = 1, 2. It differs from the published network in three defaults, all because training on
curvature differentiates three times: a cutoff that is smooth to third order (the published cosine is an option), a
larger ε under the square roots of the tensor invariants, and initial sensitivities that are fewer and wider.

Small molecules are computed as padded blocks, every atom of a molecule with every other one. Few of their pairs are
longer than the cutoff, no neighbors need to be gathered, and an atom's features are multiplied with the weights once
per atom instead of once per neighbor.

Axes: atoms (in padded blocks: slots); k = neighbors of an atom; s = sensitivities; c = tensor components (1, 4 or 9);
features.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from hesse.models.reference_energies import ReferenceEnergies
from hesse.potential import Potential
from hesse.runtime.settings import Settings
from hesse.smooth import cosine_cutoff, masked_norm, smooth_cutoff, softened_sqrt
from hesse.structures import Batch

__all__ = ["Hipnn", "HipnnConfig", "PaddedMolecules", "pad_molecules"]


MAX_FEATURES_AGGREGATE_FIRST = 16
"""With at most this many input features (as in a first layer, which sees elements), summing over neighbors first is
cheaper."""
MAX_PADDED_ATOMS = 64
"""Largest molecule, in atoms, that is padded: the memory of a block grows with the square of its size."""
COMPONENTS = {0: 1, 1: 4, 2: 9}
"""Number of tensor components up to order l: 1 (scalar) + 3 (vector) + 5 (traceless symmetric matrix)."""


class PaddedMolecules(NamedTuple):
    """Non-periodic structures of a batch, padded to the size of the largest.

    Attributes:
        atoms: index of the atom in each slot; empty slots repeat the first atom of their structure.
        pair_mask: True where two slots hold two different atoms.
        slots: index of each atom of the batch in the flattened `atoms`.
    """

    atoms: Int[Tensor, "structures longest"]
    pair_mask: Bool[Tensor, "structures longest longest"]
    slots: Int[Tensor, "atoms"]

    def vectors(self, positions: Float[Tensor, "atoms 3"]) -> Float[Tensor, "structures longest longest 3"]:
        """Vectors from each slot to each other slot of its structure.

        Args:
            positions: positions of all atoms of the batch, Å.

        Returns:
            Vectors in Å; those of empty slots point to the first atom of the structure.
        """
        padded_positions = positions.index_select(0, self.atoms.reshape(-1)).reshape(*self.atoms.shape, 3)
        return padded_positions[:, None] - padded_positions[:, :, None]


@torch.no_grad()
def pad_molecules(batch: Batch, max_atoms: int) -> PaddedMolecules:
    """Padded blocks of a batch of non-periodic structures.

    Args:
        batch: without periodic structures.
        max_atoms: number of atoms of its largest structure.

    Returns:
        Index tables; they hold no positions.
    """
    slot = torch.arange(max_atoms, device=batch.numbers.device)
    is_atom = slot < batch.n_atoms[:, None]
    first = batch.n_atoms.cumsum(0) - batch.n_atoms
    off_diagonal = slot[:, None] != slot
    return PaddedMolecules(
        atoms=first[:, None] + torch.where(is_atom, slot, 0),
        pair_mask=is_atom[:, None] & is_atom[:, :, None] & off_diagonal,
        slots=(slot + max_atoms * torch.arange(len(batch), device=slot.device)[:, None])[is_atom],
    )


class HipnnConfig(Settings):
    """Hyperparameters of HIP-NN-TS. Lengths in Å."""

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
    """Geometry that all layers share: of atoms and their neighbors (`[atoms, k]`) or, in padded blocks, of all pairs of
    atoms of a molecule (`[structures, longest, longest]`).

    Attributes:
        inverse_distance: 1/r, finite everywhere.
        envelope: cutoff function times mask.
        angular: components of the unit vector to the neighbor, without the scalar one; None for l = 0.
        neighbors: indices of the neighbors of each atom; None in padded blocks.
    """

    inverse_distance: Float[Tensor, "*atoms k"]
    envelope: Float[Tensor, "*atoms k"]
    angular: Float[Tensor, "*atoms c k"] | None
    neighbors: Int[Tensor, "atoms k"] | None


TensorsByOrder = tuple[Tensor, ...]
"""Features by order: scalars `[atoms, f]`; x, y, z `[atoms, 3, f]`; xx, yy, xy, xz, yz `[atoms, 5, f]`."""


class Sensitivity(nn.Module):
    """`s(r) = exp(−½ σ² (1/r − 1/μ)²) f_cut(r)`: Gaussians in inverse distance with learnable
    centers and widths."""

    def __init__(self, config: HipnnConfig) -> None:
        super().__init__()
        n = config.sensitivities
        self.inverse_mu = nn.Parameter(torch.linspace(1 / config.longest, 1 / config.shortest, n))
        self.sigma = nn.Parameter(torch.full((n,), config.sharpness * 2.0 * n * config.shortest))

    def forward(self, pairs: PairGeometry, *, last: Literal["neighbor", "sensitivity"]) -> Tensor:
        """Sensitivities of every pair: `[*atoms, s, k]`, or `[*atoms, k, s]` if `last` is "sensitivity"."""
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
        # Each neighbor overlaps with about a third of the sensitivities; with this scale, features start of order one.
        nn.init.normal_(self.weight, std=(2.0 / (config.sensitivities * features_in + config.features)) ** 0.5)
        self.scales = nn.Parameter(torch.randn(config.l_max, config.features))
        self.self_term = nn.Linear(features_in, config.features)
        nn.init.xavier_normal_(self.self_term.weight)

    def forward(self, features: Float[Tensor, "atoms in"], pairs: PairGeometry) -> Float[Tensor, "atoms features"]:
        """New features of every atom (in padded blocks, of every slot)."""
        # Summing over neighbors and multiplying with the weights commute; which order is cheaper depends on the number
        # of input features.
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
        """Sum the neighbors' features per sensitivity and component, then multiply with the weights."""
        sensitivities = self.sensitivity(pairs, last="neighbor")
        if pairs.neighbors is None:
            sent = features.reshape(*sensitivities.shape[:1], -1, features.shape[1])
        else:
            sent = features.index_select(0, pairs.neighbors.reshape(-1)).reshape(*pairs.neighbors.shape, -1)
        weight = self.weight.reshape(-1, self.features)

        def aggregated(sensitivities: Tensor, components: int) -> Tensor:
            environment = torch.bmm(sensitivities.reshape(sent.shape[0], -1, sent.shape[1]), sent)
            return (environment.reshape(features.shape[0] * components, -1) @ weight).reshape(
                -1, components, self.features
            )

        if pairs.angular is None:
            return (aggregated(sensitivities, 1)[:, 0],)
        tensor = (pairs.angular[..., None, :] * sensitivities[..., None, :, :]).flatten(-3, -2)
        if pairs.neighbors is None:
            # In separate products: otherwise autograd reassembles slices in every derivative.
            tensors = aggregated(tensor, self.components - 1)
            return (aggregated(sensitivities, 1)[:, 0], *tensors.split([3, 5][: self.l_max], dim=1))
        # With many neighbors it is faster to read their features only once.
        combined = aggregated(torch.cat([sensitivities, tensor], dim=-2), self.components)
        return (combined[:, 0], *(combined[:, part] for part in (slice(1, 4), slice(4, 9))[: self.l_max]))

    def _mix_then_aggregate(self, features: Tensor, pairs: PairGeometry) -> TensorsByOrder:
        """Multiply the features of every atom with the weights; then sum over sensitivities, and over the senders with
        each angular component. Distances are symmetric, so the first slot of a pair is the sender here."""
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
        return (scalar, *(torch.stack(of, dim=2).reshape(scalar.shape[0], len(of), -1) for of in orders))


class Residual(nn.Module):
    """`x ↦ adjust(x) + W softplus(layer(x))`: every layer of the network is wrapped in one."""

    def __init__(self, layer: nn.Module, features_in: int, features: int) -> None:
        super().__init__()
        self.layer = layer
        self.after = nn.Linear(features, features)
        self.adjust = nn.Identity() if features_in == features else nn.Linear(features_in, features, bias=False)

    def forward(self, features: Float[Tensor, "atoms in"], *pairs: PairGeometry) -> Float[Tensor, "atoms features"]:
        """Output of the layer plus the (projected) input."""
        inner = nn.functional.softplus(self.layer(features, *pairs))
        return self.after(inner) + self.adjust(features)


class Hipnn(Potential):
    """HIP-NN-TS with l = 0, 1 or 2.

    The energy of an atom is the reference energy of its element plus one contribution per interaction block. Reference
    energies are float64 (total energies need the digits) and are not trained: fit them with
    `hesse.models.fit_reference_energies`.

    Args:
        config: hyperparameters.
        elements: atomic numbers the network supports.
        reference_energies: eV per element, in the order of `elements`; zero if None.
    """

    def __init__(
        self,
        config: HipnnConfig,
        elements: tuple[int, ...],
        reference_energies: Float[Tensor, "elements"] | None = None,
    ) -> None:
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
        """Atomic energies.

        Args:
            batch: neighbors up to the cutoff.

        Returns:
            eV, float64; the network computes in the dtype of its weights.
        """
        return self.outputs(batch)["atomic_energies"]

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """Atomic energies and the hierarchicality regularizer.

        Args:
            batch: neighbors up to the cutoff.

        Returns:
            `atomic_energies` in eV, float64; `regularizer`, per structure, the mean over atoms of
            `Σ_n ε_n²/(ε_n² + ε_{n−1}²)` with the contribution ε_n of block n. It is between 0 and the number of blocks,
            and small where the early blocks explain most of the energy.
        """
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
        regularizer = self._hierarchicality(batch, [reference.to(features.dtype), *terms])
        return {"atomic_energies": energies, "regularizer": regularizer}

    def precompute(self, batch: Batch) -> Batch:
        """See `Potential.precompute`. Small molecules are padded where that is faster; otherwise `precomputed` is
        empty."""
        if batch.precomputed is not None:
            return batch
        worthwhile = (
            self.config.l_max > 0 and self.config.blocks > 1 and self.config.features > MAX_FEATURES_AGGREGATE_FIRST
        )
        if batch.cell_shifts is not None or not worthwhile or not len(batch):
            return replace(batch, precomputed=())
        max_atoms = int(batch.n_atoms.max())
        # Number of products either way. A sum over neighbors is differentiated more often than one over weights: 2.25.
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
        """Inverse distances, cutoff function times mask, and angular components; all finite everywhere."""
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
