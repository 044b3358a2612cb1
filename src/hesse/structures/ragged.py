"""Index arithmetic for structures of different sizes laid end to end, without loops over structures."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["segment_offsets", "segment_ids", "segment_indices"]


def segment_offsets(lengths: Int[Tensor, "blocks"]) -> Int[Tensor, "blocks+1"]:
    """Where each block starts, and where the last one ends."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def segment_ids(lengths: Int[Tensor, "blocks"], total: int | None = None) -> Int[Tensor, "items"]:
    """For each item, the block it belongs to. `total`: the sum of `lengths`, where it is known: an accelerator need not
    be waited for then."""
    return torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths, output_size=total)


def segment_indices(
    starts: Int[Tensor, "blocks"], lengths: Int[Tensor, "blocks"], total: int | None = None
) -> Int[Tensor, "items"]:
    """The indices `starts[b] .. starts[b] + lengths[b]` of all blocks b, end to end. `total`: see `owners_of`."""
    before = lengths.cumsum(0) - lengths
    shift = torch.repeat_interleave(starts - before, lengths, output_size=total)
    return shift + torch.arange(len(shift), device=lengths.device)
