"""Several training runs in parallel: one `hesse train` process with one thread each."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hesse.errors import ExecutionError, InterruptedRunError
from hesse.runtime.filesystem import atomic_write_text, lock_file, open_without_links
from hesse.runtime.processes import hesse_command
from hesse.runtime.progress import track
from hesse.runtime.signals import StoppedError, stop_signals
from hesse.training import RunConfig, validate_config

__all__ = ["train_in_parallel"]

POLL_SECONDS = 0.5
"""Seconds between two readings of the training logs."""


def train_in_parallel(
    configs: Mapping[str, Mapping[str, Any]], folder: Path, *, quiet: bool = False
) -> dict[str, Path]:
    """Train several configurations in parallel. Interrupted runs continue; SIGINT and SIGTERM stop and save all runs.

    Args:
        configs: configurations by name, as in files for `hesse train` but without `output`.
        folder: parent of the output folders, which have the names of the configurations.
        quiet: show no progress.

    Returns:
        The output folder of each run by name.

    Raises:
        ExecutionError: a run failed; the message contains its last line on standard error.
        InterruptedRunError: interrupted by SIGINT or SIGTERM.
        RequestError: another process is training in this folder.
    """
    runs: dict[str, tuple[Path, subprocess.Popen[bytes], int]] = {}
    try:
        busy = f"another process is training in {folder}: wait for it, stop it, or use another folder"
        with lock_file(folder / ".lock", busy), stop_signals():
            for name, config in configs.items():
                run = folder / name
                run.mkdir(parents=True, exist_ok=True)
                run_config = validate_config(RunConfig, {**config, "output": str(run.resolve())}, source=name)
                atomic_write_text(run / "resolved.json", run_config.model_dump_json(indent=1) + "\n")
                file = folder / f"{name}.yaml"
                atomic_write_text(file, yaml.safe_dump(run_config.model_dump(mode="json"), sort_keys=False))
                runs[name] = (run, _start_process(file, run), run_config.steps)
            _wait(runs, quiet)
    except StoppedError:
        _stop(runs)
        raise InterruptedRunError("stopped while training; the same command continues all runs") from None
    except BaseException:
        _stop(runs)
        raise
    return {name: run for name, (run, _, _) in runs.items()}


def _start_process(file: Path, run: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = hesse_command(["train", str(file), "--quiet"])
    with open_without_links(run / "stderr.txt", "wb") as errors:
        # In its own session it does not receive Ctrl-C; the parent stops it instead.
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=errors, env=environment, start_new_session=True
        )


def _wait(runs: Mapping[str, tuple[Path, subprocess.Popen[bytes], int]], quiet: bool) -> None:
    total = sum(steps for _, _, steps in runs.values())
    done = 0
    with track(f"training {' and '.join(runs)}", total, quiet=quiet) as advance:
        while True:
            running = [process for _, process, _ in runs.values() if process.poll() is None]
            for name, (run, process, _) in runs.items():
                if process.returncode not in (None, 0):
                    raise ExecutionError(f"training {name} failed: {_stderr_tail(run / 'stderr.txt')}")
            steps = {name: _steps_done(run / "metrics.jsonl") for name, (run, _, _) in runs.items()}
            if sum(steps.values()) > done:
                advance(sum(steps.values()) - done, "  ".join(f"{name} {count}" for name, count in steps.items()))
                done = sum(steps.values())
            if not running:
                return
            time.sleep(POLL_SECONDS)


def _stop(runs: Mapping[str, tuple[Path, subprocess.Popen[bytes], int]]) -> None:
    for _, process, _ in runs.values():
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for _, process, _ in runs.values():
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _steps_done(path: Path) -> int:
    """The step in the last complete line of a training log, read from the end of the file."""
    try:
        with open(path, "rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - 4096))
            lines = handle.read().split(b"\n")[:-1]
    except OSError:
        return 0
    for line in reversed(lines):
        start = line.find(b'"step": ')
        if start >= 0 and line.endswith(b"}"):
            return int(line[start + 8 :].split(b",")[0].split(b"}")[0])
    return 0


def _stderr_tail(path: Path) -> str:
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no message on standard error"
