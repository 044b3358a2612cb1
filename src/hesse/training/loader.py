"""Batches of a training run, from memory or from a file that is larger than memory.

`TrainingLoader` combines a source of batches with the sampling of curvature terms and fresh probes. Both sources
(`InMemorySource`, `ShuffleBufferSource`) determine the batches of an epoch from seed and epoch alone, before anything
is read, so that a resumed run gets the same batches as an uninterrupted one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, Protocol, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray

from hesse.datasets import (
    BLOCKS_PER_BUFFER,
    BUFFERS,
    Dataset,
    DatasetLike,
    PackedDataset,
    StreamingDataset,
    shuffled_batches,
)
from hesse.errors import RequestError
from hesse.probes import ProbeSeed, make_probe
from hesse.structures import Batch, Properties
from hesse.training.config import BatchConfig, TrainConfig
from hesse.training.curvature_sampling import CurvatureSampler, sample_probes
from hesse.training.run_setup import derive_seed
from hesse.training.step import MicroBatch

__all__ = [
    "BackgroundTask",
    "BatchIndices",
    "BatchSource",
    "InMemorySource",
    "ShuffleBufferSource",
    "TrainingLoader",
    "make_source",
    "required_labels",
]

T = TypeVar("T")


class BackgroundTask(Generic[T]):
    """A function that runs in its own thread from the moment this object is created.

    Args:
        work: the function. Its argument is a function that returns True after `stop`; `work` should call it from time
            to time and may then return None.
        name: name of the thread.
    """

    def __init__(self, work: Callable[[Callable[[], bool]], T | None], name: str) -> None:
        self._stop = threading.Event()
        self._result: T | None = None
        self._error: BaseException | None = None

        def run_work() -> None:
            try:
                self._result = work(self._stop.is_set)
            except BaseException as error:
                self._error = error  # raised by `result`

        # A daemon thread: a process that ends without calling `stop` does not wait for it.
        self._thread = threading.Thread(target=run_work, name=name, daemon=True)
        self._thread.start()

    def result(self) -> T:
        """Wait for the function and return its result. Its errors are raised here.

        Returns:
            What the function returned.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def stop(self) -> None:
        """Stop the function and wait for its end; result and errors are discarded."""
        self._stop.set()
        self._thread.join()


Indices = NDArray[np.int64]


class BatchIndices(Sequence[list[int]]):
    """Batches of an epoch as lists of structure indices, created on access: there may be millions.

    Args:
        batches: the indices of each batch.
    """

    def __init__(self, batches: Sequence[Indices]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...

    @overload
    def __getitem__(self, index: slice) -> BatchIndices: ...

    def __getitem__(self, index: int | slice) -> list[int] | BatchIndices:
        return (
            BatchIndices(self._batches[index]) if isinstance(index, slice) else [int(i) for i in self._batches[index]]
        )


class BatchSource(Protocol):
    """Source of the batches of a data set."""

    def epoch(self, epoch: int) -> BatchIndices:
        """The batches of an epoch, in order.

        Args:
            epoch: its number, from 0.

        Returns:
            Indices of the structures of each batch.
        """

    def batch(self, indices: Sequence[int]) -> tuple[Batch, Properties]:
        """Tensors of one batch of the current epoch, which is the last one that `epoch` was called for.

        Args:
            indices: structures of one batch, or some of them.

        Returns:
            The structures and their labels, with the dtype and on the device of the run.
        """

    def close(self) -> None:
        """Free the tensors and stop background threads."""


def make_source(data: DatasetLike, config: TrainConfig, cutoff: float) -> BatchSource:
    """The source of batches that fits the data.

    Args:
        data: training data, in memory or streamed from a file.
        config: settings of the run.
        cutoff: cutoff of the potential, Å.

    Returns:
        An `InMemorySource` or a `ShuffleBufferSource`.
    """
    return (
        InMemorySource(data, config, cutoff) if isinstance(data, Dataset) else ShuffleBufferSource(data, config, cutoff)
    )


def required_labels(config: TrainConfig) -> tuple[str, ...]:
    """The labels that the loss uses; others need not be loaded.

    Args:
        config: settings of the run.

    Returns:
        Names of the labels.
    """
    fresh = config.probe.source == "fresh"
    return tuple(dict.fromkeys("hessian" if name == "hvp" and fresh else name for name in config.weights.active()))


def _epoch_generator(config: TrainConfig, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(config.seed, epoch))


def _epoch_batches(sizes: Indices, members: Indices, generator: torch.Generator, limits: BatchConfig) -> list[Indices]:
    return shuffled_batches(
        sizes, members, generator,
        max_atoms=limits.atoms, max_structures=limits.structures, window=limits.size_window,
    )  # fmt: skip


class InMemorySource:
    """All structures as packed tensors, converted once to the dtype and device of the run.

    If they need more than a quarter of the free memory of a GPU, they stay on the host, and batches are copied.

    Args:
        data: training data.
        config: settings of the run.
        cutoff: cutoff of the potential, Å.
    """

    def __init__(self, data: Dataset, config: TrainConfig, cutoff: float) -> None:
        self.config = config
        self._sizes: Indices = data.n_atoms.numpy()
        geometry = data.packed(cutoff)
        flat = PackedDataset(geometry.structures, data.labels.pick(required_labels(config)), geometry.pairs, cutoff)
        self._on_device = _fits_on_device(torch.device(config.device), flat.n_bytes())
        self._flat = flat.to(config.device if self._on_device else "cpu", getattr(torch, config.dtype))
        self._epoch: tuple[int, BatchIndices] | None = None

    def epoch(self, epoch: int) -> BatchIndices:
        """See `BatchSource.epoch`. All structures are shuffled."""
        if self._epoch is None or self._epoch[0] != epoch:
            all_indices = np.arange(len(self._sizes))
            batches = _epoch_batches(self._sizes, all_indices, _epoch_generator(self.config, epoch), self.config.batch)
            self._epoch = epoch, BatchIndices(batches)
        return self._epoch[1]

    def batch(self, indices: Sequence[int]) -> tuple[Batch, Properties]:
        """See `BatchSource.batch`."""
        batch, labels = self._flat.batch(indices)
        if self._on_device:
            return batch, labels
        return batch.to(self.config.device), labels.to(self.config.device)

    def close(self) -> None:
        """See `BatchSource.close`."""


def _fits_on_device(device: torch.device, size: int) -> bool:
    """True if `size` bytes are less than a quarter of the free memory, or the device is not a GPU."""
    return device.type != "cuda" or size < torch.cuda.mem_get_info(device)[0] / 4


class ShuffleBufferSource:
    """Structures of a file that is larger than memory, through a shuffle buffer.

    The file is divided into blocks of consecutive structures. In every epoch the blocks are shuffled, and groups of
    `BLOCKS_PER_BUFFER` of them form a buffer, whose structures are shuffled into batches. While one buffer is in use, a
    thread reads the next one and computes its neighbor lists.

    Args:
        data: training data.
        config: settings of the run.
        cutoff: cutoff of the potential, Å.
    """

    def __init__(self, data: StreamingDataset, config: TrainConfig, cutoff: float) -> None:
        self.data, self.config, self.cutoff = data, config, cutoff
        self.labels = required_labels(config)
        self._sizes: Indices = data.n_atoms.numpy()
        self._blocks = data.block_indices(data.memory_mib * 2**20 / (BUFFERS * BLOCKS_PER_BUFFER), self.labels)
        self._plans: dict[int, tuple[list[Indices], list[Indices]]] = {}
        self._buffer_of = np.zeros(len(data), dtype=np.int64)
        self._slot = np.zeros(len(data), dtype=np.int64)
        self._current_epoch = -1
        self._current: tuple[tuple[int, int], PackedDataset] | None = None
        self._next: tuple[tuple[int, int], BackgroundTask[PackedDataset]] | None = None

    def epoch(self, epoch: int) -> BatchIndices:
        """See `BatchSource.epoch`. Batches of the first buffer, then those of the second, ..."""
        buffers, batches = self._plan(epoch)
        if epoch != self._current_epoch:
            self._current_epoch = epoch
            for number, buffer in enumerate(buffers):
                members = np.concatenate([self._blocks[k] for k in buffer])
                self._buffer_of[members], self._slot[members] = number, np.arange(len(members))
        return BatchIndices(batches)

    def _plan(self, epoch: int) -> tuple[list[Indices], list[Indices]]:
        """The blocks of each buffer, and all batches of an epoch."""
        if epoch not in self._plans:
            generator = _epoch_generator(self.config, epoch)
            order = torch.randperm(len(self._blocks), generator=generator).numpy()
            buffers = [order[k : k + BLOCKS_PER_BUFFER] for k in range(0, len(order), BLOCKS_PER_BUFFER)]
            batches: list[Indices] = []
            for buffer in buffers:
                members = np.concatenate([self._blocks[k] for k in buffer])
                batches += _epoch_batches(self._sizes, members, generator, self.config.batch)
            self._plans = {key: plan for key, plan in self._plans.items() if abs(key - epoch) <= 1}
            self._plans[epoch] = buffers, batches
        return self._plans[epoch]

    def batch(self, indices: Sequence[int]) -> tuple[Batch, Properties]:
        """Tensors of one batch of the current epoch. Waits if its buffer is not read yet.

        Args:
            indices: structures of one batch, or some of them.

        Returns:
            The structures and their labels, with the dtype and on the device of the run.

        Raises:
            RequestError: the structures are of several buffers, and therefore not of one batch.
            FileFormatError: the file is damaged, or was changed or removed.
        """
        index_array = np.asarray(indices, dtype=np.int64)
        buffer_numbers = np.unique(self._buffer_of[index_array])
        if len(buffer_numbers) > 1:
            raise RequestError(
                "these structures are of several buffers of a streamed data set: request one batch at a time"
            )
        if len(buffer_numbers) == 0 and self._current is not None:  # no structures: any buffer will do
            return self._current[1].batch(index_array)
        number = int(buffer_numbers[0]) if len(buffer_numbers) else 0
        return self._buffer(self._current_epoch, number).batch(self._slot[index_array])

    def _buffer(self, epoch: int, number: int) -> PackedDataset:
        key = epoch, number
        if self._current is None or self._current[0] != key:
            if self._next is None or self._next[0] != key:
                self._prefetch(key)
            assert self._next is not None
            self._current = None  # free its memory first
            loaded = self._next[1].result()
            self._next = None
            self._current = key, loaded.to(self.config.device, getattr(torch, self.config.dtype))
            last = number + 1 >= len(self._plan(epoch)[0])
            self._prefetch((epoch + 1, 0) if last else (epoch, number + 1))
        return self._current[1]

    def _prefetch(self, key: tuple[int, int]) -> None:
        """Start reading a buffer in the background."""
        if self._next is not None:
            self._next[1].stop()
        blocks = [self._blocks[k] for k in self._plan(key[0])[0][key[1]]]
        dtype = getattr(torch, self.config.dtype)

        def read_blocks(should_stop: Callable[[], bool]) -> PackedDataset | None:
            parts = []
            for members in blocks:
                if should_stop():
                    return None
                parts.append(self.data.packed(members, self.cutoff, self.labels, dtype=dtype))
            return PackedDataset.concatenate(parts)

        self._next = key, BackgroundTask(read_blocks, "hesse: next buffer of structures")

    def close(self) -> None:
        """See `BatchSource.close`."""
        if self._next is not None:
            self._next[1].stop()
        self._next = self._current = None


class TrainingLoader:
    """Batches with the labels of each step of a run: functions of (seed, epoch, step), independent of earlier calls.

    Use as a context manager, or call `close`.

    Args:
        data: training data, in memory or streamed from a file.
        config: settings of the run.
        cutoff: cutoff of the potential, Å.
    """

    def __init__(self, data: DatasetLike, config: TrainConfig, cutoff: float) -> None:
        self.config = config
        self.probe = make_probe(config.probe.kind, config.probe.n_probes)
        self.curvature_sampler = CurvatureSampler.from_data(data, config)
        self.source = make_source(data, config, cutoff)

    def epoch(self, epoch: int) -> Sequence[list[int]]:
        """The batches of an epoch: a shuffle that depends on seed and epoch only.

        Args:
            epoch: its number, from 0.

        Returns:
            Indices of the structures of each batch.
        """
        return self.source.epoch(epoch)

    def load(self, indices: Sequence[int], step: int, step_indices: Sequence[int] | None = None) -> list[MicroBatch]:
        """Load structures with the labels of a step.

        Args:
            indices: structures to load, of the current epoch.
            step: number of the step, from 0.
            step_indices: all structures of the step, if `indices` are a part of them; the structures with curvature
                terms are sampled from all.

        Returns:
            One or two microbatches (structures, labels), with the dtype and on the device of the run.
        """
        microbatches = []
        for sub_batch in self.curvature_sampler.split(indices, step, step_indices):
            batch, labels = self.source.batch(sub_batch.indices)
            labels = self._with_probes(batch, labels, step) if sub_batch.with_curvature else labels
            microbatches.append((batch, sub_batch.mask_curvature(labels)))
        return microbatches

    def close(self) -> None:
        """Free the tensors and stop background threads."""
        self.source.close()

    def __enter__(self) -> TrainingLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _with_probes(self, batch: Batch, labels: Properties, step: int) -> Properties:
        """Labels with the (probe, product) pairs of this step: stored pairs, or fresh probes times stored Hessians."""
        if self.config.weights.hvp <= 0:
            return labels
        if self.config.probe.source == "stored":
            return sample_probes(labels, batch.rng_keys, self.config.curvature.probes, seed=self.config.seed, step=step)
        directions = self.probe.draw(batch, ProbeSeed(self.config.seed, step))
        products = labels.hessian_matvec(directions)
        mask = labels.mask("hessian").expand(len(directions), -1)
        return replace(labels, probes=directions, hvp=products, hvp_mask=mask, hvp_error=None)
