"""ANI: a network per element on atomic environment vectors.

Smith, Isayev, Roitberg, Chem. Sci. 8, 3192 (2017). Any elements, open or periodic structures.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hesse.models.ani.aev import aev_length, atomic_environment_vectors
from hesse.models.ani.ani_config import AniConfig
from hesse.models.ani.triplets import TripletIndex, find_triplets
from hesse.models.reference_energies import ReferenceEnergies
from hesse.potential import Potential, check_elements, structure_at
from hesse.runtime.settings import validate_config
from hesse.structures import Batch, species_names

__all__ = ["Ani"]

CELU_ALPHA = 0.1
ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "celu": lambda: nn.CELU(CELU_ALPHA),
    "gelu": nn.GELU,
    "smooth-celu": lambda: SmoothCelu(CELU_ALPHA),
}


class SmoothCelu(nn.Module):
    """A smooth function close to celu(x, α): `s log(1 + exp((x + α)/s)) − α` with `s = α √3/π`.

    Both tend to −α and to x. Their second derivatives are bells of equal area, mean −α and variance α²; the functions
    differ by less than 0.1 α.

    Args:
        alpha: α of the celu.
    """

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha, self.sharpness = alpha, math.pi / (math.sqrt(3.0) * alpha)

    def forward(self, x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Values of the function.

        Args:
            x: any shape.

        Returns:
            The same shape.
        """
        return nn.functional.softplus(x + self.alpha, beta=self.sharpness) - self.alpha


class Ani(Potential):
    """ANI: the energy of an atom is the reference energy of its element plus the output of the element's network.

    Reference energies are float64 (total energies need the digits) and are not trained: fit them with
    `hesse.models.fit_reference_energies`.

    Args:
        config: hyperparameters.
        elements: atomic numbers the networks support.
        reference_energies: eV per element, in the order of `elements`; zero if None.
    """

    def __init__(
        self, config: AniConfig, elements: tuple[int, ...], reference_energies: Float[Tensor, "elements"] | None = None
    ) -> None:
        super().__init__()
        self.references = ReferenceEnergies(elements, reference_energies)
        self.config, self.cutoff, self.elements = config, config.radial_cutoff, self.references.elements
        width = aev_length(config, len(self.elements))
        symbols = species_names(self.elements)
        self.networks = nn.ModuleDict({symbol: _network(config, symbol, width) for symbol in symbols})

    def aevs(self, batch: Batch) -> Float[Tensor, "atoms width"]:
        """Atomic environment vectors.

        Args:
            batch: neighbors up to the cutoff.

        Returns:
            AEVs in the order of the atoms; columns as in `hesse.models.ani.atomic_environment_vectors`.
        """
        triplets = self._triplets(batch)
        vectors = atomic_environment_vectors(self.config, batch, triplets)[triplets.is_real]
        return vectors[triplets.order[triplets.is_real].argsort()]

    def precompute(self, batch: Batch) -> Batch:
        """See `Potential.precompute`: the triplets of every atom."""
        return replace(batch, precomputed=self._triplets(batch))

    def _triplets(self, batch: Batch) -> TripletIndex:
        if batch.precomputed is not None:
            return batch.precomputed
        element = self.references.element_index(batch.numbers)
        triplets = find_triplets(batch, element, len(self.elements), self.config.angular_cutoff)
        if int(triplets.is_real.sum()) < len(element):
            check_elements(self, batch.numbers, where=structure_at(batch.ids, batch.n_atoms))
        return triplets

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """Atomic energies.

        Args:
            batch: neighbors up to the cutoff.

        Returns:
            eV, float64; the networks compute in the dtype of their weights.

        Raises:
            UnknownElementError: an element without a network.
        """
        triplets = self._triplets(batch)
        aevs_by_element = atomic_environment_vectors(self.config, batch, triplets).split(
            [atoms.shape[0] for atoms in triplets.atoms_by_element]
        )
        outputs = [net(block)[:, 0] for net, block in zip(self.networks.values(), aevs_by_element, strict=True)]
        energies = torch.where(triplets.is_real, torch.cat(outputs), 0.0)
        return self.references(batch) + torch.zeros_like(batch.positions[:, 0]).index_add(0, triplets.order, energies)

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """See `Potential.shift_reference_energies`."""
        self.references.shift_reference_energies(shifts)

    def with_functions(self, *, activation: str | None = None, cutoff_function: str | None = None) -> Ani:
        """A copy with the same weights and other functions, to train on.

        A trained network with `celu` and the cosine cutoff, such as ANI-1x, has a curvature that jumps.
        `activation="smooth-celu"` removes most of the jumps and changes the energies little.

        Args:
            activation: as in `AniConfig`; None: unchanged.
            cutoff_function: as in `AniConfig`; None: unchanged.

        Returns:
            The copy; every parameter can be trained.

        Raises:
            ConfigError: an unknown function.
        """
        changes = {"activation": activation, "cutoff_function": cutoff_function}
        options = self.config.model_dump() | {name: value for name, value in changes.items() if value is not None}
        copy = Ani(validate_config(AniConfig, options, source="with_functions"), self.elements)
        weight = next(self.parameters())
        copy = copy.to(device=weight.device, dtype=weight.dtype)
        copy.load_state_dict(self.state_dict())
        return copy


def _network(config: AniConfig, symbol: str, width: int) -> nn.Sequential:
    """Linear layers with activations between them, from the AEV to one number."""
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise((width, *config.hidden_of.get(symbol, config.hidden), 1)):
        layer = nn.Linear(n_in, n_out)
        # Inputs and activations are small and mostly positive: variance 1/width keeps their size.
        nn.init.kaiming_normal_(layer.weight, a=1.0)
        nn.init.zeros_(layer.bias)
        layers += [layer, ACTIVATIONS[config.activation]()]
    return nn.Sequential(*layers[:-1])
