"""Worker functions for tests of `hesse.runtime.parallel`. Worker processes import this module, so it imports little."""

from __future__ import annotations

import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from hesse.errors import EngineError


def doubling(spec: int) -> Callable[[int], int]:
    def work(task: int) -> int:
        if task == 13:
            raise EngineError("unlucky")
        if task == 14:
            raise KeyError("odd")
        if task == 66:
            os.kill(os.getpid(), signal.SIGKILL)
        if task == 77:
            os._exit(5)
        if task == 88:
            time.sleep(60)
        print("engines like to talk")
        return 2 * task + spec

    return work


def parent(spec: float) -> Callable[[int], int]:
    """After `spec` seconds, the id of the parent process; task 99 kills the parent."""

    def work(task: int) -> int:
        time.sleep(spec)
        if task == 99:
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        return os.getppid()

    return work


def returns_code(spec: None) -> Callable[[int], object]:
    return lambda task: lambda: task


def folder(spec: None) -> Callable[[int], str]:
    return lambda task: os.getcwd()


def refuses(spec: int) -> Callable[[int], int]:
    raise EngineError("no such engine")


def dies(spec: int) -> Callable[[int], int]:
    os._exit(9)


def threads(spec: None) -> Callable[[int], str]:
    return lambda task: os.environ["OMP_NUM_THREADS"]


def dies_while_sending(spec: int) -> Callable[[int], bytes]:
    """Task `spec` kills its process when the first part of its result is in the pipe."""

    def work(task: int) -> bytes:
        if task == spec:
            threading.Thread(target=_kill_when_sending, args=[threading.main_thread().ident], daemon=True).start()
            return bytes(50_000_000)
        time.sleep(0.1)
        return bytes(1)

    return work


def _kill_when_sending(main_thread: int) -> None:
    while True:
        frame = sys._current_frames()[main_thread]
        while frame is not None:
            if frame.f_code.co_name == "_send" and frame.f_code.co_filename == multiprocessing.connection.__file__:
                os.kill(os.getpid(), signal.SIGKILL)
            frame = frame.f_back


def dies_once_at_the_start(marker: str) -> Callable[[int], int]:
    """The first process ends before it is set up."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return lambda task: task
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def search_path(spec: None) -> Callable[[int], list[str]]:
    return lambda task: sys.path
