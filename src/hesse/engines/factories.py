"""Objects that the user's own modules make: `package.module:factory`."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from hesse.errors import RequestError, did_you_mean

__all__ = ["import_and_call"]


def import_and_call(text: str, full_name: str) -> Any:
    """What `factory()` of `package.module` returns; modules are also found in the current folder.

    Args:
        text: "package.module:factory".
        asked: what the user wrote, for messages.

    Raises:
        RequestError: it cannot be imported or called.
    """
    module_name, _, factory_name = text.partition(":")
    if not factory_name:
        kind = full_name.partition(":")[0]
        raise RequestError(f'"{full_name}": expected {kind}:package.module:factory, for example {kind}:my_code:make')
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise RequestError(f'"{full_name}": cannot import {module_name} ({error})') from error
    except Exception as error:  # the user's code
        raise RequestError(f'"{full_name}": importing {module_name} failed: {type(error).__name__}: {error}') from error
    factory: Any = getattr(module, factory_name, None)
    if not callable(factory):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        hint = did_you_mean(factory_name, names) if names else "It defines none."
        raise RequestError(f'"{full_name}": {module_name} has no function "{factory_name}". {hint}')
    try:
        return factory()
    except Exception as error:  # the user's code
        raise RequestError(f'"{full_name}": {factory_name}() failed: {type(error).__name__}: {error}') from error
