"""Training data that stay in a file larger than memory, and the labels that a run needs of its data."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from hesse.datasets import BLOCKS_PER_BUFFER, BUFFERS, DatasetLike, PackedDataset, StreamingDataset
from hesse.errors import RequestError
from hesse.harmonic.probe_weighting import probe_transforms
from hesse.structures import Batch, Properties, Structure
from hesse.training.config import TrainConfig
from hesse.training.epoch_plan import EpochPlan

__all__ = ["ShuffleBuffer", "required_labels", "with_probe_transforms"]

Indices = NDArray[np.int64]


def required_labels(data: DatasetLike, config: TrainConfig) -> tuple[str, ...]:
    """The labels that the loss uses; others need not be loaded.

    Args:
        data: training data.
        config: settings of the run.

    Returns:
        Names of the labels. Fresh probes need Hessians, and the stored products of structures without one, if any.
    """
    names: list[str] = []
    for name in config.make_loss().quantities():
        if name == "hvp" and config.probe.source == "fresh":
            names.append("hessian")
            if not bool((data.mask("hvp").any(0) & ~data.mask("hessian")).any()):
                continue
        names.append(name)
    return (*dict.fromkeys(names), *(() if config.batch.draw == "by-weight" else ("weight",)))


def with_probe_transforms(packed: PackedDataset, config: TrainConfig) -> PackedDataset:
    """Add the matrices of weighted probes, if the run has such probes.

    Args:
        packed: structures and labels.
        config: settings of the run.

    Returns:
        The data with the matrices as a further label, or as they are.
    """
    weighting, labels, source = config.probe.weighting, packed.labels, packed.structures
    if weighting == "none" or labels.hessian is None:
        return packed
    atoms = np.split(np.arange(len(source.numbers)), np.cumsum(source.n_atoms)[:-1])
    numbers, positions = source.numbers.numpy(), source.positions.double().numpy()
    cells, pbc = source.cell.double().numpy(), source.pbc.tolist()
    structures = [Structure(numbers[a], positions[a], cell=cells[i], pbc=tuple(pbc[i])) for i, a in enumerate(atoms)]
    transforms = probe_transforms(
        structures, labels.hessian, labels.mask("hessian"), weighting, soft_below=config.probe.soft_below
    )
    return PackedDataset(source, labels.replace(probe_transform=transforms), packed.pairs, packed.cutoff)


class ShuffleBuffer:
    """Batches of a file that is larger than memory.

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
        self.labels = required_labels(data, config)
        self._epochs = EpochPlan(data, config)
        self._blocks = data.block_indices(data.memory_mib * 2**20 / (BUFFERS * BLOCKS_PER_BUFFER), self.labels)
        self._plans: dict[int, tuple[list[Indices], list[Indices]]] = {}
        self._buffer_of = np.zeros(len(data), dtype=np.int64)
        self._slot = np.zeros(len(data), dtype=np.int64)
        self._current_epoch = -1
        self._current: tuple[tuple[int, int], PackedDataset] | None = None
        self._next: tuple[tuple[int, int], Future[PackedDataset | None]] | None = None
        self._stop_reading = threading.Event()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hesse: next buffer of structures")

    def epoch(self, epoch: int) -> list[Indices]:
        """The batches of an epoch: those of the first buffer, then those of the second, ...

        Args:
            epoch: its number, from 0.

        Returns:
            Indices of the structures of each batch.
        """
        buffers, batches = self._plan(epoch)
        if epoch != self._current_epoch:
            self._current_epoch = epoch
            for number, buffer in enumerate(buffers):
                members = np.concatenate([self._blocks[k] for k in buffer])
                self._buffer_of[members], self._slot[members] = number, np.arange(len(members))
        return batches

    def _plan(self, epoch: int) -> tuple[list[Indices], list[Indices]]:
        """The blocks of each buffer, and all batches of an epoch."""
        if epoch not in self._plans:
            generator = self._epochs.generator(epoch)
            order = torch.randperm(len(self._blocks), generator=generator).numpy()
            buffers = [order[k : k + BLOCKS_PER_BUFFER] for k in range(0, len(order), BLOCKS_PER_BUFFER)]
            batches: list[Indices] = []
            for buffer in buffers:
                members = np.concatenate([self._blocks[k] for k in buffer])
                batches += self._epochs.batches(members, generator)
            self._plans = {key: plan for key, plan in self._plans.items() if abs(key - epoch) <= 1}
            self._plans[epoch] = buffers, batches
        return self._plans[epoch]

    def batch(self, indices: Indices) -> tuple[Batch, Properties]:
        """Tensors of one batch of the current epoch. Waits if its buffer is not read yet.

        Args:
            indices: structures of one batch, or some of them; at least one.

        Returns:
            The structures and their labels, with the dtype and on the device of the run.

        Raises:
            RequestError: the structures are of several buffers, and therefore not of one batch.
            FileFormatError: the file is damaged, or was changed or removed.
        """
        numbers = np.unique(self._buffer_of[indices])
        if len(numbers) != 1:
            raise RequestError(
                f"expected structures of one batch, got structures of {len(numbers)} buffers of a streamed data set: "
                "request one batch at a time"
            )
        return self._buffer(self._current_epoch, int(numbers[0])).batch(self._slot[indices])

    def _buffer(self, epoch: int, number: int) -> PackedDataset:
        key = epoch, number
        if self._current is None or self._current[0] != key:
            if self._next is None or self._next[0] != key:
                self._prefetch(key)
            assert self._next is not None
            self._current = None  # free its memory first
            loaded = self._next[1].result()
            assert loaded is not None
            self._next = None
            self._current = key, loaded.to(self.config.device, getattr(torch, self.config.dtype))
            last = number + 1 >= len(self._plan(epoch)[0])
            self._prefetch((epoch + 1, 0) if last else (epoch, number + 1))
        return self._current[1]

    def _prefetch(self, key: tuple[int, int]) -> None:
        """Start reading a buffer in the background, and give up another one that is being read."""
        self._stop_reading.set()
        self._stop_reading = stop = threading.Event()
        blocks = [self._blocks[k] for k in self._plan(key[0])[0][key[1]]]
        dtype = getattr(torch, self.config.dtype)

        def read_blocks() -> PackedDataset | None:
            parts = []
            for members in blocks:
                if stop.is_set():
                    return None
                part = self.data.packed(members, self.cutoff, self.labels, dtype=dtype)
                parts.append(with_probe_transforms(part, self.config))
            return PackedDataset.concatenate(parts)

        self._next = key, self._executor.submit(read_blocks)

    def close(self) -> None:
        """Free the tensors; stop the thread and wait for its end."""
        self._stop_reading.set()
        self._executor.shutdown(cancel_futures=True)
        self._next = self._current = None
