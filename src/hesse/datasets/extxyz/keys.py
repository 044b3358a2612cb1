"""The keys of the comment line that have a meaning of their own."""

from __future__ import annotations

from typing import Final

__all__ = ["ATTRIBUTE_KEYS", "ERROR_KEYS", "TEXT_KEYS"]

TEXT_KEYS: Final = ("structure_id", "tag", "group")
ATTRIBUTE_KEYS: Final = ("level", "engine", "step", "code_version")
"""Attributes of the data set with a key of their own; others are written as `hesse_NAME`."""
ERROR_KEYS: Final = ("energy_error", "forces_error", "hessian_error")
