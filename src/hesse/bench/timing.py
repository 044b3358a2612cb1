"""Measurement of time, with repetitions of several functions interleaved, and of the peak memory of tensors."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from hesse.runtime.progress import AdvanceCallback

__all__ = ["Timing", "Work", "peak_memory_mib", "repeats_within", "silence_profiler", "time_interleaved", "time_once"]

Key = TypeVar("Key", bound=Hashable)
Work = Callable[[], Any]


@dataclass(frozen=True)
class Timing:
    """Seconds of all repetitions of one function, in order.

    Attributes:
        wall: wall time.
        process: processor time of all threads of this process; it depends little on other processes.
    """

    wall: tuple[float, ...]
    process: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """Median of wall time."""
        return statistics.median(self.wall)

    @property
    def process_seconds(self) -> float:
        """Median of process time."""
        return statistics.median(self.process)

    def ratio_to(self, other: Timing, *, wall_time: bool) -> float:
        """Ratio of this time to another one: the median of the ratios of neighboring repetitions.

        Args:
            other: timing from the same `time_interleaved` call.
            wall_time: compare wall time instead of process time.

        Returns:
            The ratio.
        """
        times, other_times = (t.wall if wall_time else t.process for t in (self, other))
        return statistics.median(a / b for a, b in zip(times, other_times, strict=False))


def time_once(work: Work, device: torch.device) -> tuple[float, float, Any]:
    """Time one call, until the device has finished.

    Args:
        work: the function.
        device: device on which it computes.

    Returns:
        Wall seconds, process seconds, and the result of the function.
    """
    _synchronize(device)
    wall, process = time.perf_counter(), time.process_time()
    result = work()
    _synchronize(device)
    return time.perf_counter() - wall, time.process_time() - process, result


def repeats_within(time_budget: float, seconds: float, repeats: int) -> int:
    """Number of repetitions that fit into a time.

    Args:
        time_budget: seconds for all repetitions.
        seconds: seconds of one repetition.
        repeats: maximum number of repetitions.

    Returns:
        The number of repetitions, at least one.
    """
    return max(1, min(repeats, int(time_budget / max(seconds, 1e-9))))


def time_interleaved(
    works: Mapping[Key, Work],
    device: torch.device,
    repeats: Mapping[Key, int],
    *,
    advance: AdvanceCallback = lambda steps=1, note="": None,
) -> dict[Key, Timing]:
    """Time several functions with their repetitions interleaved, so that other load on the machine affects all alike.

    Args:
        works: the functions by name; each has been called before.
        device: device on which they compute.
        repeats: number of repetitions of each.
        advance: called once per round.

    Returns:
        The timing of each function.
    """
    samples: dict[Key, list[tuple[float, float]]] = {name: [] for name in works}
    for repeat in range(max(repeats.values(), default=0)):
        for name, work in works.items():
            if repeat < repeats[name]:
                wall, process, _ = time_once(work, device)
                samples[name].append((wall, process))
        advance(1)
    return {name: Timing(*(tuple(column) for column in zip(*rows, strict=True))) for name, rows in samples.items()}


def peak_memory_mib(work: Work, device: torch.device) -> float:
    """Peak memory of the tensors that a function allocates, in addition to those that existed before.

    On an accelerator it is read from the statistics of the allocator, on a CPU from the allocations in PyTorch's
    profile.

    Args:
        work: the function.
        device: device on which it computes.

    Returns:
        Peak memory, MiB.
    """
    if device.type != "cpu":
        _synchronize(device)
        torch.accelerator.reset_peak_memory_stats(device)
        before = torch.accelerator.memory_allocated(device)
        work()
        _synchronize(device)
        return float(torch.accelerator.max_memory_allocated(device) - before) / 2**20
    silence_profiler()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    current = highest = 0
    events = (e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]")
    for event in sorted(events, key=lambda e: e.start_ns()):
        current += event.nbytes()
        highest = max(highest, current)
    return highest / 2**20


def silence_profiler() -> None:
    """Suppress the messages of PyTorch's profiler on standard error. To be called before its first use."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
