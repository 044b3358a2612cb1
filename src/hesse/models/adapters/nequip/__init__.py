"""Models of NequIP and Allegro as potentials."""

from hesse.models.adapters.nequip.nequip_potential import NequipPotential

__all__ = ["NequipPotential"]
