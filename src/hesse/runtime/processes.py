"""Python processes that Hesse starts: they import no module from the working folder.

`python -c` and `python -m` search the working folder first, before the standard library: a file `ast.py` or `yaml.py`
beside the data would be run. Processes of Hesse are started with `-P`, and with the search path of this process without
the working folder. A module of the user's own (`python:my_module:make`) is found there by its name only, see
`hesse.engines.factories`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["hesse_command", "python_command", "safe_search_path"]

# Nothing is imported before the search path is set: PYTHONPATH may hold the working folder too.
_SET_PATH = "import sys; sys.path[:] = sys.argv.pop(1).split(chr(10)); "


def safe_search_path(*folders: str | None) -> list[str]:
    """The search path of this process without the working folder.

    Args:
        *folders: further folders to leave out; None is ignored.

    Returns:
        The folders in which modules are searched. The working folder stays if PYTHONPATH names it by its full path or
        if Hesse itself is there; then it is the last one.
    """
    unsafe = {os.path.realpath(folder) for folder in (os.getcwd(), *folders) if folder is not None}
    named = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(folder)]
    own = str(Path(__file__).resolve().parents[2])
    result = [folder for folder in sys.path if folder and "\n" not in folder and os.path.realpath(folder) not in unsafe]
    present = set(map(os.path.realpath, result))
    selected = [folder for folder in (*named, own) if os.path.realpath(folder) not in present]
    return [*result, *dict.fromkeys(selected)]


def python_command(code: str, arguments: Sequence[str], *, folder: str | None = None) -> list[str]:
    """Command that runs code in a new Python process which searches modules as this one, but not in the working folder.

    Args:
        code: the code; its arguments are in `sys.argv`, from index 1.
        arguments: the arguments.
        folder: working folder of the new process, if it differs from that of this one.

    Returns:
        The words of the command.
    """
    return [sys.executable, "-P", "-c", _SET_PATH + code, "\n".join(safe_search_path(folder)), *arguments]


def hesse_command(arguments: Sequence[str]) -> list[str]:
    """Command that runs the command line of Hesse in a new process.

    Args:
        arguments: the words after `hesse`.

    Returns:
        The words of the command.
    """
    return python_command("sys.argv[0] = 'hesse'; from hesse.cli.entry import main; main()", arguments)
