"""The command line: all verbs of `hesse`, and the reporting of their errors.

The verb `X` is a function in `X_command.py`, which imports the rest of Hesse only when it runs, so that `hesse --help`
is quick.
"""

from __future__ import annotations

import errno
import os
import sys
import sysconfig
import traceback
import warnings
from pathlib import Path
from typing import Annotated, NoReturn, TextIO

import typer

from hesse.cli.anharmonic_command import anharmonic
from hesse.cli.bench_command import bench
from hesse.cli.check_command import check
from hesse.cli.coarse_commands import coarse
from hesse.cli.compare_command import compare
from hesse.cli.complete_command import complete
from hesse.cli.convert_command import convert
from hesse.cli.demo_command import demo
from hesse.cli.entry import was_interrupted
from hesse.cli.evaluate_command import evaluate
from hesse.cli.export_command import export
from hesse.cli.info_command import info
from hesse.cli.label_command import label
from hesse.cli.md_command import md
from hesse.cli.minimize_command import minimize, neb
from hesse.cli.phonons_command import phonons
from hesse.cli.reaction_commands import irc, saddle
from hesse.cli.reaction_search_command import reaction
from hesse.cli.recipe_command import recipe
from hesse.cli.result_names import check_result_names
from hesse.cli.sample_command import sample
from hesse.cli.study_command import study
from hesse.cli.tc_command import tc
from hesse.cli.thermo_command import thermo
from hesse.cli.train_command import train
from hesse.cli.vibrations_command import vibrations
from hesse.errors import (
    ChargeStateWarning,
    ExecutionError,
    ExtrapolationWarning,
    FileFormatError,
    HesseError,
    InterruptedRunError,
    NotReadWarning,
    WriteError,
    first_line,
)
from hesse.runtime.terminal import protect_output

app = typer.Typer(
    name="hesse",
    help="Train interatomic potentials with accurate curvature: make labels, train, evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(requested: bool) -> None:
    if requested:
        from hesse._version import __version__

        typer.echo(f"hesse {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options of `hesse` itself."""


app.add_typer(sample)
app.add_typer(bench)
app.add_typer(coarse)
app.command("demo")(demo)
app.command("label")(label)
app.command("train")(train)
app.command("evaluate")(evaluate)
app.command("recipe")(recipe)
app.command("study")(study)
app.command("compare")(compare)
app.command("check")(check)
app.command("minimize")(minimize)
app.command("neb")(neb)
app.command("saddle")(saddle)
app.command("irc")(irc)
app.command("reaction")(reaction)
app.command("md")(md)
app.command("complete")(complete)
app.command("vibrations")(vibrations)
app.command("thermo")(thermo)
app.command("anharmonic")(anharmonic)
app.command("tc")(tc)
app.command("phonons")(phonons)
app.command("convert")(convert)
app.command("info")(info)
app.command("export")(export)
check_result_names(app)

_TYPER_INTERRUPTED = 130
"""Exit code of Typer after Ctrl-C; it prints no message."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main() -> None:
    """Entry point. Exit codes: 0 success; 1 the execution failed; 2 the request was wrong."""
    protect_output()
    try:
        _run()
    except NotReadWarning as warning:  # --strict
        print(f"{FileFormatError.__name__}: {warning} (--strict)", file=sys.stderr)
        sys.exit(FileFormatError.exit_code)
    except HesseError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(InterruptedRunError.exit_code)
    except BrokenPipeError:  # the program that reads our output has ended
        _mute_stdout()
        sys.exit(WriteError.exit_code)
    except OSError as error:
        if error.errno not in _DISK_FULL:
            _report_bug()
        print(f"{WriteError.__name__}: {error.filename or _unnamed_file()}: {error.strerror}", file=sys.stderr)
        _mute_stdout()
        sys.exit(WriteError.exit_code)
    except Exception as error:
        if was_interrupted():  # an import that is interrupted may end in another error
            print("interrupted", file=sys.stderr)
            sys.exit(InterruptedRunError.exit_code)
        if _is_out_of_memory(error):
            print(
                f"MemoryError: not enough memory ({first_line(error)}). Use fewer or smaller structures at a time, or "
                "a machine with more memory.",
                file=sys.stderr,
            )
            sys.exit(ExecutionError.exit_code)
        _report_bug()


def _is_out_of_memory(error: Exception) -> bool:
    """True for the errors of Python, NumPy and PyTorch when memory is short."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def _unnamed_file() -> str:
    """The file written to at an error without a file name: standard output if it cannot be written now."""
    try:
        sys.stdout.flush()
    except OSError:
        return "standard output"
    return "a file"


def _run() -> None:
    warnings.showwarning = _print_warning
    try:
        app(standalone_mode=True)
    except SystemExit as end:
        if end.code == _TYPER_INTERRUPTED:
            raise KeyboardInterrupt from None
        sys.stdout.flush()  # reports a full disk behind standard output here, not at the end of the interpreter
        raise


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Warnings of Hesse as one line, others as Python prints them."""
    if issubclass(category, NotReadWarning | ExtrapolationWarning | ChargeStateWarning):
        print(message, file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), file=file or sys.stderr, end="")


def _report_bug() -> NoReturn:
    traceback.print_exc()
    user_frame = _user_frame()
    if user_frame is None:
        print("This is a defect in Hesse, not in your input: please report it with the lines above.", file=sys.stderr)
    else:
        print(f"The error occurred in {user_frame}, in code that Hesse called: look there first.", file=sys.stderr)
    sys.exit(1)


def _user_frame() -> str | None:
    """File and line of the user's own code (a potential or engine) in the traceback; None without any."""
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
    """Discard the rest of standard output, so that the interpreter does not try to write it again at its end."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
