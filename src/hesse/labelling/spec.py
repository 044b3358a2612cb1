"""What every structure of a campaign is asked, piece by piece: what one campaign has answered, another need not ask."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hesse.errors import ConfigError
from hesse.probes import make_probe

__all__ = ["FORCES", "HESSIAN", "STRESS", "LabelSpec", "hvp_quantities", "probe_index", "quantity_kind"]

FORCES, HESSIAN, STRESS = "forces", "hessian", "stress"
"""Quantities. Energies come with the forces. A Hessian-vector product is `hvp/FAMILY/SEED/INDEX`: its probe is a
function of these and of the structure's id."""


@dataclass(frozen=True)
class LabelSpec:
    """What every structure is asked.

    Attributes:
        probes: Hessian-vector products per structure; 0 for none.
        probe: family of the probes, see `hesse.probes.PROBE_KINDS`.
        seed: of the probes. A structure's probes depend on the seed and its id alone, and more of them begin with the
            same ones.
        hessian: full Hessians too.
        stress: stress too (structures periodic in three directions).

    Raises:
        ConfigError: a negative number of probes; UnknownOptionError: an unknown family.
    """

    n_probes: int = 1
    probe: str = "rademacher"
    seed: int = 0
    hessian: bool = False
    stress: bool = False

    def __post_init__(self) -> None:
        if self.n_probes < 0:
            raise ConfigError(f"the number of probes per structure cannot be negative, got {self.n_probes}")
        make_probe(self.probe, max(self.n_probes, 1))

    def quantities(self) -> tuple[str, ...]:
        """What makes a structure complete, forces first, then the products in order of their probes."""
        products = tuple(f"hvp/{self.probe}/{self.seed}/{k}" for k in range(self.n_probes))
        return (FORCES, *products, *([HESSIAN] * self.hessian), *([STRESS] * self.stress))


def quantity_kind(quantity: str) -> str:
    """ "forces", "hvp", "hessian" or "stress"."""
    return quantity.partition("/")[0]


def probe_index(quantity: str) -> int:
    """Which probe of its stream a Hessian-vector product belongs to."""
    return int(quantity.rpartition("/")[2])


def hvp_quantities(quantities: Iterable[str]) -> list[str]:
    """The Hessian-vector products among `quantities`."""
    return [quantity for quantity in quantities if quantity_kind(quantity) == "hvp"]
