"""What a step is fed: which structures meet in which batch of which epoch, and their tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hesse.datasets import DatasetLike
from hesse.probes import ProbeSeed, make_probe
from hesse.structures import Batch, Properties
from hesse.training.config import TrainConfig
from hesse.training.parts import CurvatureSampler, sample_probes
from hesse.training.step import MicroBatch
from hesse.training.supply import make_source

__all__ = ["TrainingLoader"]


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
