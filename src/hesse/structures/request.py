"""Selection of the properties to compute; the results are `Properties`."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from hesse.errors import RequestError

__all__ = ["Request", "check_request"]


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


def check_request(request: object) -> None:
    """Check that an argument is a `Request`.

    Args:
        request: the argument to check.

    Raises:
        RequestError: it is not a Request.
    """
    if not isinstance(request, Request):
        raise RequestError(f"expected hesse.Request(forces=True, hessian=True, ...), got {request!r}")
