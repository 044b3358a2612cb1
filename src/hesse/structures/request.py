"""What to compute: the question half of the pair whose answer is `Labels`."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

__all__ = ["Request"]


@dataclass(frozen=True, eq=False)
class Request:
    """Which labels are wanted.

    Attributes:
        energy: energies of the structures.
        forces: minus the gradient.
        probes: directions `[probes, atoms, 3]` along which to take Hessian-vector products; None for none.
        hessian: full Hessians.
        atomic_energies: the energy of each atom (potentials only; engines do not have it).
        stress: stress of periodic structures, eV/Å³.
    """

    energy: bool = True
    forces: bool = False
    probes: Float[Tensor, "probes atoms 3"] | None = None
    hessian: bool = False
    atomic_energies: bool = False
    stress: bool = False
