"""Curvature on part of a step: which structures get their curvature terms, and a step in parts with and without.

A curvature term is a mean over the n structures of the step that hold the label. With `curvature.fraction` f below one,
m = max(1, round(f n)) of them are drawn without replacement, each set of m being as likely as any other, and the term
is the mean over these m. A mean of a simple random sample estimates the mean of the whole without bias, so loss and
gradient have their expected values from f = 1, whatever f is; their variance is `(1/m − 1/n)` times the variance of the
n gradients (Cochran, Sampling Techniques, 3rd ed. 1977, theorems 2.1 and 2.2). With `curvature.every_n_steps` = k the terms are
there in every k-th step with k times the weight: their sum over the steps is the same at constant parameters. For an
optimizer that rescales its steps (Adam) or clips them it is not the same thing as the full term at every step.

Draws are functions of (seed, step, structure id). They must be made from all structures of a step, also where several
processes share them: a process that drew from its own share would give structures of small shares more weight.
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
"""Streams of their own, so that who is drawn has nothing to do with the probes that are drawn."""

SPLIT_ABOVE_ATOMS = {"cpu": 64, "other": 2048}
"""Atoms of structures without curvature from which these are evaluated on their own; fewer go with the others, masked.
A second graph costs some 10 ms on one CPU thread, as much as the curvature of 50 (hipnn, hessenet) to 150 (ani)
atoms. On a GPU it costs as many launches as a whole small batch; the number there is an estimate."""


def sample_structures(
    keys: Int[Tensor, "structures"], labeled: Bool[Tensor, "structures"], fraction: float, *, seed: int, step: int
) -> Bool[Tensor, "structures"]:
    """A random `fraction` of the holders, at least one: those with the smallest of random numbers of their own.

    A function of the set of structures, whatever their order.
    """
    count = int(labeled.sum())
    if count == 0 or fraction >= 1.0:
        return labeled
    random_numbers = _random_words(keys, seed ^ _STRUCTURE_STREAM, step, torch.zeros_like(keys))
    order = torch.where(labeled, random_numbers, torch.iinfo(torch.int64).max).argsort(stable=True)
    chosen = torch.zeros_like(labeled)
    chosen[order[: max(1, round(fraction * count))]] = True
    return chosen & labeled


def sample_probes(
    labels: Properties, keys: Int[Tensor, "structures"], count: int | None, *, seed: int, step: int
) -> Properties:
    """Labels with at most `count` of every structure's (probe, H v) pairs, drawn without replacement; None: all."""
    if count is None or labels.probes is None or labels.hvp is None or len(labels.probes) <= count:
        return labels
    mask = labels.mask("hvp")
    probe_index = torch.arange(len(mask), device=keys.device).expand(len(keys), -1)
    random_numbers = _random_words(keys, seed ^ _PROBE_STREAM, step, probe_index).T
    # Pairs that are not there come last: where a structure has fewer than `count`, its mask tells so.
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
    """Energies, forces and the rest."""
    return replace(
        labels, probes=None, hvp=None, hvp_mask=None, hvp_error=None,
        hessian=None, hessian_mask=None, hessian_error=None,
    )  # fmt: skip


@dataclass(frozen=True)
class SubBatch:
    """Structures of a step that are evaluated together.

    Attributes:
        indices: which.
        curved: whether any of them gets a curvature term.
        kept: by label ("hvp", "hessian") who gets its term; a label that is not named is kept as it is.
    """

    indices: Sequence[int]
    with_curvature: bool
    masks: Mapping[str, Bool[Tensor, "structures"]]

    def mask_curvature(self, labels: Properties) -> Properties:
        """The labels of these structures with the curvature of those alone that were drawn."""
        if not self.with_curvature:
            return without_curvature(labels)
        if "hvp" in self.masks and labels.hvp is not None:
            labels = replace(labels, hvp_mask=labels.mask("hvp") & self.masks["hvp"].to(labels.n_atoms.device))
        if "hessian" in self.masks and labels.hessian is not None:
            labels = _select_hessians(labels, self.masks["hessian"].to(labels.n_atoms.device))
        return labels


class CurvatureSampler:
    """Deals the structures of every step into those with and those without curvature terms.

    Args:
        keys: of all structures of the data set.
        n_atoms: their sizes.
        holders: by weighted curvature label ("hvp", "hessian"), who has it (for fresh probes: who has a Hessian).
        config: the run.
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
        # E-F runs have no curvature to deal with; here and there, nothing needs to be drawn or parted.
        self.trivial = not labeled or (complete and self.options.fraction >= 1.0 and self.options.every_n_steps == 1)

    @classmethod
    def from_data(cls, data: DatasetLike, config: TrainConfig) -> CurvatureSampler:
        """For the curvature labels of `data` that have a weight."""
        labeled = {}
        if config.weights.hvp > 0:
            fresh = config.probe.source == "fresh"
            labeled["hvp"] = data.mask("hessian") if fresh else data.mask("hvp").any(0)
        if config.weights.hessian > 0:
            labeled["hessian"] = data.mask("hessian")
        return cls(data.rng_keys, data.n_atoms, labeled, config)

    def split(self, indices: Sequence[int], step: int, step_indices: Sequence[int] | None = None) -> list[SubBatch]:
        """`indices` in one or two shares.

        Args:
            indices: structures that this process evaluates.
            step: its number, from 0.
            whole: all structures of the step, where `indices` are a part of them.
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
            masks = {}  # those who hold the label, as its mask says
        flat = [index for index, has in zip(indices, has_curvature.tolist(), strict=True) if not has]
        if not flat or int(self.n_atoms[flat].sum()) < self.split_above:
            return [SubBatch(indices, True, masks)]
        curved = [index for index, has in zip(indices, has_curvature.tolist(), strict=True) if has]
        return [
            SubBatch(curved, True, {name: mask[has_curvature] for name, mask in masks.items()}),
            SubBatch(flat, False, {}),
        ]

    def _sampled(
        self, indices: Sequence[int], step: int, step_indices: Sequence[int]
    ) -> dict[str, Bool[Tensor, "structures"]]:
        """By label, who of `indices` gets its term."""
        members = torch.as_tensor(step_indices, dtype=torch.int64)
        position = {index: k for k, index in enumerate(step_indices)}
        local_positions = [position[index] for index in indices]
        keys, fraction = self.keys[members], self.options.fraction
        return {
            name: sample_structures(keys, mask[members], fraction, seed=self.seed, step=step)[local_positions]
            for name, mask in self.labeled.items()
        }


def _random_words(keys: Tensor, seed: int, step: int, counters: Int[Tensor, "structures *rest"]) -> Tensor:
    """A random number per counter of each structure."""
    states = probe_states(keys, seed=seed, epoch=step, n_probes=1)
    return random_bits(states, counters)[0]


def _select_hessians(labels: Properties, selected: Bool[Tensor, "structures"]) -> Properties:
    """Labels without the Hessians of the others."""
    assert labels.hessian is not None
    element_mask = torch.repeat_interleave(selected, labels.hessian_lengths())
    return replace(labels, hessian=labels.hessian[element_mask], hessian_mask=labels.mask("hessian") & selected)
