"""Floating-point types, as PyTorch, NumPy and people write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from hesse.errors import RequestError

if TYPE_CHECKING:
    from typing import Any

__all__ = ["DTypeLike", "as_dtype"]

DTypeLike: TypeAlias = "torch.dtype | str | np.dtype[Any] | type[np.floating[Any]]"
"""A floating-point type: `torch.float64`, "float64", `np.float64` or `np.dtype("float64")`; float32 likewise."""

_KNOWN = {"float32": torch.float32, "float64": torch.float64}


def as_dtype(dtype: DTypeLike) -> torch.dtype:
    """Convert the name of a floating-point type, or a type of PyTorch or NumPy.

    Args:
        dtype: the type or its name.

    Returns:
        `torch.float32` or `torch.float64`.

    Raises:
        RequestError: anything else.
    """
    name: object = dtype
    if isinstance(dtype, torch.dtype):
        name = str(dtype).removeprefix("torch.")
    elif isinstance(dtype, np.dtype) or (isinstance(dtype, type) and issubclass(dtype, np.generic)):
        name = np.dtype(dtype).name
    if not isinstance(name, str) or name not in _KNOWN:
        raise RequestError(
            f'expected dtype "float32" or "float64" (or these of torch or numpy, such as torch.float64), got {dtype!r}'
        )
    return _KNOWN[name]
