"""Import of packages that only some users need, with a reply instead of a traceback when one is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from hesse.errors import MissingExtraError

__all__ = ["import_optional"]


def import_optional(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import `module` and return it.

    Raises:
        MissingExtraError: the package is not installed; the message names the pip command for the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise MissingExtraError(
            f'{purpose} needs the package {package}, which is not installed: pip install "hesse[{extra}]" ({error})'
        ) from error
