"""Short text of results in a Python session: numbers and reasons, and of arrays the shapes only."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, cast

import numpy as np

__all__ = ["ShortRepr"]


class ShortRepr:
    """A dataclass of results whose text is a line instead of pages of numbers. It is declared with `repr=False`."""

    def __repr__(self) -> str:
        names = [field.name for field in fields(cast(Any, self))]
        return f"{type(self).__name__}({', '.join(f'{name}={_short(getattr(self, name))}' for name in names)})"


def _short(value: object) -> str:
    if isinstance(value, np.ndarray) and value.ndim:
        return f"array{list(value.shape)}"
    if isinstance(value, tuple) and len(value) > 1:
        return f"({len(value)} items)"
    if isinstance(value, float):
        return f"{value:.8g}"
    return repr(value)
