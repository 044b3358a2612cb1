"""Base class of all adapters: a network of another framework as a `Potential`, saved in the format of its framework."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from torch import nn

from hesse.errors import RequestError
from hesse.potential import Potential

__all__ = ["Adapter", "check_not_path", "check_trusted"]


class Adapter(Potential):
    """A network of another framework as a potential.

    The user's own module is trained, not a copy: its parameters are those of the adapter. `save` writes it in the
    format of its framework, so that every program that runs such files (LAMMPS, ASE, servers) can run the result.

    Attributes:
        original: the user's module.
        suffix: suffix of the framework's model files, with the dot.
    """

    original: nn.Module
    suffix: ClassVar[str]

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write `original` in the format of its framework. An existing file is replaced only after success.

        Args:
            path: the file.

        Raises:
            WriteError: the file cannot be written.
        """


def check_not_path(model: object, class_name: str) -> None:
    """Raise RequestError if a path is passed where a loaded model is expected.

    Args:
        model: argument of the constructor of an adapter.
        class_name: name of the adapter.

    Raises:
        RequestError: `model` is a path.
    """
    if isinstance(model, str | Path):
        raise RequestError(
            f'{class_name} takes a loaded model, got the path "{model}": use {class_name}.from_file(path), or '
            "hesse.as_potential with the name of the framework in front of the path"
        )


def check_trusted(path: str | Path, trust_pickle: bool, framework: str) -> None:
    """Raise RequestError unless the user allows code in a pickle file to run; loading a pickle can run any code.

    Args:
        path: the file, named in the message.
        trust_pickle: True if the user trusts the author of the file.
        framework: name of the framework, for the message.

    Raises:
        RequestError: `trust_pickle` is False.
    """
    if not trust_pickle:
        raise RequestError(
            f"{path}: model files of {framework} are pickles, which run code of the file's author when they are "
            "loaded. If you trust the author, pass trust_pickle=True (on the command line ?trust=pickle after the "
            "file name)."
        )
