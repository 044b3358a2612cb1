"""The package torchani, imported when it is needed."""

from __future__ import annotations

import warnings
from types import ModuleType

from hesse.optional import require

__all__ = ["torchani_module"]


def torchani_module(name: str) -> ModuleType:
    """A module of TorchANI. Raises MissingExtraError where the package is not installed."""
    with warnings.catch_warnings():
        # It tells that its CUDA extensions are not built; they lack second derivatives and are not used here.
        warnings.filterwarnings("ignore", message="The extensions")
        return require(name, extra="torchani", purpose="a TorchANI model")
