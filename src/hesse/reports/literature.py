"""Numbers from the literature, to stand beside one's own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

__all__ = ["PUBLISHED_CHANGES", "PUBLISHED_SOURCE", "PublishedChange"]

PUBLISHED_SOURCE: Final[str] = "Projected Hessian Learning, arXiv 2603.04523"


@dataclass(frozen=True)
class PublishedChange:
    """A published change of an RMSE from E-F to E-F-HVP.

    Attributes:
        property: as in the rows of an evaluation.
        test_set: the authors' name of the test set.
        percent: 100 (E-F-HVP/E-F − 1).
    """

    property: str
    test_set: str
    percent: float

    def to_json(self) -> dict[str, Any]:
        """As a dictionary of plain values."""
        return asdict(self)


PUBLISHED_CHANGES: Final[tuple[PublishedChange, ...]] = (
    PublishedChange("energy", "NMS", -28.5),
    PublishedChange("forces", "NMS", -45.6),
    PublishedChange("hessian", "Test", -88.3),
    PublishedChange("hessian", "IRC", -87.0),
    PublishedChange("hessian", "NMS", -74.5),
)
"""One stored product along a Gaussian probe per structure, mean of five seeds, wB97X-D/6-31G(d) labels of reactants,
transition states and products (Test), of reaction paths (IRC) and of normal-mode samples (NMS)."""
