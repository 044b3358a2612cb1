"""Functions of your own modules that create an engine or a potential: they are imported by name and called."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from hesse.errors import RequestError, did_you_mean

__all__ = ["import_and_call"]


def import_and_call(text: str, full_name: str) -> Any:
    """Import a function by its name and call it without arguments.

    Modules are also found in the working folder, after all installed ones, until the function has returned: nothing
    else that is imported later comes from there.

    Args:
        text: "package.module:factory".
        full_name: the complete name as the user wrote it, for messages.

    Returns:
        The object that the function returns.

    Raises:
        RequestError: the function cannot be imported, or importing or calling it raises an error.
    """
    module_name, _, factory_name = text.partition(":")
    if not factory_name:
        kind = full_name.partition(":")[0]
        raise RequestError(f'"{full_name}": expected {kind}:package.module:factory, for example {kind}:my_code:make')
    with _working_folder_searched():
        return _import_and_call(module_name, factory_name, full_name)


@contextlib.contextmanager
def _working_folder_searched() -> Iterator[None]:
    """Context in which modules are searched in the working folder too, if they are found nowhere else."""
    folder = os.getcwd()
    if folder in sys.path or "" in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the user's code may have changed the search path
            sys.path.remove(folder)


def _import_and_call(module_name: str, factory_name: str, full_name: str) -> Any:
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
