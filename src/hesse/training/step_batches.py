"""The data of every step of a run: batches of the training data and, between them, of other data (replay).

A cycle is one step on training data and `replay.steps` steps on the replay data, which have no curvature terms. Steps
on other data in between keep a potential from forgetting what a few special structures do not show. Everything follows
from the configuration and the counters in the state of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hesse.datasets import DatasetLike
from hesse.training.checkpoint import TrainState
from hesse.training.config import ReplayConfig, TrainConfig
from hesse.training.distributed import Communicator
from hesse.training.loader import TrainingLoader
from hesse.training.replay_data import CURVATURE, without_curvature_terms
from hesse.training.step import MicroBatch

__all__ = ["StepBatch", "StepBatches"]


@dataclass(frozen=True)
class StepBatch:
    """The structures of one step.

    Attributes:
        loader: loads them.
        indices: which structures of its data.
        data: its data.
        is_replay: whether they are replay data.
    """

    loader: TrainingLoader
    indices: NDArray[np.int64]
    data: DatasetLike
    is_replay: bool

    def load(self, step: int, *, whole: bool = False) -> list[MicroBatch]:
        """Load structures and labels.

        Args:
            step: number of the step.
            whole: all structures, not only the part of this process.

        Returns:
            See `TrainingLoader.load`.
        """
        return self.loader.load(self.indices, step, only=self.indices if whole else None)

    def weights(self, weights: Mapping[str, float], quantities: Mapping[str, str]) -> dict[str, float]:
        """Weights of the loss terms in this step.

        Args:
            weights: weights of the terms at this step by name.
            quantities: quantity of each term.

        Returns:
            The same; zero for the curvature terms of replay data.
        """
        return {
            name: 0.0 if self.is_replay and quantities[name] in CURVATURE else weight
            for name, weight in weights.items()
        }


class StepBatches:
    """The batches of a run, as functions of its state. Use as a context manager.

    Args:
        training: training data.
        replay: replay data, if any.
        config: settings of the run, with the device of this process.
        cutoff: cutoff of the potential, Å.
        communicator: the processes that share the structures of a step.
    """

    def __init__(
        self,
        training: DatasetLike,
        replay: DatasetLike | None,
        config: TrainConfig,
        cutoff: float,
        communicator: Communicator,
    ) -> None:
        self.training, self.replay = training, replay
        self.loader = TrainingLoader(training, config, cutoff, communicator)
        self._cycle, self._replay_loader = 1, None
        if replay is not None:
            self._cycle = 1 + (config.replay or ReplayConfig()).steps
            self._replay_loader = TrainingLoader(replay, without_curvature_terms(config), cutoff, communicator)

    @property
    def replay_source(self) -> tuple[TrainingLoader, DatasetLike] | None:
        """Loader and data of replay steps; None without replay."""
        if self._replay_loader is None or self.replay is None:
            return None
        return self._replay_loader, self.replay

    def next(self, state: TrainState) -> StepBatch:
        """The batch of the next step.

        Args:
            state: progress of the run; when an epoch is over, its counters move to the next one.

        Returns:
            The batch.
        """
        if self._replay_loader is None or state.step % self._cycle == 0:
            batches = self.loader.epoch(state.epoch)
            if state.batch >= len(batches):
                state.epoch, state.batch = state.epoch + 1, 0
                batches = self.loader.epoch(state.epoch)
            return StepBatch(self.loader, batches[state.batch], self.training, False)
        assert self.replay is not None
        batches = self._replay_loader.epoch(state.replay_epoch)
        if state.replay_batch >= len(batches):
            state.replay_epoch, state.replay_batch = state.replay_epoch + 1, 0
            batches = self._replay_loader.epoch(state.replay_epoch)
        return StepBatch(self._replay_loader, batches[state.replay_batch], self.replay, True)

    def example(self, state: TrainState) -> StepBatch:
        """A batch of training data like those of the coming steps.

        Args:
            state: progress of the run, which does not change.

        Returns:
            The batch.
        """
        batches = self.loader.epoch(state.epoch)
        return StepBatch(self.loader, batches[min(state.batch, len(batches) - 1)], self.training, False)

    @staticmethod
    def count(state: TrainState, batch: StepBatch) -> None:
        """Note in the state of the run that a step is done.

        Args:
            state: progress of the run.
            batch: the batch of the step.
        """
        state.step += 1
        if batch.is_replay:
            state.replay_batch += 1
        else:
            state.batch += 1

    def __enter__(self) -> StepBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self.loader.close()
        if self._replay_loader is not None:
            self._replay_loader.close()
