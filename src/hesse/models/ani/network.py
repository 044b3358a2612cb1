"""ANI: a network per element on atomic environment vectors.

Smith, Isayev, Roitberg, Chem. Sci. 8, 3192 (2017). Any elements, open or periodic structures.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import torch
from ase.data import chemical_symbols
from jaxtyping import Float
from torch import Tensor, nn

from hesse.models.ani.aev import aev_length, atomic_environment_vectors
from hesse.models.ani.ani_config import AniConfig
from hesse.models.ani.triplets import TripletIndex, find_triplets
from hesse.models.reference_energies import ReferenceEnergies
from hesse.potential import Potential, check_elements, structure_at
from hesse.structures import Batch

__all__ = ["Ani"]

CELU_ALPHA = 0.1


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
        symbols = [chemical_symbols[z] for z in self.elements]
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
            [len(atoms) for atoms in triplets.atoms_by_element]
        )
        outputs = [net(block)[:, 0] for net, block in zip(self.networks.values(), aevs_by_element, strict=True)]
        energies = torch.where(triplets.is_real, torch.cat(outputs), 0.0)
        return self.references(batch) + torch.zeros_like(batch.positions[:, 0]).index_add(0, triplets.order, energies)

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """See `Potential.shift_reference_energies`."""
        self.references.shift_reference_energies(shifts)


def _network(config: AniConfig, symbol: str, width: int) -> nn.Sequential:
    """Linear layers with activations between them, from the AEV to one number."""
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise((width, *config.hidden_of.get(symbol, config.hidden), 1)):
        layer = nn.Linear(n_in, n_out)
        # Inputs and activations are small and mostly positive: variance 1/width keeps their size.
        nn.init.kaiming_normal_(layer.weight, a=1.0)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.CELU(CELU_ALPHA) if config.activation == "celu" else nn.GELU()]
    return nn.Sequential(*layers[:-1])
