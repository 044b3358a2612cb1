"""Root-mean-square errors and their standard errors, from sums over structures."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from hesse.datasets import Dataset
from hesse.training.distributed import Communicator

__all__ = ["SquaredErrors", "StructureName", "reduce_errors", "structure_names"]

StructureName = tuple[str, str]
"""Group and id of a structure."""


def structure_names(data: Dataset, indices: Sequence[int]) -> list[StructureName]:
    """Names of structures, under which their errors are summed.

    Args:
        data: data set.
        indices: which structures.

    Returns:
        Group (the id, for a structure without a group) and id of each of them.
    """
    structures = (data.structures[index] for index in indices)
    return [(s.group or f"id:{s.id}", s.id) for s in structures]


class SquaredErrors:
    """Sums of squared errors of one label and numbers of its components, by structure.

    Attributes:
        squared: sum of squared errors of each structure.
        counts: number of its components.
    """

    def __init__(self) -> None:
        self.squared: dict[StructureName, float] = defaultdict(float)
        self.counts: dict[StructureName, float] = defaultdict(float)

    def add(
        self, names: Sequence[StructureName], squared: Float[Tensor, "structures"], counts: Int[Tensor, "structures"]
    ) -> None:
        """Add structures.

        Args:
            names: their names.
            squared: sum of squared errors of each of them.
            counts: number of its components; structures with zero are left out.
        """
        for name, value, count in zip(names, squared.tolist(), counts.tolist(), strict=True):
            if count:
                self.squared[name] += value
                self.counts[name] += count

    def rmse(self) -> tuple[float, float | None]:
        """The RMSE over components and its standard error, from the spread over groups of structures.

        The standard error is that of the jackknife (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
        chapter 11): from the values without one of n groups each, √((n−1)/n Σ(θ₍ᵢ₎ − mean)²). If all structures are of
        one group, it is that over structures.

        Returns:
            RMSE and standard error; None instead of the latter for fewer than two structures.
        """
        names = list(self.counts)
        by_group = len({group for group, _ in names}) > 1
        _, index = np.unique([group if by_group else structure for group, structure in names], return_inverse=True)
        squared = np.bincount(index, [self.squared[name] for name in names])
        counts = np.bincount(index, [self.counts[name] for name in names])
        rmse, n = math.sqrt(squared.sum() / counts.sum()), len(counts)
        if n < 2:
            return rmse, None
        others = np.sqrt(np.maximum(squared.sum() - squared, 0.0) / (counts.sum() - counts))
        return rmse, math.sqrt((n - 1) / n * float(np.square(others - others.mean()).sum()))


def reduce_errors(
    totals: Mapping[str, SquaredErrors], communicator: Communicator
) -> tuple[dict[str, float], dict[str, float]]:
    """Compute errors from the sums of all processes.

    Args:
        totals: sums of this process by label. A process without structures has no labels.
        communicator: the processes.

    Returns:
        RMSE by label, and its standard error by label; labels without any value are left out.
    """
    # One exchange for all labels: processes may have different ones.
    squared = communicator.all_reduce_sum_dict({(n, s): v for n, e in totals.items() for s, v in e.squared.items()})
    counts = communicator.all_reduce_sum_dict({(n, s): v for n, e in totals.items() for s, v in e.counts.items()})
    sums: dict[str, SquaredErrors] = defaultdict(SquaredErrors)
    for (name, structure), count in counts.items():
        sums[name].squared[structure], sums[name].counts[structure] = squared[name, structure], count
    rmse: dict[str, float] = {}
    standard_errors: dict[str, float] = {}
    for name, errors in sums.items():
        rmse[name], standard_error = errors.rmse()
        if standard_error is not None:
            standard_errors[name] = standard_error
    return rmse, standard_errors
