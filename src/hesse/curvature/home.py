"""Where a potential computes."""

from __future__ import annotations

import torch

from hesse.potential import Potential

__all__ = ["dtype_and_device"]


def dtype_and_device(potential: Potential) -> tuple[torch.dtype, torch.device]:
    """The floating-point type and the device of a potential's first parameter, or of its first buffer where it has
    none; float64 on the CPU for a potential without tensors."""
    tensors = (t for t in (*potential.parameters(), *potential.buffers()) if t.is_floating_point())
    first = next(tensors, torch.zeros(0, dtype=torch.float64))
    return first.dtype, first.device
