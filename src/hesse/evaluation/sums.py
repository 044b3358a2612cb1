"""Sums per structure. A data set, a tag and a bootstrap sample differ only in which structures are added up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

__all__ = ["Sums"]


@dataclass(frozen=True, eq=False)
class Sums:
    """Squared and absolute values added up for each structure, and how many there were.

    Attributes:
        squared: in the unit of the values, squared.
        absolute: in the unit of the values.
        counts: how many values each structure contributed; 0 where it has none.
    """

    squared: Float[ndarray, "structures"]
    absolute: Float[ndarray, "structures"]
    counts: Int[ndarray, "structures"]

    @classmethod
    def of(cls, values: Float[Tensor, "values"], owner: Int[Tensor, "values"], structures: int) -> Sums:
        """Sums of `values`, of which each belongs to the structure `owner`."""
        numbers, owners = values.detach().double().cpu().numpy(), owner.cpu().numpy()
        return cls(
            np.bincount(owners, numbers * numbers, structures),
            np.bincount(owners, np.abs(numbers), structures),
            np.bincount(owners, minlength=structures),
        )

    @classmethod
    def repeated(cls, values: Float[ndarray, "structures"], counts: Int[ndarray, "structures"]) -> Sums:
        """One value per structure, standing for `counts` of them; NaN stands for none."""
        known = np.isfinite(values) & (counts > 0)
        counts, sizes = np.where(known, counts, 0), np.where(known, np.abs(values), 0.0)
        return cls(sizes * sizes * counts, sizes * counts, counts)

    def select(self, chosen: Bool[ndarray, "structures"] | Int[ndarray, "chosen"]) -> Sums:
        """The sums of the structures chosen, by mask or by index (one may come twice)."""
        return Sums(self.squared[chosen], self.absolute[chosen], self.counts[chosen])

    def total(self) -> int:
        """How many values there are."""
        return int(self.counts.sum())

    def rms(self) -> float:
        """Root mean square over all values; NaN of nothing."""
        return float(np.sqrt(self.squared.sum() / total)) if (total := self.total()) else float("nan")

    def mean(self) -> float:
        """Mean absolute value over all values; NaN of nothing."""
        return float(self.absolute.sum() / total) if (total := self.total()) else float("nan")

    def rms_per_structure(self) -> Float[ndarray, "structures"]:
        """Root mean square of each structure's values; NaN where it has none."""
        return np.sqrt(self.squared / np.where(self.counts, self.counts, np.nan))
