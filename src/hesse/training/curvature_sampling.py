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

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hesse.probes.counter_rng import probe_states, random_bits
from hesse.structures import Properties, segment_ids

__all__ = ["fill_products", "mask_curvature", "sample_probes", "sample_structures", "without_curvature"]

_STRUCTURE_STREAM, _PROBE_STREAM = 0x5374_7275, 0x5061_6972
"""Separate random streams for the two samples, independent of the random numbers of probes."""


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
    return labels.replace(
        probes=labels.probes.gather(0, atom_order),
        hvp=labels.hvp.gather(0, atom_order),
        hvp_mask=mask.gather(0, order),
        hvp_error=None if labels.hvp_error is None else labels.hvp_error.gather(0, order),
    )


def fill_products(labels: Properties, stored: Properties) -> Properties:
    """Use stored (probe, product) pairs for the structures that have none yet.

    Args:
        labels: labels of a batch with pairs of some structures, from fresh probes.
        stored: labels of the same structures with stored pairs, at most as many of each.

    Returns:
        The labels with the pairs of both.
    """
    probes, hvp, mask = labels.probes, labels.hvp, labels.mask("hvp")
    assert probes is not None
    assert hvp is not None
    assert stored.probes is not None
    assert stored.hvp is not None
    count = len(stored.probes)
    used = stored.mask("hvp") & ~mask.any(0)
    by_atom = used[:, segment_ids(labels.n_atoms)][..., None]
    return labels.replace(
        probes=torch.cat([torch.where(by_atom, stored.probes, probes[:count]), probes[count:]]),
        hvp=torch.cat([torch.where(by_atom, stored.hvp, hvp[:count]), hvp[count:]]),
        hvp_mask=torch.cat([mask[:count] | used, mask[count:]]),
    )


def without_curvature(labels: Properties) -> Properties:
    """Remove curvature labels.

    Args:
        labels: labels of a batch.

    Returns:
        The labels without Hessians and (probe, product) pairs.
    """
    names = ("probes", "hvp", "hvp_mask", "hvp_error", "hessian", "hessian_mask", "hessian_error", "probe_transform")
    return labels.replace(**dict.fromkeys(names))


def mask_curvature(labels: Properties, name: str, mask: Bool[Tensor, "structures"]) -> Properties:
    """Keep a curvature label of some structures only.

    Args:
        labels: labels of a batch.
        name: "hvp" or "hessian".
        mask: which structures keep the label, on any device.

    Returns:
        The labels; they do not change if they do not hold this one.
    """
    mask = mask.to(labels.n_atoms.device)
    if name == "hvp" and labels.hvp is not None:
        return labels.replace(hvp_mask=labels.mask("hvp") & mask)
    if name == "hessian" and labels.hessian is not None:
        elements = torch.repeat_interleave(mask, labels.hessian_lengths())
        hessian, hessian_mask = labels.hessian[elements], labels.mask("hessian") & mask
        return labels.replace(hessian=hessian, hessian_mask=hessian_mask, probe_transform=None)
    return labels


def _random_words(keys: Tensor, seed: int, step: int, counters: Int[Tensor, "structures *rest"]) -> Tensor:
    """One random 63-bit number for each counter of each structure."""
    states = probe_states(keys, seed=seed, epoch=step, n_probes=1)
    return random_bits(states, counters)[0]
