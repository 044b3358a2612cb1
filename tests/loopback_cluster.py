"""A dask scheduler and worker as processes of their own, on the loopback interface."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

TESTS = Path(__file__).parent


def wait_for(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def state(pid: int) -> str:
    """R, S, T, Z, ... as the kernel tells it; Z too where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def alive(pid: int) -> bool:
    return state(pid) != "Z"


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


class Cluster:
    """One scheduler, and the workers that it was given."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.file, self.log = folder / "scheduler.json", folder / "cluster.log"
        self.environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", **settings}
        self.processes: list[subprocess.Popen[bytes]] = []
        self.start_scheduler()

    def start_scheduler(self) -> None:
        self.file.unlink(missing_ok=True)
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0")

        def listens() -> bool:
            with contextlib.suppress(OSError, ValueError):
                self.address = json.loads(self.file.read_text())["address"]
                return True
            return False

        wait_for(listens)

    def start_worker(self, threads: int = 2, **settings: str) -> subprocess.Popen[bytes]:
        return self._start(
            "worker", "--host", "127.0.0.1", "--nworkers", "1", "--nthreads", str(threads), "--memory-limit", "0",
            settings=settings,
        )  # fmt: skip

    def _start(self, *arguments: str, settings: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *arguments, "--no-dashboard", "--scheduler-file", str(self.file)]
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                command, env={**self.environment, **(settings or {})}, stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:  # each leads a session of its own, with its nanny and workers
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def cluster(folder: Path, **settings: str) -> Iterator[Cluster]:
    made = Cluster(folder, **settings)
    try:
        yield made
    finally:
        made.end()
