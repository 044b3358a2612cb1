"""Memory needed by derivatives, measured on the autograd graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["DEFAULT_MEMORY_MIB", "saved_tensor_bytes"]

DEFAULT_MEMORY_MIB = {"cpu": 64.0, "other": 2048.0}
"""Default memory limit of one chunk of Hessian columns, by device. On a CPU large chunks are slower (60 molecules: 0.8
s at 64 MiB, 2.7 s at 1 GiB), because their memory is returned to the operating system and requested again."""


@contextmanager
def saved_tensor_bytes() -> Iterator[list[int]]:
    """Context that counts the bytes of all tensors saved for the backward pass.

    This is the memory that one more direction needs in a vectorized pass.

    Yields:
        A list with the count as its only entry.
    """
    total = [0]
    seen: set[int] = set()

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        yield total
