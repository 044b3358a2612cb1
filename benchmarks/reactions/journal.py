"""A journal of finished tasks, one line of JSON each: a build that was stopped anywhere goes on where it was."""

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
    """Answers of all tasks by name: those in the journal at `path`, and those done now, which are added to it.

    Args:
        set_up, spec: as for `hesse.runtime.parallel.map_tasks`; answers must be what JSON can hold.
        tasks: names and tasks. A task that fails has the answer `{"failure": reason}`.
    """
    asked = dict(tasks)
    done = {name: answer for name, answer in _read(path).items() if name in asked}
    missing = [(name, task) for name, task in asked.items() if name not in done]
    total = len(asked)
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
    """The journal without its last line where that was cut."""
    if not path.exists():
        return {}
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if len(whole) < len(text):
        path.write_text(whole)
    answers = {}
    for line in whole.splitlines():
        answer = json.loads(line)
        answers[answer.pop("name")] = answer
    return answers
