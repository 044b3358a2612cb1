"""The batches of an epoch: which structures, in which order, how often."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from hesse.datasets import DatasetLike, draw_by_weight, shuffled_batches
from hesse.training.config import TrainConfig
from hesse.training.schedules import derive_seed

__all__ = ["EpochPlan"]

Indices = NDArray[np.int64]


class EpochPlan:
    """Shuffles of an epoch, which depend on seed and epoch only.

    Args:
        data: the data.
        config: settings of the run.
    """

    def __init__(self, data: DatasetLike, config: TrainConfig) -> None:
        self.config = config
        self._sizes: Indices = data.n_atoms.numpy()
        weights = data.energies().weight if config.batch.draw == "by-weight" else None
        self._weights: NDArray[np.float64] | None = None if weights is None else weights.double().numpy()

    def generator(self, epoch: int) -> torch.Generator:
        """The source of randomness of an epoch.

        Args:
            epoch: its number, from 0.

        Returns:
            A new generator.
        """
        return torch.Generator().manual_seed(derive_seed(self.config.seed, epoch))

    def batches(self, members: Indices, generator: torch.Generator) -> list[Indices]:
        """Distribute structures over random batches.

        Args:
            members: the structures.
            generator: that of the epoch.

        Returns:
            The structures of each batch: each of them once or, drawn by weight, as often as its weight says.
        """
        limits = self.config.batch
        if self._weights is not None:
            members = members[draw_by_weight(self._weights[members], self._weights.mean(), generator)]
        return shuffled_batches(
            self._sizes, members, generator,
            max_atoms=limits.atoms, max_structures=limits.structures, window=limits.size_window,
        )  # fmt: skip
