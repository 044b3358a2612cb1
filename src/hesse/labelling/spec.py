"""The properties that a campaign computes for every structure.

They are split into quantities (forces, one Hessian-vector product, the Hessian, the stress), which are stored one by
one: a later campaign reuses every quantity that an earlier one has computed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from hesse.datasets import COUNTED_BY_STRUCTURE, check_probe_kind, count_fixed_probes
from hesse.errors import ConfigError, RequestError
from hesse.runtime.settings import check_fields
from hesse.structures import Structure, quantity

__all__ = ["FORCES", "HESSIAN", "STRESS", "LabelSpec", "hvp_quantities", "probe_index", "quantity_kind"]

FORCES, HESSIAN, STRESS = "forces", "hessian", "stress"
"""Names of quantities. `forces` includes the energy. A Hessian-vector product is named `hvp/FAMILY/SEED/INDEX`; its
probe is a function of these three and of the structure."""


@dataclass(frozen=True)
class LabelSpec:
    """The properties to compute for every structure. Energy and forces are always computed.

    Attributes:
        n_probes: number of Hessian-vector products per structure; 0 for none. With `symmetry-adapted` probes each
            crystal has as many as its symmetry needs.
        probe: kind of the probes, one of `hesse.datasets.FIXED_PROBE_KINDS`.
        seed: seed of the probes. The probes of a structure depend only on the seed and on its id (designed ones also on
            its geometry); a larger `n_probes` starts with the same probes.
        hessian: also compute the full Hessian.
        stress: also compute the stress of structures that are periodic in three directions; it is left out for others.
        outputs: further quantities to compute, by name (`hesse.register_quantity`), by engines that have them.

    Raises:
        RequestError: a quantity in `outputs` that engines do not compute.
        ConfigError: `n_probes` is negative, or a number of symmetry-adapted probes.
        UnknownOptionError: `probe` is not a known kind.
    """

    n_probes: int = 1
    probe: str = "rademacher"
    seed: int = 0
    hessian: bool = False
    stress: bool = False
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if self.n_probes < 0:
            raise ConfigError(f"the number of probes per structure cannot be negative, got {self.n_probes}")
        check_probe_kind(self.probe, max(self.n_probes, 1))
        if self.probe in COUNTED_BY_STRUCTURE and self.n_probes > 1:
            raise ConfigError(
                f"{self.n_probes} {self.probe} probes were asked for: every crystal has as many as its symmetry "
                "needs. Leave their number out"
            )
        names = [self.outputs] if isinstance(self.outputs, str) else self.outputs
        if not isinstance(names, Collection):
            raise RequestError(f"outputs: expected names of quantities, got {self.outputs!r}")
        for name in names:
            if quantity(name).source != "output" or not quantity(name).engines:
                raise RequestError(f"outputs: {name} is not a registered quantity that engines compute")
        object.__setattr__(self, "outputs", tuple(names))

    def quantities_of(self, structure: Structure) -> tuple[str, ...]:
        """Name the quantities that make a structure complete.

        Args:
            structure: the structure.

        Returns:
            The forces first, then the products in the order of their probes, then Hessian, stress (of structures that
            are periodic in three directions) and further outputs.

        Raises:
            GeometryError: symmetry-adapted probes of a molecule.
        """
        count = count_fixed_probes(structure, self.probe, self.n_probes)
        products = (f"hvp/{self.probe}/{self.seed}/{k}" for k in range(count))
        with_stress = self.stress and all(structure.pbc)
        return (FORCES, *products, *([HESSIAN] * self.hessian), *([STRESS] * with_stress), *self.outputs)


def quantity_kind(name: str) -> str:
    """Kind of a quantity.

    Args:
        name: its name, such as "hvp/rademacher/0/3".

    Returns:
        "forces", "hvp", "hessian", "stress" or the name of a further output.
    """
    return name.partition("/")[0]


def probe_index(name: str) -> int:
    """Index of the probe of a Hessian-vector product.

    Args:
        name: name of the product, such as "hvp/rademacher/0/3".

    Returns:
        The last part of the name, here 3.
    """
    return int(name.rpartition("/")[2])


def hvp_quantities(quantities: Iterable[str]) -> list[str]:
    """Select the Hessian-vector products.

    Args:
        quantities: names of quantities.

    Returns:
        Those of kind "hvp", in the same order.
    """
    return [name for name in quantities if quantity_kind(name) == "hvp"]
