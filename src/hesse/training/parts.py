"""Curvature on part of a step: which structures get their curvature terms, and a step in parts with and without.

A curvature term is a mean over the n structures of the step that hold the label. With `curvature.fraction` f below one,
m = max(1, round(f n)) of them are drawn without replacement, each set of m being as likely as any other, and the term
is the mean over these m. A mean of a simple random sample estimates the mean of the whole without bias, so loss and
gradient have their expected values from f = 1, whatever f is; their variance is `(1/m − 1/n)` times the variance of the
n gradients (Cochran, Sampling Techniques, 3rd ed. 1977, theorems 2.1 and 2.2). With `curvature.every` = k the terms are
there in every k-th step with k times the weight: their sum over the steps is the same at constant parameters. For an
optimiser that rescales its steps (Adam) or clips them it is not the same thing as the full term at every step.

Draws are functions of (seed, step, structure id). They must be made from all structures of a step, also where several
processes share them: a process that drew from its own share would give structures of small shares more weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hesse.datasets import TrainingData
from hesse.probes.random_bits import coordinate_bits, stream_states
from hesse.structures import Labels, owners_of
from hesse.training.config import TrainConfig

__all__ = ["CurvatureDraw", "Share", "drawn", "some_pairs", "without_curvature"]

_OF_STRUCTURES, _OF_PAIRS = 0x5374_7275, 0x5061_6972
"""Streams of their own, so that who is drawn has nothing to do with the probes that are drawn."""

APART_FROM = {"cpu": 64, "other": 2048}
"""Atoms of structures without curvature from which these are evaluated on their own; fewer go with the others, masked.
A second graph costs some 10 ms on one CPU thread, as much as the curvature of 50 (hipnn, equivariant) to 150 (ani)
atoms. On a GPU it costs as many launches as a whole small batch; the number there is an estimate."""


def drawn(
    keys: Int[Tensor, "structures"], holders: Bool[Tensor, "structures"], fraction: float, *, seed: int, step: int
) -> Bool[Tensor, "structures"]:
    """A random `fraction` of the holders, at least one: those with the smallest of random numbers of their own.

    A function of the set of structures, whatever their order.
    """
    count = int(holders.sum())
    if count == 0 or fraction >= 1.0:
        return holders
    words = _words(keys, seed ^ _OF_STRUCTURES, step, torch.zeros_like(keys))
    order = torch.where(holders, words, torch.iinfo(torch.int64).max).argsort(stable=True)
    chosen = torch.zeros_like(holders)
    chosen[order[: max(1, round(fraction * count))]] = True
    return chosen & holders


def some_pairs(labels: Labels, keys: Int[Tensor, "structures"], count: int | None, *, seed: int, step: int) -> Labels:
    """Labels with at most `count` of every structure's (probe, H v) pairs, drawn without replacement; None: all."""
    if count is None or labels.probes is None or labels.hvp is None or len(labels.probes) <= count:
        return labels
    mask = labels.mask("hvp")
    pair = torch.arange(len(mask), device=keys.device).expand(len(keys), -1)
    words = _words(keys, seed ^ _OF_PAIRS, step, pair).T
    # Pairs that are not there come last: where a structure has fewer than `count`, its mask tells so.
    order = torch.where(mask, words, torch.iinfo(torch.int64).max).argsort(dim=0, stable=True)[:count]
    of_atoms = order[:, owners_of(labels.n_atoms)][..., None].expand(-1, -1, 3)
    return replace(
        labels,
        probes=labels.probes.gather(0, of_atoms),
        hvp=labels.hvp.gather(0, of_atoms),
        hvp_mask=mask.gather(0, order),
        hvp_error=None if labels.hvp_error is None else labels.hvp_error.gather(0, order),
    )


def without_curvature(labels: Labels) -> Labels:
    """Energies, forces and the rest."""
    return replace(
        labels, probes=None, hvp=None, hvp_mask=None, hvp_error=None,
        hessian=None, hessian_mask=None, hessian_error=None,
    )  # fmt: skip


@dataclass(frozen=True)
class Share:
    """Structures of a step that are evaluated together.

    Attributes:
        indices: which.
        curved: whether any of them gets a curvature term.
        kept: by label ("hvp", "hessian") who gets its term; a label that is not named is kept as it is.
    """

    indices: Sequence[int]
    curved: bool
    kept: Mapping[str, Bool[Tensor, "structures"]]

    def masked(self, labels: Labels) -> Labels:
        """The labels of these structures with the curvature of those alone that were drawn."""
        if not self.curved:
            return without_curvature(labels)
        if "hvp" in self.kept and labels.hvp is not None:
            labels = replace(labels, hvp_mask=labels.mask("hvp") & self.kept["hvp"].to(labels.n_atoms.device))
        if "hessian" in self.kept and labels.hessian is not None:
            labels = _with_hessians_of(labels, self.kept["hessian"].to(labels.n_atoms.device))
        return labels


class CurvatureDraw:
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
        holders: Mapping[str, Bool[Tensor, "structures"]],
        config: TrainConfig,
    ) -> None:
        self.keys, self.n_atoms, self.holders = keys, n_atoms, holders
        self.apart_from = APART_FROM.get(torch.device(config.device).type, APART_FROM["other"])
        self.options, self.seed = config.curvature, config.seed
        complete = all(bool(mask.all()) for mask in holders.values())
        # E-F runs have no curvature to deal with; here and there, nothing needs to be drawn or parted.
        self.trivial = not holders or (complete and self.options.fraction >= 1.0 and self.options.every == 1)

    @classmethod
    def of(cls, data: TrainingData, config: TrainConfig) -> CurvatureDraw:
        """For the curvature labels of `data` that have a weight."""
        holders = {}
        if config.weights.hvp > 0:
            fresh = config.probe.source == "fresh"
            holders["hvp"] = data.mask("hessian") if fresh else data.mask("hvp").any(0)
        if config.weights.hessian > 0:
            holders["hessian"] = data.mask("hessian")
        return cls(data.keys, data.n_atoms, holders, config)

    def shares(self, indices: Sequence[int], step: int, whole: Sequence[int] | None = None) -> list[Share]:
        """`indices` in one or two shares.

        Args:
            indices: structures that this process evaluates.
            step: its number, from 0.
            whole: all structures of the step, where `indices` are a part of them.
        """
        if self.trivial:
            return [Share(indices, True, {})]
        if step % self.options.every:
            return [Share(indices, False, {})]
        chosen = self._chosen(indices, step, indices if whole is None else whole)
        curved = torch.stack(list(chosen.values())).any(0)
        if not bool(curved.any()):
            return [Share(indices, False, {})]
        if self.options.fraction >= 1.0:
            chosen = {}  # those who hold the label, as its mask says
        plain = [index for index, has in zip(indices, curved.tolist(), strict=True) if not has]
        if not plain or int(self.n_atoms[plain].sum()) < self.apart_from:
            return [Share(indices, True, chosen)]
        bent = [index for index, has in zip(indices, curved.tolist(), strict=True) if has]
        return [
            Share(bent, True, {name: mask[curved] for name, mask in chosen.items()}),
            Share(plain, False, {}),
        ]

    def _chosen(self, indices: Sequence[int], step: int, whole: Sequence[int]) -> dict[str, Bool[Tensor, "structures"]]:
        """By label, who of `indices` gets its term."""
        members = torch.as_tensor(whole, dtype=torch.int64)
        place = {index: k for k, index in enumerate(whole)}
        mine = [place[index] for index in indices]
        keys, fraction = self.keys[members], self.options.fraction
        return {
            name: drawn(keys, mask[members], fraction, seed=self.seed, step=step)[mine]
            for name, mask in self.holders.items()
        }


def _words(keys: Tensor, seed: int, step: int, counters: Int[Tensor, "structures *rest"]) -> Tensor:
    """A random number per counter of each structure."""
    states = stream_states(keys, seed=seed, epoch=step, n_probes=1)
    return coordinate_bits(states, counters)[0]


def _with_hessians_of(labels: Labels, kept: Bool[Tensor, "structures"]) -> Labels:
    """Labels without the Hessians of the others."""
    assert labels.hessian is not None
    inside = torch.repeat_interleave(kept, labels.hessian_lengths())
    return replace(labels, hessian=labels.hessian[inside], hessian_mask=labels.mask("hessian") & kept)
