"""Selection of the properties to compute; the results are `Properties`."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

__all__ = ["Request"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Request:
    """The properties to compute.

    Attributes:
        energy: energies of the structures, eV.
        forces: minus the gradient, eV/Å.
        probes: directions of the Hessian-vector products, `[probes, atoms, 3]`; None for no products.
        hessian: full Hessians, eV/Å².
        atomic_energies: energy of each atom, eV (potentials only).
        stress: stress of structures periodic in three directions, eV/Å³.
    """

    energy: bool = True
    forces: bool = False
    probes: Float[Tensor, "probes atoms 3"] | None = None
    hessian: bool = False
    atomic_energies: bool = False
    stress: bool = False
