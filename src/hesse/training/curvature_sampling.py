"""Curvature terms for a random part of the structures of a step.

A curvature term is a mean over the n structures of the step with the label. With `curvature.fraction` f below one,
m = max(1, round(f n)) of them are drawn without replacement (all sets of m are equally probable), and the term is the
mean over these m. The mean of a simple random sample is an unbiased estimate of the mean over all, so that loss and
gradient have the same expected values for all f; their variance is `(1/m − 1/n)` times the variance of the n gradients
(Cochran, Sampling Techniques, 3rd ed. 1977, theorems 2.1 and 2.2). With `curvature.every_n_steps` = k, every k-th step
has these terms with k times their weight, so that their sum over the steps is the same at constant parameters. For an
optimizer that rescales its steps (Adam) or clips gradients this is not equivalent to the full term at every step.

Samples are functions of (seed, step, structure id). They are drawn from all structures of a step, also with several
processes: sampling in each process separately would give structures of small parts more weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hesse.datasets import DatasetLike
from hesse.probes.counter_rng import probe_states, random_bits
from hesse.structures import Properties, segment_ids
from hesse.training.config import TrainConfig

__all__ = ["CurvatureSampler", "SubBatch", "sample_probes", "sample_structures", "without_curvature"]

_STRUCTURE_STREAM, _PROBE_STREAM = 0x5374_7275, 0x5061_6972
"""Separate random streams for the two samples, independent of the random numbers of probes."""

SPLIT_ABOVE_ATOMS = {"cpu": 64, "other": 2048}
"""Structures without curvature terms are evaluated separately if they have at least this number of atoms in total;
otherwise they are evaluated with the others, and masked. A second graph costs about 10 ms on one CPU thread, as much as
the curvature of 50 (hipnn, hessenet) to 150 (ani) atoms. On a GPU it costs as many kernel launches as a small batch;
that number is an estimate."""


def sample_structures(
    keys: Int[Tensor, "structures"], labeled: Bool[Tensor, "structures"], fraction: float, *, seed: int, step: int
) -> Bool[Tensor, "structures"]:
    """Draw a random sample of the structures with a label: those with the smallest random numbers.

    The sample does not depend on the order of the structures.

    Args:
        keys: random keys of the structures (`Batch.rng_keys`).
        labeled: which structures have the label.
        fraction: fraction of these to draw; at least one is drawn.
        seed: seed of the run.
        step: number of the step, from 0.

    Returns:
        Mask of the sample.
    """
    count = int(labeled.sum())
    if count == 0 or fraction >= 1.0:
        return labeled
    random_numbers = _random_words(keys, seed ^ _STRUCTURE_STREAM, step, torch.zeros_like(keys))
    order = torch.where(labeled, random_numbers, torch.iinfo(torch.int64).max).argsort(stable=True)
    sampled = torch.zeros_like(labeled)
    sampled[order[: max(1, round(fraction * count))]] = True
    return sampled & labeled


def sample_probes(
    labels: Properties, keys: Int[Tensor, "structures"], count: int | None, *, seed: int, step: int
) -> Properties:
    """Draw some of every structure's (probe, product) pairs without replacement.

    Args:
        labels: labels of a batch.
        keys: random keys of its structures (`Batch.rng_keys`).
        count: maximum number of pairs of each structure; None: all.
        seed: seed of the run.
        step: number of the step, from 0.

    Returns:
        The labels with the sampled pairs only.
    """
    if count is None or labels.probes is None or labels.hvp is None or len(labels.probes) <= count:
        return labels
    mask = labels.mask("hvp")
    probe_index = torch.arange(len(mask), device=keys.device).expand(len(keys), -1)
    random_numbers = _random_words(keys, seed ^ _PROBE_STREAM, step, probe_index).T
    # Absent pairs are sorted last; the mask remains False for them if a structure has fewer than `count`.
    order = torch.where(mask, random_numbers, torch.iinfo(torch.int64).max).argsort(dim=0, stable=True)[:count]
    atom_order = order[:, segment_ids(labels.n_atoms)][..., None].expand(-1, -1, 3)
    return replace(
        labels,
        probes=labels.probes.gather(0, atom_order),
        hvp=labels.hvp.gather(0, atom_order),
        hvp_mask=mask.gather(0, order),
        hvp_error=None if labels.hvp_error is None else labels.hvp_error.gather(0, order),
    )


def without_curvature(labels: Properties) -> Properties:
    """Remove curvature labels.

    Args:
        labels: labels of a batch.

    Returns:
        The labels without Hessians and (probe, product) pairs.
    """
    return replace(
        labels, probes=None, hvp=None, hvp_mask=None, hvp_error=None,
        hessian=None, hessian_mask=None, hessian_error=None,
    )  # fmt: skip


@dataclass(frozen=True)
class SubBatch:
    """Structures of a step that are evaluated together.

    Attributes:
        indices: the structures.
        with_curvature: whether any of them has a curvature term.
        masks: by label ("hvp", "hessian"), the structures with this term; labels without a mask do not change.
    """

    indices: Sequence[int]
    with_curvature: bool
    masks: Mapping[str, Bool[Tensor, "structures"]]

    def mask_curvature(self, labels: Properties) -> Properties:
        """Mask the curvature labels of structures that were not sampled.

        Args:
            labels: labels of these structures.

        Returns:
            The labels with the sampled curvature only.
        """
        if not self.with_curvature:
            return without_curvature(labels)
        if "hvp" in self.masks and labels.hvp is not None:
            labels = replace(labels, hvp_mask=labels.mask("hvp") & self.masks["hvp"].to(labels.n_atoms.device))
        if "hessian" in self.masks and labels.hessian is not None:
            labels = _select_hessians(labels, self.masks["hessian"].to(labels.n_atoms.device))
        return labels


class CurvatureSampler:
    """Divides the structures of every step into those with and those without curvature terms.

    Args:
        keys: random keys of all structures of the data set (`Batch.rng_keys`).
        n_atoms: their numbers of atoms.
        labeled: by curvature label with a weight ("hvp", "hessian"), the structures with it (with a Hessian, for fresh
            probes).
        config: settings of the run.
    """

    def __init__(
        self,
        keys: Int[Tensor, "structures"],
        n_atoms: Int[Tensor, "structures"],
        labeled: Mapping[str, Bool[Tensor, "structures"]],
        config: TrainConfig,
    ) -> None:
        self.keys, self.n_atoms, self.labeled = keys, n_atoms, labeled
        self.split_above = SPLIT_ABOVE_ATOMS.get(torch.device(config.device).type, SPLIT_ABOVE_ATOMS["other"])
        self.options, self.seed = config.curvature, config.seed
        complete = all(bool(mask.all()) for mask in labeled.values())
        # Nothing to sample or to divide: no curvature terms, or all of them in every step.
        self.trivial = not labeled or (complete and self.options.fraction >= 1.0 and self.options.every_n_steps == 1)

    @classmethod
    def from_data(cls, data: DatasetLike, config: TrainConfig) -> CurvatureSampler:
        """The sampler for the curvature labels with a weight.

        Args:
            data: training data.
            config: settings of the run.

        Returns:
            The sampler.
        """
        labeled = {}
        if config.weights.hvp > 0:
            fresh = config.probe.source == "fresh"
            labeled["hvp"] = data.mask("hessian") if fresh else data.mask("hvp").any(0)
        if config.weights.hessian > 0:
            labeled["hessian"] = data.mask("hessian")
        return cls(data.rng_keys, data.n_atoms, labeled, config)

    def split(self, indices: Sequence[int], step: int, step_indices: Sequence[int] | None = None) -> list[SubBatch]:
        """Divide the structures of a step into one or two microbatches.

        Args:
            indices: structures that this process evaluates.
            step: number of the step, from 0.
            step_indices: all structures of the step, if `indices` are a part of them.

        Returns:
            One microbatch, or one with and one without curvature terms.
        """
        if self.trivial:
            return [SubBatch(indices, True, {})]
        if step % self.options.every_n_steps:
            return [SubBatch(indices, False, {})]
        masks = self._sampled(indices, step, indices if step_indices is None else step_indices)
        has_curvature = torch.stack(list(masks.values())).any(0)
        if not bool(has_curvature.any()):
            return [SubBatch(indices, False, {})]
        if self.options.fraction >= 1.0:
            masks = {}  # all structures with the label
        flat = [index for index, flag in zip(indices, has_curvature.tolist(), strict=True) if not flag]
        if not flat or int(self.n_atoms[flat].sum()) < self.split_above:
            return [SubBatch(indices, True, masks)]
        curved = [index for index, flag in zip(indices, has_curvature.tolist(), strict=True) if flag]
        return [
            SubBatch(curved, True, {name: mask[has_curvature] for name, mask in masks.items()}),
            SubBatch(flat, False, {}),
        ]

    def _sampled(
        self, indices: Sequence[int], step: int, step_indices: Sequence[int]
    ) -> dict[str, Bool[Tensor, "structures"]]:
        """By label, which of `indices` have its term."""
        members = torch.as_tensor(step_indices, dtype=torch.int64)
        position = {index: k for k, index in enumerate(step_indices)}
        local_positions = [position[index] for index in indices]
        keys, fraction = self.keys[members], self.options.fraction
        return {
            name: sample_structures(keys, mask[members], fraction, seed=self.seed, step=step)[local_positions]
            for name, mask in self.labeled.items()
        }


def _random_words(keys: Tensor, seed: int, step: int, counters: Int[Tensor, "structures *rest"]) -> Tensor:
    """One random 63-bit number for each counter of each structure."""
    states = probe_states(keys, seed=seed, epoch=step, n_probes=1)
    return random_bits(states, counters)[0]


def _select_hessians(labels: Properties, selected: Bool[Tensor, "structures"]) -> Properties:
    """Labels with the Hessians of the selected structures only."""
    assert labels.hessian is not None
    element_mask = torch.repeat_interleave(selected, labels.hessian_lengths())
    return replace(labels, hessian=labels.hessian[element_mask], hessian_mask=labels.mask("hessian") & selected)
