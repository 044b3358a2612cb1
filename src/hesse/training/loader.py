"""Micro-batches of a training run, from memory or from a file that is larger than memory.

`TrainingLoader` chooses the structures of every step, their curvature terms and probes, and takes tensors and labels
from packed data. Everything follows from seed, epoch and step, before anything is read, so that a resumed run gets the
same batches as an uninterrupted one.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

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
from hesse.harmonic.probe_weighting import probe_transforms
from hesse.probes import ProbeSeed, make_probe
from hesse.structures import Batch, Properties, Structure
from hesse.structures.hessian_blocks import multiply_blocks
from hesse.training.config import TrainConfig
from hesse.training.curvature_sampling import (
    fill_products,
    mask_curvature,
    sample_probes,
    sample_structures,
    without_curvature,
)
from hesse.training.distributed import Communicator
from hesse.training.schedules import derive_seed
from hesse.training.step import MicroBatch

__all__ = ["ShuffleBuffer", "TrainingLoader", "required_labels"]

Indices = NDArray[np.int64]

SPLIT_ABOVE_ATOMS = {"cpu": 64, "other": 2048}
"""Structures without curvature terms are evaluated separately if they have at least this number of atoms in total;
otherwise they are evaluated with the others, and masked. A second graph costs about 10 ms on one CPU thread, as much as
the curvature of 50 (hipnn, hessenet) to 150 (ani) atoms. On a GPU it costs as many kernel launches as a small batch;
that number is an estimate."""


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
    return (*dict.fromkeys(names), "weight")


class TrainingLoader:
    """Micro-batches (structures, labels) of the steps of a run: functions of (seed, epoch, step), independent of
    earlier calls, with the dtype and on the device of the run.

    Data in memory are packed once. If they need more than a quarter of the free memory of a GPU, they stay on the host,
    and batches are copied. Use as a context manager, or call `close`.

    Args:
        data: training data, in memory or streamed from a file.
        config: settings of the run.
        cutoff: cutoff of the potential, Å.
        communicator: the processes that share the structures of a step; None for a single process.
    """

    def __init__(
        self, data: DatasetLike, config: TrainConfig, cutoff: float, communicator: Communicator | None = None
    ) -> None:
        self.config = config
        self.communicator = communicator or Communicator()
        self._sizes: Indices = data.n_atoms.numpy()
        self._size_list: list[int] = data.n_atoms.tolist()
        self._keys = data.rng_keys
        self._labeled = _structures_with_curvature(data, config)
        complete = all(bool(mask.all()) for mask in self._labeled.values())
        options = config.curvature
        # Nothing to draw or to divide: no curvature terms, or all of them in every step.
        self._always_all = not self._labeled or (complete and options.fraction >= 1.0 and options.every_n_steps == 1)
        self._split_above = SPLIT_ABOVE_ATOMS.get(torch.device(config.device).type, SPLIT_ABOVE_ATOMS["other"])
        self._probe = make_probe(config.probe.kind, config.probe.n_probes)
        self._epoch: tuple[int, list[Indices]] | None = None
        self._copy_batches = False
        self._source: PackedDataset | ShuffleBuffer
        if isinstance(data, Dataset):
            geometry = data.packed(cutoff)
            packed = PackedDataset(
                geometry.structures, data.labels.pick(required_labels(data, config)), geometry.pairs, cutoff
            )
            packed = _with_probe_transforms(packed, config)
            self._copy_batches = not _fits_on_device(torch.device(config.device), packed.n_bytes())
            self._source = packed.to("cpu" if self._copy_batches else config.device, getattr(torch, config.dtype))
        else:
            self._source = ShuffleBuffer(data, config, cutoff)

    def epoch(self, epoch: int) -> list[Indices]:
        """The batches of an epoch: a shuffle that depends on seed and epoch only.

        Args:
            epoch: its number, from 0. Structures of this epoch can be loaded until the next call.

        Returns:
            Indices of the structures of each batch.
        """
        if self._epoch is None or self._epoch[0] != epoch:
            if isinstance(self._source, ShuffleBuffer):
                batches = self._source.epoch(epoch)
            else:
                generator = _epoch_generator(self.config, epoch)
                batches = _epoch_batches(self._sizes, np.arange(len(self._sizes)), generator, self.config)
            self._epoch = epoch, batches
        return self._epoch[1]

    def load(
        self, step_indices: Sequence[int] | Indices, step: int, *, only: Sequence[int] | Indices | None = None
    ) -> list[MicroBatch]:
        """Load structures with the labels of a step: all labels, or a sample of the curvature labels
        (`hesse.training.curvature_sampling`), and the probes of this step.

        Args:
            step_indices: all structures of the step, of one batch of the current epoch.
            step: number of the step, from 0.
            only: those of them to load; None for the part of this process.

        Returns:
            One microbatch, or one with and one without curvature terms; none if this process has no structure.
        """
        step_indices = np.asarray(step_indices, dtype=np.int64)
        indices = self._local(step_indices) if only is None else np.asarray(only, dtype=np.int64)
        if len(indices) == 0:
            return []
        if self._always_all:
            return [self._microbatch(indices, step, {})]
        masks = self._curvature_masks(indices, step, step_indices)
        with_curvature = torch.stack(list(masks.values())).any(0).numpy() if masks else np.zeros(len(indices), bool)
        if not with_curvature.any():
            return [self._microbatch(indices, step, None)]
        if self.config.curvature.fraction >= 1.0:
            masks = {}  # all structures with the label
        others = indices[~with_curvature]
        if int(self._sizes[others].sum()) < self._split_above:
            return [self._microbatch(indices, step, masks)]
        masks = {name: mask[torch.from_numpy(with_curvature)] for name, mask in masks.items()}
        return [self._microbatch(indices[with_curvature], step, masks), self._microbatch(others, step, None)]

    def close(self) -> None:
        """Free the tensors and stop background threads."""
        if isinstance(self._source, ShuffleBuffer):
            self._source.close()

    def __enter__(self) -> TrainingLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _local(self, step_indices: Indices) -> Indices:
        """The structures of a step that this process evaluates."""
        if self.communicator.size == 1:
            return step_indices
        return np.asarray(self.communicator.partition(step_indices.tolist(), self._size_list), dtype=np.int64)

    def _curvature_masks(
        self, indices: Indices, step: int, step_indices: Indices
    ) -> dict[str, Bool[Tensor, "structures"]]:
        """By curvature label, which of `indices` have its term in this step; empty if none has any."""
        options = self.config.curvature
        if step % options.every_n_steps:
            return {}
        if options.fraction >= 1.0:
            return {name: mask[torch.from_numpy(indices)] for name, mask in self._labeled.items()}
        # The sample is drawn from all structures of the step, also with several processes.
        members = torch.from_numpy(step_indices)
        position = {index: k for k, index in enumerate(step_indices.tolist())}
        local = [position[index] for index in indices.tolist()]
        keys, seed = self._keys[members], self.config.seed
        return {
            name: sample_structures(keys, mask[members], options.fraction, seed=seed, step=step)[local]
            for name, mask in self._labeled.items()
        }

    def _microbatch(
        self, indices: Indices, step: int, masks: Mapping[str, Bool[Tensor, "structures"]] | None
    ) -> MicroBatch:
        """Structures and labels. `masks` says which structures have which curvature term (all without a mask); None: no
        curvature terms."""
        batch, labels = self._source.batch(indices)
        if self._copy_batches:
            batch, labels = batch.to(self.config.device), labels.to(self.config.device)
        if masks is None:
            return batch, without_curvature(labels)
        labels = self._with_probes(batch, labels, step)
        for name, mask in masks.items():
            labels = mask_curvature(labels, name, mask)
        return batch, labels

    def _with_probes(self, batch: Batch, labels: Properties, step: int) -> Properties:
        """Labels with the (probe, product) pairs of this step: stored pairs, or fresh probes times stored Hessians."""
        config = self.config
        if "hvp" not in self._labeled:
            return labels
        fresh = config.probe.source == "fresh"
        count = config.probe.n_probes if fresh else config.curvature.probes
        stored = labels
        if count is not None and labels.hvp is not None:
            stored = sample_probes(labels, batch.rng_keys, count, seed=config.seed, step=step)
        if not fresh:
            return stored
        directions = self._probe.draw(batch, ProbeSeed(config.seed, step))
        if (transform := labels["probe_transform"]) is not None:
            directions = multiply_blocks(transform, labels.n_atoms, labels.hessian_mask, directions)
            labels = labels.replace(probe_transform=None)
        products = labels.hessian_matvec(directions)
        mask = labels.mask("hessian").expand(len(directions), -1)
        labels = labels.replace(probes=directions, hvp=products, hvp_mask=mask, hvp_error=None)
        return labels if stored.hvp is None else fill_products(labels, stored)


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
        self._sizes: Indices = data.n_atoms.numpy()
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
            generator = _epoch_generator(self.config, epoch)
            order = torch.randperm(len(self._blocks), generator=generator).numpy()
            buffers = [order[k : k + BLOCKS_PER_BUFFER] for k in range(0, len(order), BLOCKS_PER_BUFFER)]
            batches: list[Indices] = []
            for buffer in buffers:
                members = np.concatenate([self._blocks[k] for k in buffer])
                batches += _epoch_batches(self._sizes, members, generator, self.config)
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
                parts.append(_with_probe_transforms(part, self.config))
            return PackedDataset.concatenate(parts)

        self._next = key, self._executor.submit(read_blocks)

    def close(self) -> None:
        """Free the tensors; stop the thread and wait for its end."""
        self._stop_reading.set()
        self._executor.shutdown(cancel_futures=True)
        self._next = self._current = None


def _with_probe_transforms(packed: PackedDataset, config: TrainConfig) -> PackedDataset:
    """The data with the matrices of weighted probes, if the run has such probes."""
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


def _structures_with_curvature(data: DatasetLike, config: TrainConfig) -> dict[str, Bool[Tensor, "structures"]]:
    """By curvature label with a weight, the structures with it (for fresh probes, with products or a Hessian)."""
    labeled, quantities = {}, config.make_loss().quantities()
    if "hvp" in quantities:
        labeled["hvp"] = data.mask("hvp").any(0)
        if config.probe.source == "fresh":
            labeled["hvp"] = labeled["hvp"] | data.mask("hessian")
    if "hessian" in quantities:
        labeled["hessian"] = data.mask("hessian")
    return labeled


def _epoch_generator(config: TrainConfig, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(config.seed, epoch))


def _epoch_batches(sizes: Indices, members: Indices, generator: torch.Generator, config: TrainConfig) -> list[Indices]:
    limits = config.batch
    return shuffled_batches(
        sizes, members, generator,
        max_atoms=limits.atoms, max_structures=limits.structures, window=limits.size_window,
    )  # fmt: skip


def _fits_on_device(device: torch.device, size: int) -> bool:
    """True if `size` bytes are less than a quarter of the free memory, or the device is not a GPU."""
    return device.type != "cuda" or size < torch.cuda.mem_get_info(device)[0] / 4
