"""Short-range repulsion: the screened nuclear repulsion of Ziegler, Biersack and Littmark (ZBL).

Training data rarely contain atoms at half a bond length, so a network extrapolates there and may become attractive. A
physical repulsion that vanishes before bond lengths keeps dynamics and searches out of such regions.
"""

from __future__ import annotations

from typing import Literal

import torch
from ase.data import covalent_radii
from ase.units import Bohr, Hartree
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from hesse.errors import ConfigError
from hesse.models.reference_energies import ReferenceEnergies
from hesse.potential import Potential
from hesse.runtime.settings import Settings
from hesse.smooth import masked_norm, smooth_cutoff
from hesse.structures import Batch, is_bead, species_names

__all__ = ["Zbl", "ZblConfig"]

SCREENING = ((0.18175, 3.1998), (0.50986, 0.94229), (0.28022, 0.4029), (0.02817, 0.20162))
"""Universal screening function: `φ(x) = Σ c exp(−b x)`."""
COULOMB = Hartree * Bohr
"""e²/4πε0, eV Å."""


class ZblConfig(Settings):
    """Range of the repulsion."""

    kind: Literal["zbl"] = "zbl"
    reach: float = Field(1.0, gt=0, le=3, description="cutoff, in units of the sum of two covalent radii")


class Zbl(Potential):
    """`V(r) = ½ Σ_ij (Z_i Z_j e²/4πε0 r) φ(r/a) f(r/R_ij)` with `a = 0.8854 a0/(Z_i^0.23 + Z_j^0.23)`.

    f is `hesse.smooth.smooth_cutoff`, R_ij is `reach` times the sum of the covalent radii (Cordero et al. 2008, from
    ASE): the energy and its first three derivatives are zero from there on. It has no trainable parameters.
    Source: J. F. Ziegler, J. P. Biersack, U. Littmark, The Stopping and Range of Ions in Solids (1985).

    Args:
        config: range; default `ZblConfig()`.
        elements: atomic numbers it is limited to; empty for all.
    """

    _radii: Float[Tensor, "numbers"]

    def __init__(self, config: ZblConfig | None = None, elements: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.config = config or ZblConfig()
        self.elements = ReferenceEnergies(elements).elements if elements else ()
        if is_bead(self.elements).any():
            raise ConfigError(
                f"the ZBL repulsion is that of two nuclei, and {', '.join(species_names(self.elements))} are beads: "
                "leave out repulsion, and use a prior made from the data (hesse coarse prior)"
            )
        radii = torch.as_tensor(covalent_radii.copy(), dtype=torch.float64)
        self.register_buffer("_radii", radii, persistent=False)
        used = covalent_radii[list(self.elements)] if self.elements else covalent_radii
        self.cutoff = float(2 * self.config.reach * used.max())

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """Atomic energies: each atom gets half of the repulsion of its pairs.

        Args:
            batch: neighbors up to the cutoff.

        Returns:
            eV, in the dtype of the positions.
        """
        positions = batch.positions
        radii = self._radii.to(positions.dtype).index_select(0, batch.numbers)
        charges = batch.numbers.to(positions.dtype)
        neighbor_index = batch.neighbors.reshape(-1)
        neighbor_charges = charges.index_select(0, neighbor_index).reshape(batch.neighbors.shape)
        pair_cutoffs = self.config.reach * (
            radii[:, None] + radii.index_select(0, neighbor_index).reshape(batch.neighbors.shape)
        )
        distance = masked_norm(batch.neighbor_vectors(), batch.neighbor_mask, fill=self.cutoff)
        screening_length = 0.8854 * Bohr / (charges[:, None] ** 0.23 + neighbor_charges**0.23)
        x = distance / screening_length
        screening = sum(c * torch.exp(-b * x) for c, b in SCREENING)
        envelope = smooth_cutoff(distance / pair_cutoffs, 1.0) * batch.neighbor_mask
        pair_energies = charges[:, None] * neighbor_charges / distance * screening * envelope
        return 0.5 * COULOMB * pair_energies.sum(-1)
