"""The command line called in this process, which takes milliseconds where a process of its own takes seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hesse.cli import app as command_line

__all__ = ["Run", "exit_code", "hesse", "invoke", "succeed"]

Run = Callable[..., tuple[int, str, str]]
"""The fixture `run` of tests/cli: exit code, standard output and standard error of the program as a whole."""


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the program as a whole, with its replies to errors on standard error.

    Args:
        monkeypatch: sets the arguments of the program.
        *arguments: the words after `hesse`.

    Returns:
        The exit code.
    """
    monkeypatch.setattr("sys.argv", ["hesse", *(str(a) for a in arguments)])
    with pytest.raises(SystemExit) as stop:
        command_line.main()
    return int(stop.value.code or 0)


def invoke(*arguments: object, folder: Path = Path()) -> Result:
    """Run a verb in a folder, without the replies to errors.

    Args:
        *arguments: the words after `hesse`.
        folder: the working folder.

    Returns:
        Exit code, output, and the error that ended it.
    """
    with contextlib.chdir(folder):
        return CliRunner().invoke(command_line.app, [str(a) for a in arguments])


def hesse(*arguments: object, folder: Path = Path()) -> Result:
    """Run a verb in a folder, and raise the error that ends it.

    Args:
        *arguments: see `invoke`.
        folder: see `invoke`.

    Returns:
        Exit code and output.
    """
    result = invoke(*arguments, folder=folder)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def succeed(*arguments: object, folder: Path = Path()) -> Result:
    """Run a verb whose exit code must be 0.

    Args:
        *arguments: see `hesse`.
        folder: see `hesse`.

    Returns:
        Exit code and output.
    """
    result = hesse(*arguments, folder=folder)
    assert result.exit_code == 0, result.output
    return result
