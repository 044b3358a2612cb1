"""Labels of one structure as bytes and back, a quantity at a time: safetensors, which holds numbers and nothing that
runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from hesse.errors import FileFormatError, LabelShapeError
from hesse.labelling.request import FORCES, HESSIAN, STRESS, hvp_quantities
from hesse.structures import Properties

__all__ = ["labels_from_bytes", "labels_to_bytes", "split_by_quantity"]


def split_by_quantity(labels: Properties, quantities: Sequence[str]) -> dict[str, Properties]:
    """The labels of one structure taken apart into the quantities `asked`, in whose order its products stand."""
    n_atoms = labels.n_atoms
    by_quantity = {
        FORCES: Properties(
            n_atoms=n_atoms,
            energy=labels.energy,
            forces=labels.forces,
            energy_error=labels.energy_error,
            forces_error=labels.forces_error,
        ),
        HESSIAN: Properties(n_atoms=n_atoms, hessian=labels.hessian, hessian_error=labels.hessian_error),
        STRESS: Properties(n_atoms=n_atoms, stress=labels.stress),
    }
    result = {name: part for name, part in by_quantity.items() if name in quantities}
    for k, quantity in enumerate(hvp_quantities(quantities)):
        row = slice(k, k + 1)
        assert labels.probes is not None
        assert labels.hvp is not None
        error = None if labels.hvp_error is None else labels.hvp_error[row]
        result[quantity] = Properties(n_atoms=n_atoms, probes=labels.probes[row], hvp=labels.hvp[row], hvp_error=error)
    return result


def labels_to_bytes(labels: Properties) -> bytes:
    """All tensors of the record."""
    tensors = {f.name: getattr(labels, f.name) for f in fields(labels)}
    return save({name: value.contiguous() for name, value in tensors.items() if value is not None})


def labels_from_bytes(payload: bytes) -> Properties:
    """The record that `labels_to_bytes` stored. Raises FileFormatError when it is damaged."""
    try:
        tensors: dict[str, torch.Tensor] = load(payload)
        return Properties(**tensors)
    except (SafetensorError, TypeError, ValueError, LabelShapeError) as error:
        raise FileFormatError(f"damaged record of labels ({error})") from error
