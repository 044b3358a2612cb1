"""Processes for tests that send them signals: each is forked from a process that has imported everything, so that it
starts in milliseconds. They have process numbers and exit codes of their own, and nothing of the state of the test but
its environment. POSIX only.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["ForkedProcess"]

_CONTEXT = multiprocessing.get_context("forkserver")
# The first step of an optimizer imports torch._dynamo.
_CONTEXT.set_forkserver_preload(["torch._dynamo", "hesse.training", "hesse.labelling", "hesse.engines"])


class ForkedProcess:
    """A function in a process of its own, with the methods of `subprocess.Popen`.

    Args:
        function: a function of a module that the process can import; an exit code is given by `sys.exit`.
        *arguments: its arguments.
        folder: for the files of its standard output and error.
    """

    def __init__(self, function: Callable[..., None], *arguments: Any, folder: Path) -> None:
        self._files = folder / "output", folder / "errors"
        for file in self._files:
            file.write_bytes(b"")
        call = (self._files, dict(os.environ), function, arguments)
        self._process = _CONTEXT.Process(target=_call, args=call)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Negative for a signal; None while the process runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end.

        Args:
            timeout: in seconds.

        Returns:
            The standard output and error.
        """
        self._process.join(timeout)
        assert self.poll() is not None, "the process did not end"
        output, errors = (file.read_text(encoding="utf-8") for file in self._files)
        return output, errors


def _call(files: tuple[Path, Path], environment: dict[str, str], function: Callable[..., None], arguments: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, file in zip((1, 2), files, strict=True):
        opened = os.open(file, os.O_WRONLY)
        os.dup2(opened, descriptor)
        os.close(opened)
    function(*arguments)
