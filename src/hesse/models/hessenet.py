"""HesseNet: a compact equivariant network. Atoms send scalars and vectors; angles enter through products of their sums.

Scalar and vector channels after PaiNN (Schütt, Unke, Gastegger, ICML 2021, arXiv 2102.03150); sums over neighbors up
to l = 2 multiplied with each other as in moment tensor potentials (Shapeev, Multiscale Model. Simul. 14, 1153 (2016))
and the atomic cluster expansion (Drautz, Phys. Rev. B 99, 014104 (2019)); radial functions of DimeNet (Gasteiger, Groß,
Günnemann, ICLR 2020, arXiv 2003.03123).

It is designed for training on curvature, which differentiates three times. All layers share one fixed basis of radial
functions times spherical components. Geometry is therefore differentiated once, and no tensor of all pairs times all
features is created: a layer is a matrix product of the basis with the few channels that atoms send, followed by small
dense weights. All functions are smooth: the cutoff to third order, and tensors are never divided by their length.

Axes: atoms; k = neighbors of an atom; c = spherical components (1 for a scalar, 3 for a vector, 5 for l = 2);
s = radial functions; channels = features that an atom sends to its neighbors; f = features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from hesse.models.reference_energies import ReferenceEnergies
from hesse.potential import Potential
from hesse.runtime.settings import Settings
from hesse.smooth import masked_norm, smooth_cutoff
from hesse.structures import Batch

__all__ = ["HesseNet", "HesseNetConfig"]


class HesseNetConfig(Settings):
    """Hyperparameters of `HesseNet`. Lengths in Å."""

    kind: Literal["hessenet"] = "hessenet"
    l_max: Literal[1, 2] = Field(
        2, description="highest tensor order of the first layer, which sees the neighbors' elements"
    )
    features: int = Field(64, ge=1, description="features per atom")
    channels: int = Field(16, ge=1, description="scalars, and as many vectors, that an atom sends to its neighbors")
    radial: int = Field(8, ge=1, le=64, description="radial functions")
    layers: int = Field(2, ge=1, le=16, description="layers; all but the first carry messages between atoms")
    cutoff: float = Field(5.0, gt=0, description="no interaction beyond")


class PairBasis(nn.Module):
    """`Y_c(r̂) √(8/R) 2/(1 + s) sin(π s r/R)/r f(r)`: spherical components times waves that vanish at the cutoff R.

    Every derivative multiplies a wave by its number s. The factor 2/(1 + s) damps short waves, which keeps the
    curvature between the training data small: Hessian errors fell by 7 to 13 % (one seed, docs/models.md).
    """

    def __init__(self, config: HesseNetConfig) -> None:
        super().__init__()
        self.cutoff, self.l_max, self.radial = config.cutoff, config.l_max, config.radial

    def forward(self, batch: Batch) -> Basis:
        """Basis functions of every pair; zero for unused neighbor slots and beyond the cutoff."""
        vectors, mask = batch.neighbor_vectors(), batch.neighbor_mask
        distance = masked_norm(vectors, mask, fill=self.cutoff)
        inverse = 1.0 / distance
        envelope = smooth_cutoff(distance, self.cutoff) * mask * inverse * math.sqrt(8.0 / self.cutoff)
        # Not stored as a buffer: a buffer would lose digits when the model is converted to float32 and back.
        number = torch.arange(1, self.radial + 1, dtype=distance.dtype, device=distance.device)[:, None]
        waves = torch.sin(math.pi / self.cutoff * number * distance[:, None])
        radial = waves * (2.0 / (1.0 + number)) * envelope[:, None]
        x, y, z = (vectors * inverse[..., None]).unbind(-1)
        vector = math.sqrt(3.0) * torch.stack([x, y, z], dim=1)
        matrix = None
        if self.l_max == 2:
            two = math.sqrt(15.0)
            squares = [(0.5 * two) * (x * x - y * y), (0.5 * math.sqrt(5.0)) * (3.0 * z * z - 1.0)]
            matrix = torch.stack([two * x * y, two * x * z, two * y * z, *squares], dim=1)
            matrix = (radial[:, None] * matrix[:, :, None]).flatten(1, 2)
        return Basis(
            scalar=radial,
            vector=(radial[:, None] * vector[:, :, None]).flatten(1, 2),
            matrix=matrix,
            projection=(radial[:, :, None] * vector[:, None]).flatten(2, 3),
        )


class Basis(NamedTuple):
    """Radial functions times real spherical harmonics (1; x, y, z; xy, xz, yz, x² − y², 3z² − 1) whose squares sum to
    2l + 1. One tensor per l: with a single tensor autograd would reassemble slices in every derivative.

    Attributes:
        scalar: l = 0.
        vector: l = 1.
        matrix: l = 2; None for `l_max` = 1.
        projection: l = 1 again, with the components next to the neighbors: contracting both projects the vectors that
            neighbors send onto the direction to the receiver.
    """

    scalar: Float[Tensor, "atoms s k"]
    vector: Float[Tensor, "atoms 3*s k"]
    matrix: Float[Tensor, "atoms 5*s k"] | None
    projection: Float[Tensor, "atoms s 3*k"]


def traceless_matvec(
    matrix: Float[Tensor, "atoms 5 f"], vector: Float[Tensor, "atoms 3 f"]
) -> Float[Tensor, "atoms 3 f"]:
    """Product of a symmetric traceless matrix, given by its five components, and a vector."""
    xy, xz, yz, difference, axial = matrix.unbind(1)
    x, y, z = vector.unbind(1)
    third = axial * (1.0 / math.sqrt(3.0))
    return torch.stack(
        [
            (difference - third) * x + xy * y + xz * z,
            xy * x - (difference + third) * y + yz * z,
            xz * x + yz * y + 2.0 * third * z,
        ],
        dim=1,
    )


def compress_norm(tensor: Float[Tensor, "atoms m f"]) -> Float[Tensor, "atoms m f"]:
    """`t/(1 + |t|²)^¼`: same direction, and a length that grows like a square root. Smooth everywhere, also at zero. It
    keeps products of several tensors moderate where atoms come close."""
    return tensor * (1.0 + tensor.square().sum(1, keepdim=True)).sqrt().rsqrt()


class MessageAggregation(nn.Module):
    """Sums over neighbors of basis times sent channels, followed by dense weights: scalar, vector and, for l = 2,
    matrix features.

    A sent vector contributes to vectors by itself, and to scalars by its component along the pair.
    """

    def __init__(self, config: HesseNetConfig, scalars: int, vectors: int, l_max: int) -> None:
        super().__init__()
        self.radial, self.l_max = config.radial, l_max
        width = config.radial * (scalars + vectors)
        self.to_scalar = linear_no_bias(width, config.features)
        self.to_vector = linear_no_bias(width, config.features)
        self.to_matrix = linear_no_bias(config.radial * scalars, config.features) if l_max == 2 else None

    def forward(
        self,
        basis: Basis,
        neighbors: Int[Tensor, "atoms k"],
        scalars: Float[Tensor, "atoms channels"],
        vectors: Float[Tensor, "atoms 3 channels"] | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Features of every atom from the scalars and vectors that its neighbors send.

        Returns:
            Scalars `[atoms, f]`, vectors `[atoms, 3, f]`, and matrices `[atoms, 5, f]` or None.
        """
        (atoms, k), s, g = neighbors.shape, self.radial, scalars.shape[1]
        senders = neighbors.reshape(-1)
        received = scalars.index_select(0, senders).reshape(atoms, k, g)
        scalar = torch.bmm(basis.scalar, received)
        vector = torch.bmm(basis.vector, received).reshape(atoms, 3, s, g)
        if vectors is not None:
            sent_vectors = vectors.index_select(0, senders).reshape(atoms, k, -1)
            transported = torch.bmm(basis.scalar, sent_vectors).reshape(atoms, s, 3, -1).transpose(1, 2)
            # Component along the pair, summed over neighbors and axes at once.
            sent_vectors = sent_vectors.reshape(atoms, k, 3, -1).transpose(1, 2).reshape(atoms, 3 * k, -1)
            scalar = torch.cat([scalar, torch.bmm(basis.projection, sent_vectors)], dim=-1)
            vector = torch.cat([vector, transported], dim=-1)
        matrix = None
        if self.to_matrix is not None:
            assert basis.matrix is not None
            matrix = self.to_matrix(torch.bmm(basis.matrix, received).reshape(atoms, 5, s * g))
        return self.to_scalar(scalar.flatten(1)), self.to_vector(vector.flatten(2)), matrix


def linear_no_bias(inputs: int, outputs: int) -> nn.Linear:
    """Dense layer without bias, initialized so that outputs are of order one for inputs of order one."""
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(linear.weight, std=inputs**-0.5)
    return linear


class InteractionLayer(nn.Module):
    """Aggregated messages are contracted to invariants; these give new scalar features and gates for new vectors."""

    def __init__(self, config: HesseNetConfig, elements: int, index: int) -> None:
        super().__init__()
        first, self.last = index == 0, index == config.layers - 1
        f, channels = config.features, config.channels
        self.l_max = config.l_max if first else 1
        width = elements if first else f
        self.send_scalars = None if first else nn.Linear(f, channels, bias=False)
        self.send_vectors = None if first else nn.Linear(f, channels, bias=False)
        self.arrivals = MessageAggregation(
            config, elements if first else channels, 0 if first else channels, self.l_max
        )
        self.own = nn.Linear(width, f)
        self.hidden = nn.Linear((2 if self.l_max == 1 else 4) * f, f)
        self.out = nn.Linear(f, f)
        self.gates = None if self.last else nn.Linear(f, f * self.l_max)
        self.keep_vectors = None if first or self.last else nn.Linear(f, f, bias=False)

    def forward(
        self,
        basis: Basis,
        neighbors: Int[Tensor, "atoms k"],
        scalars: Float[Tensor, "atoms in"],
        vectors: Float[Tensor, "atoms 3 f"] | None,
    ) -> tuple[Float[Tensor, "atoms f"], Float[Tensor, "atoms 3 f"] | None]:
        """New scalar and vector features of every atom (no vectors after the last layer)."""
        sent_scalars, sent_vectors = scalars, None
        if self.send_scalars is not None and self.send_vectors is not None:
            sent_scalars, sent_vectors = self.send_scalars(scalars), self.send_vectors(vectors)
        scalar, vector, matrix = self.arrivals(basis, neighbors, sent_scalars, sent_vectors)
        vector = compress_norm(vector)
        invariants = [scalar + self.own(scalars), vector.square().sum(1)]
        matvec = None
        if matrix is not None:
            matrix = compress_norm(matrix)
            matvec = traceless_matvec(matrix, vector)
            invariants += [matrix.square().sum(1), (vector * matvec).sum(1)]
        hidden = nn.functional.silu(self.hidden(torch.cat(invariants, dim=1)))
        new_scalars = self.out(hidden)
        if vectors is not None:  # not in the first layer, whose scalars are elements
            new_scalars = new_scalars + scalars
        if self.gates is None:
            return new_scalars, None
        gates = self.gates(hidden).reshape(new_scalars.shape[0], self.l_max, -1)
        new_vectors = vector * gates[:, :1]
        if matvec is not None:
            new_vectors = new_vectors + matvec * gates[:, 1:]
        if self.keep_vectors is not None:
            new_vectors = new_vectors + self.keep_vectors(vectors)
        return new_scalars, new_vectors


class HesseNet(Potential):
    """Compact equivariant network with scalar and vector messages.

    The first layer sees the elements around every atom up to l = 2; further layers see the scalars and vectors that the
    neighbors send. The energy of an atom is the reference energy of its element plus a linear function of its last
    features. Reference energies are float64 and are not trained: fit them with `hesse.models.fit_reference_energies`.

    Args:
        config: hyperparameters.
        elements: atomic numbers the network supports.
        reference_energies: eV per element, in the order of `elements`; zero if None.
    """

    def __init__(
        self,
        config: HesseNetConfig,
        elements: tuple[int, ...],
        reference_energies: Float[Tensor, "elements"] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.cutoff = config, config.cutoff
        self.references = ReferenceEnergies(elements, reference_energies)
        self.elements = self.references.elements
        self.basis = PairBasis(config)
        self.layers = nn.ModuleList(
            InteractionLayer(config, len(self.elements), index) for index in range(config.layers)
        )
        self.readout = nn.Linear(config.features, 1)
        with torch.no_grad():
            self.readout.weight.mul_(0.5)
            self.readout.bias.zero_()

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """Atomic energies.

        Args:
            batch: neighbors up to the cutoff.

        Returns:
            eV, float64; the network computes in the dtype of its weights.
        """
        basis = self.basis(batch)
        scalars, vectors = self.references.one_hot(batch.numbers, batch.positions.dtype), None
        for layer in self.layers:
            scalars, vectors = layer(basis, batch.neighbors, scalars, vectors)
        return self.references(batch) + self.readout(scalars)[:, 0]

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """See `Potential.shift_reference_energies`."""
        self.references.shift_reference_energies(shifts)
