"""The command line. Each verb lives in a module of its own and imports what it needs only when it runs, so that
`hesse --help` answers at once."""

from __future__ import annotations

import sys
import traceback

import typer

from hesse.errors import HesseError, InterruptedRunError

app = typer.Typer(
    name="hesse",
    help="Train interatomic potentials with the right curvature: make labels, train, judge.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _register() -> None:
    from hesse.cli import data, demo, evaluate, labels, train  # noqa: F401  (importing a module adds its verbs)


def main() -> None:
    """Entry point. Exit codes: 0 done; 1 the work failed; 2 the request was wrong."""
    _register()
    try:
        app(standalone_mode=True)
    except HesseError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(InterruptedRunError.exit_code)
    except Exception:
        traceback.print_exc()
        print("This is a defect in Hesse, not in your input: please report it with the lines above.", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
