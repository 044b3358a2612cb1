"""Probes of the validation: the same for a structure at every validation of a run."""

from __future__ import annotations

import torch
from torch import Tensor

from hesse.probes import ProbeSeed, Rademacher
from hesse.structures import Batch, Properties, segment_ids

__all__ = ["with_validation_probes"]

_VALIDATION_STREAM = 0x5661_6C69
"""Random stream of the validation probes, independent of the fresh probes of training steps."""


def with_validation_probes(batch: Batch, labels: Properties, n_probes: int, *, seed: int) -> Properties:
    """Labels with the (probe, product) pairs of a validation, the same for a structure at every validation.

    A structure with a Hessian has Rademacher probes, functions of seed and structure id, times its Hessian. Other
    structures have their first stored pairs.

    Args:
        batch: structures.
        labels: their labels.
        n_probes: K, the number of probes of a structure with a Hessian, and the maximum number of stored pairs.
        seed: seed of the probes.

    Returns:
        The labels with these pairs, and without Hessians.
    """
    probes = products = mask = None
    if labels.hvp is not None and labels.probes is not None:
        stored = labels.mask("hvp")
        order = (~stored).to(torch.int8).argsort(dim=0, stable=True)[:n_probes]  # present pairs first
        atom_order = order[:, segment_ids(labels.n_atoms, labels.hvp.shape[1])][..., None].expand(-1, -1, 3)
        probes, products = labels.probes.gather(0, atom_order), labels.hvp.gather(0, atom_order)
        mask = stored.gather(0, order)
    has_hessian = labels.mask("hessian")
    if bool(has_hessian.any()):
        seeded = Rademacher(n_probes).draw(batch, ProbeSeed(seed ^ _VALIDATION_STREAM))
        seeded_products = labels.hessian_matvec(seeded)
        if probes is None or products is None or mask is None or bool(has_hessian.all()):
            probes, products, mask = seeded, seeded_products, has_hessian.expand(n_probes, -1)
        else:
            of_atom = has_hessian[batch.structure_index][:, None]
            probes = torch.where(of_atom, seeded, _padded(probes, n_probes))
            products = torch.where(of_atom, seeded_products, _padded(products, n_probes))
            mask = has_hessian | torch.cat([mask, mask.new_zeros(n_probes - len(mask), mask.shape[1])])
    return labels.replace(
        probes=probes, hvp=products, hvp_mask=mask, hvp_error=None,
        hessian=None, hessian_mask=None, hessian_error=None,
    )  # fmt: skip


def _padded(values: Tensor, n_probes: int) -> Tensor:
    return torch.cat([values, values.new_full((n_probes - len(values), *values.shape[1:]), torch.nan)])
