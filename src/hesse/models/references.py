"""Energies per element by least squares: the part of a total energy that composition alone explains."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hesse.errors import MissingLabelError
from hesse.structures import Labels, owners_of

__all__ = ["fit_references"]


def fit_references(
    numbers: Int[Tensor, "atoms"], labels: Labels, elements: tuple[int, ...]
) -> Float[Tensor, "elements"]:
    """Energies E0 (eV) that minimise `Σ (E − Σ_z n_z E0_z)²` over the labelled structures.

    Where compositions leave a combination of elements undetermined, the smallest solution is taken.

    Raises:
        MissingLabelError: no structure has an energy.
    """
    mask = labels.mask("energy")
    if labels.energy is None or not bool(mask.any()):
        raise MissingLabelError("element references need energies, and no structure has one")
    known = torch.tensor(elements, device=numbers.device)
    one_hot = (numbers[:, None] == known).to(torch.float64)
    composition = one_hot.new_zeros(len(labels), len(elements)).index_add(0, owners_of(labels.n_atoms), one_hot)
    solution = torch.linalg.lstsq(
        composition[mask].cpu(), labels.energy[mask].to(torch.float64).cpu()[:, None], driver="gelsd"
    ).solution
    return solution[:, 0].to(numbers.device)
