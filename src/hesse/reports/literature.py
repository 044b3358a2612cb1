"""Published numbers that reports quote for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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


PUBLISHED_CHANGES: Final[tuple[PublishedChange, ...]] = (
    PublishedChange("energy", "NMS", -28.5),
    PublishedChange("forces", "NMS", -45.6),
    PublishedChange("hessian", "Test", -88.3),
    PublishedChange("hessian", "IRC", -87.0),
    PublishedChange("hessian", "NMS", -74.5),
)
"""Changes with one stored Hessian-vector product along a Gaussian probe per structure, mean of five seeds; labels at
wB97X-D/6-31G(d) of reactants, transition states and products (Test), of reaction paths (IRC) and of normal-mode samples
(NMS)."""
