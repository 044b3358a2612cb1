"""Progress of long computations: a bar on a terminal, plain lines elsewhere, nothing if quiet.

Both show the number of finished steps, the rate, the estimated remaining time and a note of the caller (such as the
number of failures).
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from hesse.runtime.terminal import plain_markup, rich_stream

__all__ = ["AdvanceCallback", "format_duration", "track"]

AdvanceCallback = Callable[..., None]
"""`advance(steps=1, note="")`: `steps` more are finished; `note` is shown next to the bar."""

PLAIN_INTERVAL = 10.0
"""Seconds between plain lines when the output is not a terminal."""
RATE_WINDOW = 120.0
"""Seconds over which the rate is averaged: long enough for steps of unequal duration, short enough to follow
changes."""


@contextmanager
def track(title: str, total: int, *, quiet: bool = False, done: int = 0) -> Iterator[AdvanceCallback]:
    """Show progress on standard error (standard output is for results).

    Args:
        title: text in front of the bar.
        total: number of steps.
        quiet: show nothing.
        done: steps finished before, by an earlier run.

    Yields:
        The function to call after each finished step, see `AdvanceCallback`.
    """
    if quiet:
        yield lambda steps=1, note="": None
        return
    console = Console(file=rich_stream(stderr=True))
    speed = _RateEstimator(total, done)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(plain_markup(title), total=total, completed=done, note="", speed="")

            def advance(steps: int = 1, note: str = "") -> None:
                speed.update(steps)
                bar.update(task, advance=steps, speed=speed.format())
                if note:
                    bar.update(task, note=plain_markup(note))

            yield advance
        return

    last_time, last_note = speed.start, ""

    def report(steps: int = 1, note: str = "") -> None:
        nonlocal last_time, last_note
        speed.update(steps)
        now = time.monotonic()
        # A new note without a finished step (a cluster has no workers) is printed immediately.
        if now - last_time >= PLAIN_INTERVAL or (steps and speed.count >= total) or (not steps and note != last_note):
            last_time, last_note = now, note
            texts = [f"{title}: {speed.count}/{total}, {format_duration(now - speed.start)}", speed.format(), note]
            print(", ".join(text for text in texts if text), file=sys.stderr)
            sys.stderr.flush()

    yield report


class _RateEstimator:
    """Steps per second over the recent past."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.count = total, done
        self.start = time.monotonic()
        self.samples: deque[tuple[float, int]] = deque([(self.start, done)])

    def update(self, steps: int) -> None:
        self.count += steps
        now = time.monotonic()
        # A thousand samples in the window are enough, however short the steps.
        if now - self.samples[-1][0] >= RATE_WINDOW / 1000.0 or len(self.samples) == 1:
            self.samples.append((now, self.count))
        while len(self.samples) > 2 and now - self.samples[1][0] > RATE_WINDOW:
            self.samples.popleft()

    def format(self) -> str:
        """ "12 a second, 3 min left"; empty before the first step."""
        (start, before), now = self.samples[0], time.monotonic()
        if self.count == before or now <= start:
            return ""
        rate = (self.count - before) / (now - start)
        left = f", {format_duration((self.total - self.count) / rate)} left" if self.count < self.total else ""
        return f"{_format_rate(rate)}{left}"


def _format_rate(per_second: float) -> str:
    if per_second >= 1.0:
        return f"{per_second:.3g} a second"
    per_minute = 60.0 * per_second
    return f"{per_minute:.3g} a minute" if per_minute >= 1.0 else f"{60.0 * per_minute:.3g} an hour"


def format_duration(seconds: float) -> str:
    """Readable duration: "40 s", "12 min", "3.4 h", "5.1 days".

    Args:
        seconds: duration in seconds.

    Returns:
        The duration with a suitable unit.
    """
    if seconds < 0.01:
        return "0 s"
    if seconds < 10.0:
        return f"{seconds:.2g} s"
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    if seconds < 5400.0:
        return f"{seconds / 60.0:.0f} min"
    return f"{seconds / 3600.0:.1f} h" if seconds < 172800.0 else f"{seconds / 86400.0:.1f} days"
