"""Sums per structure. A data set, a tag and a bootstrap sample differ only in which structures are added up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

__all__ = ["ErrorSums"]


@dataclass(frozen=True, eq=False)
class ErrorSums:
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
    def from_values(cls, values: Float[Tensor, "values"], structure_index: Int[Tensor, "values"], n_structures: int) -> ErrorSums:
        """Sums of `values`, of which each belongs to the structure `owner`."""
        array, index = values.detach().double().cpu().numpy(), structure_index.cpu().numpy()
        return cls(
            np.bincount(index, array * array, n_structures),
            np.bincount(index, np.abs(array), n_structures),
            np.bincount(index, minlength=n_structures),
        )

    @classmethod
    def from_repeated(cls, values: Float[ndarray, "structures"], counts: Int[ndarray, "structures"]) -> ErrorSums:
        """One value per structure, standing for `counts` of them; NaN stands for none."""
        finite = np.isfinite(values) & (counts > 0)
        counts, magnitudes = np.where(finite, counts, 0), np.where(finite, np.abs(values), 0.0)
        return cls(magnitudes * magnitudes * counts, magnitudes * counts, counts)

    def select(self, selection: Bool[ndarray, "structures"] | Int[ndarray, "chosen"]) -> ErrorSums:
        """The sums of the structures chosen, by mask or by index (one may come twice)."""
        return ErrorSums(self.squared[selection], self.absolute[selection], self.counts[selection])

    def n_values(self) -> int:
        """How many values there are."""
        return int(self.counts.sum())

    def rms(self) -> float:
        """Root mean square over all values; NaN of nothing."""
        return float(np.sqrt(self.squared.sum() / n)) if (n := self.n_values()) else float("nan")

    def mean_absolute(self) -> float:
        """Mean absolute value over all values; NaN of nothing."""
        return float(self.absolute.sum() / n) if (n := self.n_values()) else float("nan")

    def rms_per_structure(self) -> Float[ndarray, "structures"]:
        """Root mean square of each structure's values; NaN where it has none."""
        return np.sqrt(self.squared / np.where(self.counts, self.counts, np.nan))
