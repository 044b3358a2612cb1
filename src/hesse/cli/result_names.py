"""The names of result files, for all verbs in one place: `--json keep.yaml` would replace a configuration by JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import typer
from typer.core import TyperCommand

__all__ = ["check_result_names", "result_options"]

_JSON: Final = ((".json",), (b"[", b"{"), "JSON")
_PAGE: Final = ((".html", ".htm"), (b"<!doctype html", b"<html"), "a page (HTML)")
_OF_ALL: Final = {"--json": _JSON, "--page": _PAGE}
_OF_ONE: Final = {"evaluate": dict.fromkeys(("--groups", "--structures", "--records"), _JSON)}
"""Names of results that mean inputs or numbers elsewhere, by the command."""
_MAX_START: Final = 1024


def result_options(command: str | None) -> dict[str, tuple[tuple[str, ...], tuple[bytes, ...], str]]:
    """The options of a command that name a result.

    Args:
        command: its name.

    Returns:
        By the option: the endings of the file, how its content may begin, and what it is.
    """
    return {**_OF_ALL, **_OF_ONE.get(command or "", {})}


def check_result_names(app: typer.Typer) -> None:
    """Let all commands check the names of their results before they start.

    A name must end as its content demands, and an existing file is replaced only if it looks like an earlier result.

    Args:
        app: the program with all of its commands; those of its groups are included.
    """
    for command in app.registered_commands:
        command.cls = _CheckedCommand
    for group in app.registered_groups:
        if group.typer_instance is not None:
            check_result_names(group.typer_instance)


class _CheckedCommand(TyperCommand):
    """A command that refuses names of results which do not fit."""

    def invoke(self, ctx: Any) -> Any:
        results = result_options(self.name)
        for parameter in self.params:
            value = ctx.params.get(parameter.name or "")
            for option in results.keys() & set(parameter.opts):
                if isinstance(value, Path):
                    _check(option, value, *results[option])
        return super().invoke(ctx)


def _check(option: str, path: Path, endings: tuple[str, ...], starts: tuple[bytes, ...], content: str) -> None:
    """Raise RequestError for a result that cannot have this name."""
    from hesse.errors import RequestError

    if path.suffix.lower() not in endings:
        raise RequestError(f"{path}: {option} writes {content}; choose a name that ends in {endings[0]}")
    if not path.is_file():
        return
    with open(path, "rb") as file:
        start = file.read(_MAX_START).lstrip().lower()
    if start and not start.startswith(starts):
        raise RequestError(
            f"{path}: {option} writes {content}, and this file has other content, which would be lost. Choose another "
            "name, or remove it"
        )
