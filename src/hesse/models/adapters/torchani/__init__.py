"""Models of TorchANI as potentials, and copies of them in Hesse's own ANI."""

from hesse.models.adapters.torchani.torchani_convert import ani_from_torchani
from hesse.models.adapters.torchani.torchani_potential import TorchAniPotential

__all__ = ["TorchAniPotential", "ani_from_torchani"]
