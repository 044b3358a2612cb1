"""The command line. Each verb lives in a module of its own and imports what it needs only when it runs, so that
`hesse --help` answers at once."""

from __future__ import annotations

import errno
import os
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import NoReturn

import typer

from hesse.errors import HesseError, InterruptedRunError, WriteError

app = typer.Typer(
    name="hesse",
    help="Train interatomic potentials with the right curvature: make labels, train, judge.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _register() -> None:
    """Import the modules of all verbs; importing one adds its verbs."""
    from hesse.cli import (  # noqa: F401
        bench_command,
        check_command,
        convert_command,
        demo_command,
        evaluate_command,
        label_command,
        reaction_commands,
        sample_command,
        train_command,
    )


def _run() -> None:
    try:
        app(standalone_mode=True)
    except SystemExit as end:
        if end.code == _TYPER_INTERRUPTED:
            raise KeyboardInterrupt from None
        sys.stdout.flush()  # a full disk behind standard output is met here, not at the end of the interpreter
        raise


_TYPER_INTERRUPTED = 130
"""Typer's own exit code after Ctrl-C, which it does not speak of."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main() -> None:
    """Entry point. Exit codes: 0 done; 1 the work failed; 2 the request was wrong."""
    try:
        _register()
        _run()
    except HesseError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(InterruptedRunError.exit_code)
    except BrokenPipeError:  # the reader of our output has seen enough
        _mute_stdout()
        sys.exit(WriteError.exit_code)
    except OSError as error:
        if error.errno not in _DISK_FULL:
            _report_bug()
        print(f"{WriteError.__name__}: {error.filename or 'standard output'}: {error.strerror}", file=sys.stderr)
        _mute_stdout()
        sys.exit(WriteError.exit_code)
    except Exception:
        _report_bug()


def _report_bug() -> NoReturn:
    traceback.print_exc()
    user_frame = _user_frame()
    if user_frame is None:
        print("This is a defect in Hesse, not in your input: please report it with the lines above.", file=sys.stderr)
    else:
        print(f"This happened in {user_frame}, which Hesse was asked to run: look there first.", file=sys.stderr)
    sys.exit(1)


def _user_frame() -> str | None:
    """Where the user's own code (a potential or engine that he wrote) stands in the traceback; None for nowhere."""
    install_paths = {key: Path(folder) for key, folder in sysconfig.get_paths().items()}
    installed = [
        Path(__file__).parents[1],
        *(install_paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")),
    ]
    for frame in reversed(traceback.extract_tb(sys.exc_info()[2])):
        file = Path(frame.filename)
        if file.is_file() and not any(file.is_relative_to(f) for f in installed):
            return f"{file}, line {frame.lineno}"
    return None


def _mute_stdout() -> None:
    """What is left for standard output has nowhere to go; the interpreter must not try again at its end."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
