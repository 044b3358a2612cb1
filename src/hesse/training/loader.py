"""Micro-batches of a training run, from memory or from a file that is larger than memory.

`TrainingLoader` chooses the structures of every step, their curvature terms and probes, and takes tensors and labels
from packed data. Everything follows from seed, epoch and step, before anything is read, so that a resumed run gets the
same batches as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from hesse.datasets import Dataset, DatasetLike, PackedDataset
from hesse.probes import ProbeSeed, make_probe
from hesse.structures import Batch, Properties
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
from hesse.training.epoch_plan import EpochPlan
from hesse.training.shuffle_buffer import ShuffleBuffer, required_labels, with_probe_transforms
from hesse.training.step import MicroBatch

__all__ = ["TrainingLoader"]

Indices = NDArray[np.int64]

SPLIT_ABOVE_ATOMS = {"cpu": 64, "other": 2048}
"""Structures without curvature terms are evaluated separately if they have at least this number of atoms in total;
otherwise they are evaluated with the others, and masked. A second graph costs about 10 ms on one CPU thread, as much as
the curvature of 50 (hipnn, hessenet) to 150 (ani) atoms. On a GPU it costs as many kernel launches as a small batch;
that number is an estimate."""


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
        self._plan = EpochPlan(data, config)
        self._epoch: tuple[int, list[Indices]] | None = None
        self._copy_batches = False
        self._source: PackedDataset | ShuffleBuffer
        if isinstance(data, Dataset):
            geometry = data.packed(cutoff)
            packed = PackedDataset(
                geometry.structures, data.labels.pick(required_labels(data, config)), geometry.pairs, cutoff
            )
            packed = with_probe_transforms(packed, config)
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
                batches = self._plan.batches(np.arange(len(self._sizes)), self._plan.generator(epoch))
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


def _fits_on_device(device: torch.device, size: int) -> bool:
    """True if `size` bytes are less than a quarter of the free memory, or the device is not a GPU."""
    return device.type != "cuda" or size < torch.cuda.mem_get_info(device)[0] / 4
