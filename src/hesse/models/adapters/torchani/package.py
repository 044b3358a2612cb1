"""The package torchani, imported when it is needed."""

from __future__ import annotations

import warnings
from types import ModuleType

from hesse.optional import import_optional

__all__ = ["import_torchani"]


def import_torchani(name: str) -> ModuleType:
    """A module of TorchANI. Raises MissingExtraError where the package is not installed."""
    with warnings.catch_warnings():
        # It tells that its CUDA extensions are not built; they lack second derivatives and are not used here.
        warnings.filterwarnings("ignore", message="The extensions")
        return import_optional(name, extra="torchani", purpose="a TorchANI model")
