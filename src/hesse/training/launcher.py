"""`hesse train --devices N`: start N processes on this machine, and end them all when one fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from hesse.errors import ConfigError, InterruptedRunError, ProcessLostError
from hesse.training.config import RunConfig
from hesse.training.distributed import FAILURE_KEY, LAUNCHER

__all__ = ["launch"]

_POLL = 0.1
"""Seconds between looks at the processes."""
_GRACE_PERIOD, _GRACE_PERIOD_KILLED = 5.0, 1.0
"""Seconds after the end of the first in which the others may end by themselves: they may have met the same error; but
what killed it, they cannot know."""
_LAUNCHER_REPORTS = "launcher"


def launch(arguments: Sequence[str], count: int, config: RunConfig) -> int:
    """Run `python -m hesse ARGUMENTS` in `count` processes that train one model, as torchrun would.

    SIGINT and SIGTERM are passed on to all of them.

    Args:
        arguments: of the command line, without `--devices`.
        count: how many processes.
        config: the run that they do.

    Returns:
        The exit code: 0, or that of the first process that failed, which has told why.

    Raises:
        ConfigError: more processes than accelerators, or one accelerator named for all.
        LostProcessError: a process was killed, or ended without a word.
        InterruptedRunError: SIGINT or SIGTERM came before there was a state to save.
    """
    _check_devices(config.device, count)
    base = dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    store = dist.PrefixStore("hesse/0", base)
    children: list[subprocess.Popen[bytes]] = []
    with _forward_signals(children) as caught:
        try:
            for rank in range(count):
                children.append(_start(arguments, rank, count, base.port, config.cpu_threads))
            failed = _wait(children, store)
        finally:
            for child in children:
                if child.poll() is None:
                    child.kill()
                child.wait()
    if failed is None:
        return 0
    reporter = store.get(FAILURE_KEY).decode() if store.check([FAILURE_KEY]) else _LAUNCHER_REPORTS
    if reporter != _LAUNCHER_REPORTS:
        return max(1, children[int(reporter.removeprefix("process "))].returncode)
    if caught:
        raise InterruptedRunError(
            f"stopped by {caught[0].name} before the first step. {_checkpoint_hint(config.output)}"
        )
    raise ProcessLostError(
        f"process {failed} of {count} {_exit_cause(children[failed])}. {_checkpoint_hint(config.output)}"
    )


def _wait(children: Sequence[subprocess.Popen[bytes]], store: dist.Store) -> int | None:
    """Wait for all processes, or for what comes of the first that fails; its rank, None where all did their work."""
    failed: int | None = None
    deadline = float("inf")
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        if failed is None:
            failed = next((rank for rank, child in enumerate(children) if child.poll()), None)
            if failed is not None:
                # Those who merely notice that it is gone keep silent: here it is known why.
                store.compare_set(FAILURE_KEY, "", _LAUNCHER_REPORTS)
                killed = children[failed].returncode < 0
                deadline = time.monotonic() + (_GRACE_PERIOD_KILLED if killed else _GRACE_PERIOD)
        time.sleep(_POLL)
    return failed if failed is not None else next((rank for rank, c in enumerate(children) if c.poll()), None)


def _start(arguments: Sequence[str], rank: int, count: int, port: int, threads: int | None) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        LAUNCHER: str(os.getpid()),
    }
    if threads is None:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, _n_cores() // count)))
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if loopback is not None:  # whatever the machine's name resolves to
        environment.setdefault("GLOO_SOCKET_IFNAME", loopback)
    return subprocess.Popen(
        [sys.executable, "-m", "hesse", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=None if rank == 0 else subprocess.DEVNULL,
        process_group=0,  # a Ctrl-C in the terminal reaches the launcher, which passes it on once
    )


@contextmanager
def _forward_signals(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[signal.Signals]]:
    """Pass SIGINT and SIGTERM on to the processes; yields those that came."""
    caught: list[signal.Signals] = []

    def forward(number: int, _: object) -> None:
        caught.append(signal.Signals(number))
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    previous_handlers = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)


def _check_devices(device: str, count: int) -> None:
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return
    if index:
        raise ConfigError(f'device "{device}": {count} processes cannot share it. Use "{kind}": one each.')
    try:
        n_devices = torch.get_device_module(kind).device_count()
    except (RuntimeError, AttributeError) as error:
        raise ConfigError(f'device "{device}" cannot be used here. Use "cpu", or another one.') from error
    if n_devices < count:
        raise ConfigError(f'device "{device}": there are {n_devices} on this machine, and --devices asks for {count}')


def _n_cores() -> int:
    """Those this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _exit_cause(child: subprocess.Popen[bytes]) -> str:
    code = child.returncode
    if code < 0:
        return f"(pid {child.pid}) was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"(pid {child.pid}) ended with exit code {code}"


def _checkpoint_hint(output: Path) -> str:
    checkpoint = output / "checkpoint.safetensors"
    if checkpoint.exists():
        return f"The last saved state is in {checkpoint}; the same command continues the run."
    return "No state was saved yet."
