"""Selection of the properties to compute; the results are `Properties`."""

from __future__ import annotations

from typing import NoReturn

from jaxtyping import Float
from torch import Tensor

from hesse.errors import RequestError, did_you_mean
from hesse.structures.quantities import QUANTITIES

__all__ = ["Request", "check_request"]


class Request:
    """The properties to compute. Requests are not changed in place: `replace` makes a new one.

    Args:
        energy: energies of the structures, eV.
        forces: minus the gradient, eV/Å.
        probes: directions of the Hessian-vector products, `[probes, atoms, 3]`; None for no products.
        hessian: full Hessians, eV/Å².
        atomic_energies: energy of each atom, eV (potentials only).
        stress: stress of structures periodic in three directions, eV/Å³.
        **outputs: further outputs of potentials by name (`hesse.structures.register_quantity`), True or False.

    Attributes:
        outputs: names of the requested further outputs.

    Raises:
        RequestError: there is no quantity of this name.
    """

    energy: bool
    forces: bool
    probes: Float[Tensor, "probes atoms 3"] | None
    hessian: bool
    atomic_energies: bool
    stress: bool
    outputs: frozenset[str]

    def __init__(
        self,
        *,
        energy: bool = True,
        forces: bool = False,
        probes: Float[Tensor, "probes atoms 3"] | None = None,
        hessian: bool = False,
        atomic_energies: bool = False,
        stress: bool = False,
        **outputs: bool,
    ) -> None:
        known = [name for name, entry in QUANTITIES.items() if entry.role == "label" and entry.source == "output"]
        for name in outputs.keys() - set(known):
            names = ["energy", "forces", "probes", "hessian", "atomic_energies", "stress", *known]
            hint = "Hessian-vector products are requested by their probes" if name == "hvp" else None
            raise RequestError(f"there is no property {name!r} to request. {hint or did_you_mean(name, names)}")
        derivatives = {"energy": energy, "forces": forces, "hessian": hessian, "stress": stress}
        for name, requested in {**derivatives, "atomic_energies": atomic_energies, **outputs}.items():
            if requested is None or isinstance(requested, str):
                raise RequestError(f"{name}: expected True or False, got {requested!r}")
        if probes is not None and not isinstance(probes, Tensor):
            raise RequestError(
                f"probes: expected the directions as a tensor [probes, atoms, 3], got {type(probes).__name__}; "
                "hesse.compute(structures, engine, probes=2) draws random ones"
            )
        self.__dict__.update(
            energy=energy,
            forces=forces,
            probes=probes,
            hessian=hessian,
            atomic_energies=atomic_energies,
            stress=stress,
            outputs=frozenset(name for name, requested in outputs.items() if requested),
        )

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Request cannot be changed; make a new one: request.replace({name}=...)")

    def __repr__(self) -> str:
        names = [name for name in ("energy", "forces", "hessian", "atomic_energies", "stress") if getattr(self, name)]
        probes = [] if self.probes is None else [f"{self.probes.shape[0]} probes"]
        return f"Request({', '.join([*names, *probes, *sorted(self.outputs)])})"

    def replace(self, **changes: bool | Tensor | None) -> Request:
        """Copy with other properties.

        Args:
            **changes: as for a new request.

        Returns:
            The new request.
        """
        current = {name: value for name, value in self.__dict__.items() if name != "outputs"}
        return Request(**{**current, **dict.fromkeys(self.outputs, True), **changes})

    __replace__ = replace  # for copy.replace of Python 3.13


def check_request(request: object) -> None:
    """Check that an argument is a `Request`.

    Args:
        request: the argument to check.

    Raises:
        RequestError: it is not a Request.
    """
    if not isinstance(request, Request):
        raise RequestError(f"expected hesse.Request(forces=True, hessian=True, ...), got {request!r}")
