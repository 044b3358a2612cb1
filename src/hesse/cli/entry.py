"""Start of the command line. It imports little, so that SIGINT and SIGTERM are replies from the first moment on."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

__all__ = ["main"]

_EXIT_CODE = 1
"""That of `hesse.errors.InterruptedRunError`."""
_received: list[int] = []


class _InterruptionError(KeyboardInterrupt):
    """SIGINT or SIGTERM. A class of its own: where KeyboardInterrupt itself leaves code that was compiled from a text
    (as dataclasses do), Python ends the process by SIGINT whatever happens later."""


def main() -> None:
    """Entry point. Exit codes: 0 success; 1 the execution failed or was interrupted; 2 the request was wrong."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup and the like
            signal.signal(number, _interrupt)
    try:
        from hesse.cli.app import main as run

        run()
    except SystemExit as end:
        _leave_training(end.code)
        raise
    except BaseException:
        # An interrupted import can end in any error.
        if not _received:
            raise
        _report_interruption()


def _leave_training(code: str | int | None) -> None:
    """End a process that trained together with others at once: while Python takes itself down, threads of the
    connection are sometimes destroyed before they have ended, which aborts a process whose work is done."""
    module = sys.modules.get("hesse.training.rank_info")
    if module is None or module.LAUNCHER not in os.environ or not isinstance(code, int | None):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Stop where the program is, so that half-written files are removed."""
    _received.append(number)
    raise _InterruptionError


def was_interrupted() -> bool:
    """Whether SIGINT or SIGTERM has arrived.

    Returns:
        True if it has; an error that follows is then a consequence.
    """
    return bool(_received)


def _report_interruption() -> NoReturn:
    print("interrupted", file=sys.stderr)
    sys.exit(_EXIT_CODE)
