"""`hesse train --devices N`: starts N processes on this machine, and stops all of them when one fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from hesse.errors import ConfigError, InterruptedRunError, ProcessLostError
from hesse.runtime.devices import n_cores
from hesse.runtime.processes import hesse_command
from hesse.runtime.signals import forwarded_signals
from hesse.training.config import RunConfig
from hesse.training.distributed import FAILURE_KEY
from hesse.training.rank_info import LAUNCHER

__all__ = ["launch"]

_POLL = 0.1
"""Seconds between checks of the processes."""
_GRACE_PERIOD, _GRACE_PERIOD_KILLED = 5.0, 1.0
"""Seconds the other processes get after the first one ends: 5 after an error (they may encounter the same one), 1 after
a signal."""
_LAUNCHER_REPORTS = "launcher"
"""Value of `FAILURE_KEY` if the launcher reports the failure."""


def launch(arguments: Sequence[str], count: int, config: RunConfig) -> int:
    """Run `hesse ARGUMENTS` in several processes that train one model, as torchrun would.

    SIGINT and SIGTERM are forwarded to all of them.

    Args:
        arguments: arguments of the command line, without `--devices`.
        count: number of processes.
        config: settings of the run.

    Returns:
        Exit code: 0, or that of the first process that failed and reported its error.

    Raises:
        ConfigError: more processes than accelerators, or one accelerator for several processes.
        ProcessLostError: a process was killed, or ended without reporting an error.
        InterruptedRunError: SIGINT or SIGTERM before there was a state to save.
    """
    _check_devices(config.device, count)
    base = dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    store = dist.PrefixStore("hesse/0", base)
    children: list[subprocess.Popen[bytes]] = []
    with forwarded_signals(children) as caught:
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
    """Wait for all processes, or until shortly after the first failure.

    Returns the rank of the first process that failed; None if all succeeded.
    """
    failed: int | None = None
    deadline = float("inf")
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        if failed is None:
            failed = next((rank for rank, child in enumerate(children) if child.poll()), None)
            if failed is not None:
                # The launcher knows the cause; processes that only lost the connection do not report.
                store.compare_set(FAILURE_KEY, "", _LAUNCHER_REPORTS)
                killed = children[failed].returncode < 0
                deadline = time.monotonic() + (_GRACE_PERIOD_KILLED if killed else _GRACE_PERIOD)
        time.sleep(_POLL)
    return failed if failed is not None else next((rank for rank, c in enumerate(children) if c.poll()), None)


def _start(arguments: Sequence[str], rank: int, count: int, port: int, threads: int | None) -> subprocess.Popen[bytes]:
    """Start one process."""
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
        environment.setdefault("OMP_NUM_THREADS", str(max(1, n_cores() // count)))
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if loopback is not None:  # the host name may resolve to another interface
        environment.setdefault("GLOO_SOCKET_IFNAME", loopback)
    return subprocess.Popen(
        hesse_command(arguments),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=None if rank == 0 else subprocess.DEVNULL,
        process_group=0,  # Ctrl-C in the terminal reaches only the launcher, which forwards it once
    )


def _check_devices(device: str, count: int) -> None:
    """Raise ConfigError unless there is a device for each process."""
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
        raise ConfigError(f'device "{device}": there are {n_devices} on this machine, and --devices requests {count}')


def _exit_cause(child: subprocess.Popen[bytes]) -> str:
    """Description of how a process ended."""
    code = child.returncode
    if code < 0:
        return f"(pid {child.pid}) was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"(pid {child.pid}) ended with exit code {code}"


def _checkpoint_hint(output: Path) -> str:
    """Sentence that says whether the run can be continued."""
    checkpoint = output / "checkpoint.safetensors"
    if checkpoint.exists():
        return f"The last saved state is in {checkpoint}; the same command continues the run."
    return "No state was saved yet."
