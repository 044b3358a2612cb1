"""Commands `hesse` and `python` for tests that start in milliseconds: a server that has imported everything forks for
each call. `python` runs a script this way (`python SCRIPT ...`); with options it is the interpreter itself.

What starts with the interpreter itself (signals during the imports, `python -m hesse`, exit codes of killed processes)
is tested with processes of its own. POSIX only.

    python forked_commands.py SOCKET        # the server
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import socket
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

_CLIENT = """#!{python} -IS
import array, json, os, socket, sys
if os.path.basename(sys.argv[0]) == "python" and (sys.argv[1:2] or ["-"])[0].startswith("-"):
    os.execv({python!r}, sys.argv)
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
call = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
server.sendmsg([len(call).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
server.sendall(call)
sys.exit(int(server.recv(16) or b"1"))
"""
_START_TIMEOUT = 120.0
_SIZE = 8
"""Bytes of the length that a call begins with."""


@contextlib.contextmanager
def forked_commands(folder: Path) -> Iterator[Path]:
    """Run the server.

    Args:
        folder: for the socket and the commands.

    Yields:
        The folder of the commands `hesse` and `python`, for the PATH.
    """
    address, places = str(folder / "socket"), folder / "bin"
    places.mkdir()
    for name in ("hesse", "python"):
        command = places / name
        command.write_text(_CLIENT.format(python=sys.executable, address=address), encoding="utf-8")
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
    with subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.DEVNULL) as server:
        try:
            end = time.monotonic() + _START_TIMEOUT
            while not os.path.exists(address):
                assert server.poll() is None, "the server of the command hesse could not start"
                assert time.monotonic() < end, "the server of the command hesse did not start"
                time.sleep(0.05)
            yield places
        finally:
            server.terminate()


def _serve(address: str) -> NoReturn:
    import matplotlib.pyplot  # noqa: F401
    import scipy.optimize
    import scipy.stats  # noqa: F401
    import torch._dynamo  # noqa: F401  (two seconds in the first step of an optimizer)

    import hesse.cli.app
    import hesse.evaluation
    import hesse.labelling
    import hesse.recipes
    import hesse.reports
    import hesse.studies
    import hesse.training  # noqa: F401

    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen()
    os.rename(address + ".new", address)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _run(connection)
        connection.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _run(connection: socket.socket) -> NoReturn:
    """Run one call in this process, tell its exit code, and end."""
    size, descriptors, _, _ = socket.recv_fds(connection, _SIZE, 3)
    call, left = b"", int.from_bytes(size, "big")
    while len(call) < left:
        call += connection.recv(left - len(call))
    sys.argv, folder, environment = json.loads(call)
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    code: object = 0
    try:
        if os.path.basename(sys.argv[0]) == "python":
            del sys.argv[0]
            sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            from hesse.cli.entry import main

            main()
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()  # os._exit does not
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    connection.sendall(str(code or 0).encode())
    os._exit(int(code or 0))  # type: ignore[call-overload]


if __name__ == "__main__":
    _serve(sys.argv[1])
