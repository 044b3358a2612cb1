"""A journal of finished tasks, one line of JSON each, with which an interrupted build continues."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hesse.runtime.parallel import map_tasks
from hesse.runtime.progress import track

__all__ = ["finish"]


def finish(
    path: Path, title: str, set_up: Callable[[Any], Callable[[Any], dict[str, Any]]], spec: Any,
    tasks: Iterable[tuple[str, Any]], *, workers: int,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Results of all tasks by name: those in the journal at `path`, and new ones, which are added to it.

    Args:
        set_up, spec: as for `hesse.runtime.parallel.map_tasks`; results must be serializable to JSON.
        tasks: names and tasks. The result of a failed task is `{"failure": reason}`.
    """
    requested = dict(tasks)
    done = {name: result for name, result in _read(path).items() if name in requested}
    missing = [(name, task) for name, task in requested.items() if name not in done]
    total = len(requested)
    with path.open("a") as journal, track(title, total, quiet=False, done=len(done)) as advance:
        for outcome in map_tasks(set_up, spec, [task for _, task in missing], workers=workers, timeout=600.0):
            name = missing[outcome.index][0]
            done[name] = {"failure": outcome.error} if outcome.value is None else outcome.value
            done[name]["seconds"] = round(outcome.seconds, 3)
            journal.write(json.dumps({"name": name, **done[name]}) + "\n")
            journal.flush()
            advance(1)
        os.fsync(journal.fileno())
    return done


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The results in the journal; an incomplete last line is removed."""
    if not path.exists():
        return {}
    text = path.read_text()
    complete = text[: text.rfind("\n") + 1]
    if len(complete) < len(text):
        path.write_text(complete)
    results = {}
    for line in complete.splitlines():
        result = json.loads(line)
        results[result.pop("name")] = result
    return results
