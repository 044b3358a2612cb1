"""Signals are collected, forwarded or raised, and the former handlers return."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

from hesse.runtime.signals import StoppedError, deferred_signals, forwarded_signals, stop_signals

BOTH = (signal.SIGINT, signal.SIGTERM)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in BOTH]


def test_deferred_signals_are_collected() -> None:
    before = handlers()
    with deferred_signals() as caught:
        for number in BOTH:
            signal.raise_signal(number)
        assert caught == list(BOTH)
    assert handlers() == before


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_stops_and_the_second_has_its_usual_effect(number: signal.Signals) -> None:
    before, at_the_end = handlers(), []

    def work() -> None:
        with stop_signals():
            try:
                signal.raise_signal(number)
            finally:
                at_the_end.append(handlers())

    with pytest.raises(StoppedError):
        work()
    assert at_the_end == [before]
    assert handlers() == before


class Collected:
    """Something with weak references."""


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_in_a_callback_that_drops_exceptions_is_not_lost(number: signal.Signals) -> None:
    """Python drops what callbacks of weak references and `__del__` raise."""
    before, hook = handlers(), sys.unraisablehook

    def callback(_: object) -> None:
        signal.raise_signal(number)
        time.sleep(0)  # the handler runs here

    def work() -> None:
        kept = Collected()
        reference = weakref.ref(kept, callback)
        with stop_signals():
            del kept
            assert reference() is None
            time.sleep(10)

    with pytest.raises(StoppedError):
        work()
    assert handlers() == before
    assert sys.unraisablehook is hook


def test_signals_are_forwarded_to_processes_that_run() -> None:
    before, processes = handlers(), []
    with forwarded_signals(processes) as caught:
        processes.append(subprocess.Popen([sys.executable, "-c", "pass"]))
        processes[0].wait()
        processes.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        signal.raise_signal(signal.SIGTERM)
        assert processes[1].wait(timeout=10) == -signal.SIGTERM
    assert caught == [signal.SIGTERM]
    assert handlers() == before


def test_other_threads_leave_handlers_alone() -> None:
    before, seen = handlers(), []

    def look() -> None:
        with deferred_signals(), stop_signals(), forwarded_signals([]):
            seen.append(handlers())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]
