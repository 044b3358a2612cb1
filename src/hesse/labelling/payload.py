"""Labels of one structure as bytes and back: safetensors, which holds numbers and nothing that runs."""

from __future__ import annotations

from dataclasses import fields

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from hesse.errors import FileFormatError, LabelShapeError
from hesse.structures import Labels

__all__ = ["labels_from_bytes", "labels_to_bytes"]


def labels_to_bytes(labels: Labels) -> bytes:
    """All tensors of the record."""
    tensors = {f.name: getattr(labels, f.name) for f in fields(labels)}
    return save({name: value.contiguous() for name, value in tensors.items() if value is not None})


def labels_from_bytes(payload: bytes) -> Labels:
    """The record that `labels_to_bytes` stored. Raises FileFormatError when it is damaged."""
    try:
        tensors: dict[str, torch.Tensor] = load(payload)
        return Labels(**tensors)
    except (SafetensorError, TypeError, ValueError, LabelShapeError) as error:
        raise FileFormatError(f"damaged record of labels ({error})") from error
