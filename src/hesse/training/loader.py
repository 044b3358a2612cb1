"""Where the tensors of a run come from: from memory, or pool by pool from a file that is larger.

Both decide the batches of an epoch from seed and epoch alone, before anything is read, so that a run that goes on meets
the batches it would have met.
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
    """Work that runs in a thread of its own from the moment this is made.

    Args:
        work: is given a question, "shall I stop?", to be asked from time to time; where the answer is yes it may
            return None.
        name: of the thread.
    """

    def __init__(self, work: Callable[[Callable[[], bool]], T | None], name: str) -> None:
        self._stop = threading.Event()
        self._result: T | None = None
        self._error: BaseException | None = None

        def run_work() -> None:
            try:
                self._result = work(self._stop.is_set)
            except BaseException as error:
                self._error = error  # raised where the result is asked for

        # A daemon: a process that ends otherwise than through `stop` does not wait for it.
        self._thread = threading.Thread(target=run_work, name=name, daemon=True)
        self._thread.start()

    def result(self) -> T:
        """What the work returned, waited for; what it raised is raised here."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def stop(self) -> None:
        """End the work, and wait until it has ended; its result and its error are dropped."""
        self._stop.set()
        self._thread.join()


Indices = NDArray[np.int64]


class BatchIndices(Sequence[list[int]]):
    """Batches of an epoch as lists of indices, made when they are asked for: there may be millions."""

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
    """Batches of a data set."""

    def epoch(self, epoch: int) -> BatchIndices:
        """The batches of an epoch, in order, as indices of structures."""

    def batch(self, indices: Sequence[int]) -> tuple[Batch, Properties]:
        """Structures of one batch of the epoch that was asked for last, in the run's type and on its device."""

    def close(self) -> None:
        """Let go of what is held; work in the background ends."""


def make_source(data: DatasetLike, config: TrainConfig, cutoff: float) -> BatchSource:
    """What fits the data: `InMemorySource` or `Pools`."""
    return (
        InMemorySource(data, config, cutoff) if isinstance(data, Dataset) else ShuffleBufferSource(data, config, cutoff)
    )


def required_labels(config: TrainConfig) -> tuple[str, ...]:
    """The labels that the loss reads; others need not be moved about."""
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
    """All structures as flat tensors, converted once to the run's type and device. Where an accelerator has no room for
    them, they stay on the host and batches are sent."""

    def __init__(self, data: Dataset, config: TrainConfig, cutoff: float) -> None:
        self.config = config
        self._sizes: Indices = data.n_atoms.numpy()
        geometry = data.packed(cutoff)
        flat = PackedDataset(geometry.structures, data.labels.pick(required_labels(config)), geometry.pairs, cutoff)
        self._on_device = _fits_on_device(torch.device(config.device), flat.n_bytes())
        self._flat = flat.to(config.device if self._on_device else "cpu", getattr(torch, config.dtype))
        self._epoch: tuple[int, BatchIndices] | None = None

    def epoch(self, epoch: int) -> BatchIndices:
        """A shuffle of all structures."""
        if self._epoch is None or self._epoch[0] != epoch:
            all_indices = np.arange(len(self._sizes))
            batches = _epoch_batches(self._sizes, all_indices, _epoch_generator(self.config, epoch), self.config.batch)
            self._epoch = epoch, BatchIndices(batches)
        return self._epoch[1]

    def batch(self, indices: Sequence[int]) -> tuple[Batch, Properties]:
        """See `Supply.batch`."""
        batch, labels = self._flat.batch(indices)
        if self._on_device:
            return batch, labels
        return batch.to(self.config.device), labels.to(self.config.device)

    def close(self) -> None:
        """Nothing is held."""


def _fits_on_device(device: torch.device, size: int) -> bool:
    """Whether `size` bytes leave an accelerator most of its free memory."""
    return device.type != "cuda" or size < torch.cuda.mem_get_info(device)[0] / 4


class ShuffleBufferSource:
    """Structures of a file that is larger than memory.

    The file is cut into blocks of neighboring structures. In every epoch the blocks are shuffled and dealt into pools
    of eight; the structures of a pool are shuffled into batches. While one pool is in use, a thread reads the next one
    and finds its neighbor lists.
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
        """Batches of the first pool, then those of the second, ...; no batch is of two pools."""
        buffers, batches = self._plan(epoch)
        if epoch != self._current_epoch:
            self._current_epoch = epoch
            for number, buffer in enumerate(buffers):
                members = np.concatenate([self._blocks[k] for k in buffer])
                self._buffer_of[members], self._slot[members] = number, np.arange(len(members))
        return BatchIndices(batches)

    def _plan(self, epoch: int) -> tuple[list[Indices], list[Indices]]:
        """The blocks of each pool, and all batches."""
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
        """See `Supply.batch`. Waits for the pool where it is not read yet; an error of the reading thread is raised
        here.

        Raises:
            FileFormatError: the file is damaged, or was changed or removed.
        """
        index_array = np.asarray(indices, dtype=np.int64)
        buffer_numbers = np.unique(self._buffer_of[index_array])
        if len(buffer_numbers) > 1:
            raise RequestError("these structures are of several pools of a streamed data set: ask for one batch")
        if len(buffer_numbers) == 0 and self._current is not None:  # a process without a share: any pool will do
            return self._current[1].batch(index_array)
        number = int(buffer_numbers[0]) if len(buffer_numbers) else 0
        return self._buffer(self._current_epoch, number).batch(self._slot[index_array])

    def _buffer(self, epoch: int, number: int) -> PackedDataset:
        key = epoch, number
        if self._current is None or self._current[0] != key:
            if self._next is None or self._next[0] != key:
                self._prefetch(key)
            assert self._next is not None
            self._current = None  # the pool that was in use makes room first
            loaded = self._next[1].result()
            self._next = None
            self._current = key, loaded.to(self.config.device, getattr(torch, self.config.dtype))
            last = number + 1 >= len(self._plan(epoch)[0])
            self._prefetch((epoch + 1, 0) if last else (epoch, number + 1))
        return self._current[1]

    def _prefetch(self, key: tuple[int, int]) -> None:
        """Start to read a pool."""
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

        self._next = key, BackgroundTask(read_blocks, "hesse: next pool of structures")

    def close(self) -> None:
        """End the thread that reads ahead."""
        if self._next is not None:
            self._next[1].stop()
        self._next = self._current = None


class TrainingLoader:
    """Batches of a data set as a run needs them: a function of seed, epoch and step, whatever happened before.

    Args:
        data: the training structures, in memory or streamed from their file.
        config: the run.
        cutoff: Å, of the potential.
    """

    def __init__(self, data: DatasetLike, config: TrainConfig, cutoff: float) -> None:
        self.config = config
        self.probe = make_probe(config.probe.kind, config.probe.n_probes)
        self.curvature_sampler = CurvatureSampler.from_data(data, config)
        self.source = make_source(data, config, cutoff)

    def epoch(self, epoch: int) -> Sequence[list[int]]:
        """The batches of an epoch, as indices of structures: a shuffle that depends on seed and epoch only."""
        return self.source.epoch(epoch)

    def load(self, indices: Sequence[int], step: int, step_indices: Sequence[int] | None = None) -> list[MicroBatch]:
        """The structures `indices` with the labels of this step, in the run's type and on its device. `whole`: all
        structures of the step, where `indices` are a part of them; curvature terms are drawn among all."""
        microbatches = []
        for sub_batch in self.curvature_sampler.split(indices, step, step_indices):
            batch, labels = self.source.batch(sub_batch.indices)
            labels = self._with_probes(batch, labels, step) if sub_batch.with_curvature else labels
            microbatches.append((batch, sub_batch.mask_curvature(labels)))
        return microbatches

    def close(self) -> None:
        """End what reads ahead in the background. Entered as a context, this is done at its end."""
        self.source.close()

    def __enter__(self) -> TrainingLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _with_probes(self, batch: Batch, labels: Properties, step: int) -> Properties:
        """Labels whose HVP pairs are those of this step: the stored ones, or new ones through stored Hessians."""
        if self.config.weights.hvp <= 0:
            return labels
        if self.config.probe.source == "stored":
            return sample_probes(labels, batch.rng_keys, self.config.curvature.probes, seed=self.config.seed, step=step)
        directions = self.probe.draw(batch, ProbeSeed(self.config.seed, step))
        products = labels.hessian_matvec(directions)
        mask = labels.mask("hessian").expand(len(directions), -1)
        return replace(labels, probes=directions, hvp=products, hvp_mask=mask, hvp_error=None)


# MERGED DOCSTRING (fold into the module docstring): """One piece of work beside the main thread, whose result or error reaches whoever asks for it."""

# MERGED DOCSTRING (fold into the module docstring): """What a step is fed: which structures meet in which batch of which epoch, and their tensors."""
