"""Progress of long work: a bar with the time left on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Advance", "track"]

Advance = Callable[..., None]
"""`advance(steps=1, note="")`: so much more is done; `note` is shown beside the bar."""

PLAIN_INTERVAL = 10.0
"""Seconds between plain lines when the output is not a terminal."""


@contextmanager
def track(title: str, total: int, *, quiet: bool = False, done: int = 0) -> Iterator[Advance]:
    """Show the progress of `total` steps, `done` of which were done before; yields the function that advances it.

    Everything goes to standard error: standard output belongs to results.
    """
    if quiet:
        yield lambda steps=1, note="": None
        return
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(title, total=total, completed=done, note="")

            def advance(steps: int = 1, note: str = "") -> None:
                bar.advance(task, steps)
                if note:
                    bar.update(task, note=note)

            yield advance
        return

    start = last = time.monotonic()
    count = done

    def report(steps: int = 1, note: str = "") -> None:
        nonlocal count, last
        count += steps
        now = time.monotonic()
        if now - last >= PLAIN_INTERVAL or count >= total:
            last = now
            print(f"{title}: {count}/{total}, {now - start:.0f} s{'  ' + note if note else ''}", file=sys.stderr)
            sys.stderr.flush()

    yield report
