"""Where the tensors of a run come from: from memory, or pool by pool from a file that is larger.

Both decide the batches of an epoch from seed and epoch alone, before anything is read, so that a run that goes on meets
the batches it would have met.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, overload

import numpy as np
import torch
from numpy.typing import NDArray

from hesse.datasets import BLOCKS, POOLS, Dataset, FlatData, StreamedDataset, TrainingData, shuffled
from hesse.errors import RequestError
from hesse.structures import Batch, Labels
from hesse.training.background import Background
from hesse.training.config import BatchConfig, TrainConfig
from hesse.training.set_up import mixed_seed

__all__ = ["Batches", "InMemory", "Pools", "Supply", "labels_needed", "supply_for"]

Indices = NDArray[np.int64]


class Batches(Sequence[list[int]]):
    """Batches of an epoch as lists of indices, made when they are asked for: there may be millions."""

    def __init__(self, runs: Sequence[Indices]) -> None:
        self._runs = runs

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, place: int) -> list[int]: ...

    @overload
    def __getitem__(self, place: slice) -> Batches: ...

    def __getitem__(self, place: int | slice) -> list[int] | Batches:
        return Batches(self._runs[place]) if isinstance(place, slice) else [int(i) for i in self._runs[place]]


class Supply(Protocol):
    """Batches of a data set."""

    def epoch(self, epoch: int) -> Batches:
        """The batches of an epoch, in order, as indices of structures."""

    def batch(self, indices: Sequence[int]) -> tuple[Batch, Labels]:
        """Structures of one batch of the epoch that was asked for last, in the run's type and on its device."""

    def close(self) -> None:
        """Let go of what is held; work in the background ends."""


def supply_for(data: TrainingData, config: TrainConfig, cutoff: float) -> Supply:
    """What fits the data: `InMemory` or `Pools`."""
    return InMemory(data, config, cutoff) if isinstance(data, Dataset) else Pools(data, config, cutoff)


def labels_needed(config: TrainConfig) -> tuple[str, ...]:
    """The labels that the loss reads; others need not be moved about."""
    fresh = config.probe.source == "fresh"
    return tuple(dict.fromkeys("hessian" if name == "hvp" and fresh else name for name in config.weights.active()))


def _generator(config: TrainConfig, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(mixed_seed(config.seed, epoch))


def _dealt(sizes: Indices, members: Indices, generator: torch.Generator, limits: BatchConfig) -> list[Indices]:
    return shuffled(
        sizes, members, generator,
        max_atoms=limits.atoms, max_structures=limits.structures, window=limits.bucketing,
    )  # fmt: skip


class InMemory:
    """All structures as flat tensors, converted once to the run's type and device. Where an accelerator has no room for
    them, they stay on the host and batches are sent."""

    def __init__(self, data: Dataset, config: TrainConfig, cutoff: float) -> None:
        self.config = config
        self._sizes: Indices = data.n_atoms.numpy()
        geometry = data.flat(cutoff)
        flat = FlatData(geometry.structures, data.labels.only(labels_needed(config)), geometry.pairs, cutoff)
        self._there = _has_room(torch.device(config.device), flat.bytes())
        self._flat = flat.to(config.device if self._there else "cpu", getattr(torch, config.dtype))
        self._epoch: tuple[int, Batches] | None = None

    def epoch(self, epoch: int) -> Batches:
        """A shuffle of all structures."""
        if self._epoch is None or self._epoch[0] != epoch:
            everybody = np.arange(len(self._sizes))
            runs = _dealt(self._sizes, everybody, _generator(self.config, epoch), self.config.batch)
            self._epoch = epoch, Batches(runs)
        return self._epoch[1]

    def batch(self, indices: Sequence[int]) -> tuple[Batch, Labels]:
        """See `Supply.batch`."""
        batch, labels = self._flat.batch(indices)
        if self._there:
            return batch, labels
        return batch.to(self.config.device), labels.to(self.config.device)

    def close(self) -> None:
        """Nothing is held."""


def _has_room(device: torch.device, size: int) -> bool:
    """Whether `size` bytes leave an accelerator most of its free memory."""
    return device.type != "cuda" or size < torch.cuda.mem_get_info(device)[0] / 4


class Pools:
    """Structures of a file that is larger than memory.

    The file is cut into blocks of neighbouring structures. In every epoch the blocks are shuffled and dealt into pools
    of eight; the structures of a pool are shuffled into batches. While one pool is in use, a thread reads the next one
    and finds its neighbour lists.
    """

    def __init__(self, data: StreamedDataset, config: TrainConfig, cutoff: float) -> None:
        self.data, self.config, self.cutoff = data, config, cutoff
        self.labels = labels_needed(config)
        self._sizes: Indices = data.n_atoms.numpy()
        self._blocks = data.blocks(data.memory_mib * 2**20 / (POOLS * BLOCKS), self.labels)
        self._plans: dict[int, tuple[list[Indices], list[Indices]]] = {}
        self._pool_of = np.zeros(len(data), dtype=np.int64)
        self._place = np.zeros(len(data), dtype=np.int64)
        self._now = -1
        self._held: tuple[tuple[int, int], FlatData] | None = None
        self._next: tuple[tuple[int, int], Background[FlatData]] | None = None

    def epoch(self, epoch: int) -> Batches:
        """Batches of the first pool, then those of the second, ...; no batch is of two pools."""
        pools, runs = self._plan(epoch)
        if epoch != self._now:
            self._now = epoch
            for number, pool in enumerate(pools):
                members = np.concatenate([self._blocks[k] for k in pool])
                self._pool_of[members], self._place[members] = number, np.arange(len(members))
        return Batches(runs)

    def _plan(self, epoch: int) -> tuple[list[Indices], list[Indices]]:
        """The blocks of each pool, and all batches."""
        if epoch not in self._plans:
            generator = _generator(self.config, epoch)
            order = torch.randperm(len(self._blocks), generator=generator).numpy()
            pools = [order[k : k + BLOCKS] for k in range(0, len(order), BLOCKS)]
            runs: list[Indices] = []
            for pool in pools:
                members = np.concatenate([self._blocks[k] for k in pool])
                runs += _dealt(self._sizes, members, generator, self.config.batch)
            self._plans = {key: plan for key, plan in self._plans.items() if abs(key - epoch) <= 1}
            self._plans[epoch] = pools, runs
        return self._plans[epoch]

    def batch(self, indices: Sequence[int]) -> tuple[Batch, Labels]:
        """See `Supply.batch`. Waits for the pool where it is not read yet; an error of the reading thread is raised
        here.

        Raises:
            FileFormatError: the file is damaged, or was changed or removed.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        numbers = np.unique(self._pool_of[chosen])
        if len(numbers) > 1:
            raise RequestError("these structures are of several pools of a streamed data set: ask for one batch")
        if len(numbers) == 0 and self._held is not None:  # a process without a share: any pool will do
            return self._held[1].batch(chosen)
        number = int(numbers[0]) if len(numbers) else 0
        return self._pool(self._now, number).batch(self._place[chosen])

    def _pool(self, epoch: int, number: int) -> FlatData:
        key = epoch, number
        if self._held is None or self._held[0] != key:
            if self._next is None or self._next[0] != key:
                self._begin(key)
            assert self._next is not None
            self._held = None  # the pool that was in use makes room first
            read = self._next[1].result()
            self._next = None
            self._held = key, read.to(self.config.device, getattr(torch, self.config.dtype))
            last = number + 1 >= len(self._plan(epoch)[0])
            self._begin((epoch + 1, 0) if last else (epoch, number + 1))
        return self._held[1]

    def _begin(self, key: tuple[int, int]) -> None:
        """Start to read a pool."""
        if self._next is not None:
            self._next[1].stop()
        blocks = [self._blocks[k] for k in self._plan(key[0])[0][key[1]]]
        dtype = getattr(torch, self.config.dtype)

        def read(stopped: Callable[[], bool]) -> FlatData | None:
            parts = []
            for members in blocks:
                if stopped():
                    return None
                parts.append(self.data.flat(members, self.cutoff, self.labels, dtype=dtype))
            return FlatData.joined(parts)

        self._next = key, Background(read, "hesse: next pool of structures")

    def close(self) -> None:
        """End the thread that reads ahead."""
        if self._next is not None:
            self._next[1].stop()
        self._next = self._held = None
