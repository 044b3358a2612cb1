"""Models of TorchANI as potentials, and copies of them in Hesse's own ANI."""

from hesse.models.adapters.torchani.potential import TorchAniPotential
from hesse.models.adapters.torchani.weights import ani_from_torchani

__all__ = ["TorchAniPotential", "ani_from_torchani"]
