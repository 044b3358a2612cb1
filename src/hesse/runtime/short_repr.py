"""Short text of results in a Python session: numbers and reasons, and of arrays the shapes only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

import numpy as np

__all__ = ["ShortRepr"]


class ShortRepr:
    """A dataclass of results whose text is a line instead of pages of numbers. It is declared with `repr=False`."""

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(cast(Any, self))}
        shown = [f"{name}={_short(value)}" for name, value in values.items() if value is not None]
        return f"{type(self).__name__}({', '.join(shown)})"


def _short(value: object) -> str:
    if isinstance(value, ShortRepr):
        return f"{type(value).__name__}(...)"
    if isinstance(value, Mapping):
        return f"{{{', '.join(map(str, value))}}}"
    if isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], ShortRepr | Mapping):
        return "(1 item)"
    if shape := getattr(value, "shape", None):
        return f"{'array' if isinstance(value, np.ndarray) else 'tensor'}{list(shape)}"
    if isinstance(value, tuple) and len(value) > 1:
        return f"({len(value)} items)"
    if isinstance(value, float):
        return f"{value:.8g}"
    return repr(value)
