"""Import of optional packages, with an installation hint if one is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from hesse.errors import MissingExtraError

__all__ = ["import_optional"]


def import_optional(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: dotted name of the module.
        extra: extra of the package hesse that installs it ("pyscf").
        purpose: feature that needs it, for the message.

    Returns:
        The module.

    Raises:
        MissingExtraError: the package is not installed; the message contains the pip command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise MissingExtraError(
            f'{purpose} needs the package {package}, which is not installed: pip install "hesse[{extra}]" ({error})'
        ) from error
