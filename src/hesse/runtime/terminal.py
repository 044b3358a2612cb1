"""Text of unknown origin on the terminal: control characters are shown, never obeyed.

Ids, tags, groups, levels and names of files come from files that somebody else may have written. Escape sequences in
them could move the cursor, rename the window or paint a false result.
"""

from __future__ import annotations

import io
import re
import sys
from typing import Final, TextIO

__all__ = ["plain_markup", "printable", "protect_output", "rich_stream"]

# Control characters except tab and line feed, and the characters that change the direction of text or break lines.
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Show control characters as escapes, such as \x1b.

    Args:
        text: any text.

    Returns:
        The text; tabs and line feeds are kept.
    """
    return _CONTROL.sub(lambda match: ascii(match.group())[1:-1], text)


def plain_markup(text: str) -> str:
    r"""Prepare text for rich, which takes `[bold]` for a style.

    Args:
        text: any text.

    Returns:
        The text as rich prints it literally, with control characters, tabs and line feeds shown as escapes.
    """
    from rich.markup import escape

    return escape(printable(text).replace("\n", "\\n").replace("\t", "\\t"))


class _ProtectedOutput(io.TextIOWrapper):
    """A text stream that shows control characters."""

    def write(self, text: str, /) -> int:
        super().write(printable(text))
        return len(text)


def protect_output() -> None:
    """Replace standard output and standard error of this process by streams that show control characters.

    Progress bars and tables on a terminal need control characters; they print to `rich_stream` texts that
    `plain_markup` prepared.
    """
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:  # not one that a test or a notebook put there
            stream.flush()
            buffer = open(stream.fileno(), "wb", closefd=False)  # noqa: SIM115 (as long as the process lives)
            errors, by_line = "backslashreplace", name == "stderr" or stream.isatty()
            setattr(sys, name, _ProtectedOutput(buffer, stream.encoding, errors, line_buffering=by_line))


def rich_stream(*, stderr: bool = False) -> TextIO:
    """The stream for a console of rich, which writes control characters of its own on a terminal.

    Args:
        stderr: standard error instead of standard output.

    Returns:
        The stream.
    """
    stream, original = (sys.stderr, sys.__stderr__) if stderr else (sys.stdout, sys.__stdout__)
    if not isinstance(stream, _ProtectedOutput) or not stream.isatty() or original is None:
        return stream
    stream.flush()
    return original
