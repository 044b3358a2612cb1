"""What every adapter is: somebody else's network, seen as a `Potential` and kept whole in its own form."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from torch import nn

from hesse.errors import RequestError
from hesse.potential import Potential

__all__ = ["Adapter", "check_trusted"]


class Adapter(Potential):
    """A network of another framework as a potential.

    The user's own module is trained in place of a copy: its parameters are those of the adapter, and `save` writes it
    as its framework writes it, so that whatever runs that framework's files (LAMMPS, ASE, servers) runs the result.

    Attributes:
        original: the user's module.
        suffix: of the framework's own model files, with the dot.
    """

    original: nn.Module
    suffix: ClassVar[str]

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write the original in its framework's own format. Raises WriteError; what stood there is unharmed."""


def check_trusted(path: str | Path, trust_pickle: bool, framework: str) -> None:
    """Raise RequestError unless the user said that a pickle file may run its code: loading one does."""
    if not trust_pickle:
        raise RequestError(
            f"{path}: model files of {framework} are pickles, which run code of the file's author when they are "
            "loaded. If you trust the author, say so: trust_pickle=True (on the command line ?trust=pickle behind the "
            "file's name)."
        )
