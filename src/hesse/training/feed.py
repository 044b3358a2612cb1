"""What a step is fed: which structures meet in which batch of which epoch, and their tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hesse.datasets import TrainingData
from hesse.probes import ProbeStream, make_probe
from hesse.structures import Batch, Labels
from hesse.training.config import TrainConfig
from hesse.training.parts import CurvatureDraw, some_pairs
from hesse.training.step import Part
from hesse.training.supply import supply_for

__all__ = ["Feed"]


class Feed:
    """Batches of a data set as a run needs them: a function of seed, epoch and step, whatever happened before.

    Args:
        data: the training structures, in memory or streamed from their file.
        config: the run.
        cutoff: Å, of the potential.
    """

    def __init__(self, data: TrainingData, config: TrainConfig, cutoff: float) -> None:
        self.config = config
        self.probe = make_probe(config.probe.kind, config.probe.per_structure)
        self.curvature = CurvatureDraw.of(data, config)
        self.supply = supply_for(data, config, cutoff)

    def epoch(self, epoch: int) -> Sequence[list[int]]:
        """The batches of an epoch, as indices of structures: a shuffle that depends on seed and epoch only."""
        return self.supply.epoch(epoch)

    def fetch(self, indices: Sequence[int], step: int, whole: Sequence[int] | None = None) -> list[Part]:
        """The structures `indices` with the labels of this step, in the run's type and on its device. `whole`: all
        structures of the step, where `indices` are a part of them; curvature terms are drawn among all."""
        parts = []
        for share in self.curvature.shares(indices, step, whole):
            batch, labels = self.supply.batch(share.indices)
            labels = self._with_probes(batch, labels, step) if share.curved else labels
            parts.append((batch, share.masked(labels)))
        return parts

    def close(self) -> None:
        """End what reads ahead in the background. Entered as a context, this is done at its end."""
        self.supply.close()

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _with_probes(self, batch: Batch, labels: Labels, step: int) -> Labels:
        """Labels whose HVP pairs are those of this step: the stored ones, or new ones through stored Hessians."""
        if self.config.weights.hvp <= 0:
            return labels
        if self.config.probe.source == "stored":
            return some_pairs(labels, batch.keys, self.config.curvature.pairs, seed=self.config.seed, step=step)
        directions = self.probe.draw(batch, ProbeStream(self.config.seed, step))
        products = labels.hessian_matvec(directions)
        mask = labels.mask("hessian").expand(len(directions), -1)
        return replace(labels, probes=directions, hvp=products, hvp_mask=mask, hvp_error=None)
