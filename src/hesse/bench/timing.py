"""Taking turns with a stop-watch, and counting the memory of tensors."""

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
    """Seconds of every repetition of one piece of work, in order.

    Attributes:
        wall: by the clock.
        process: of all threads of this process; what other processes do to the machine disturbs it little.
    """

    wall: tuple[float, ...]
    process: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """Median by the clock."""
        return statistics.median(self.wall)

    @property
    def process_seconds(self) -> float:
        """Median of process time."""
        return statistics.median(self.process)

    def ratio_to(self, other: Timing, *, wall_time: bool) -> float:
        """How many times as long as `other`: the median over repetitions side by side."""
        times, other_times = (t.wall if wall_time else t.process for t in (self, other))
        return statistics.median(a / b for a, b in zip(times, other_times, strict=False))


def time_once(work: Work, device: torch.device) -> tuple[float, float, Any]:
    """Wall and process seconds until the device has done the work, and what the work returned."""
    _synchronize(device)
    wall, process = time.perf_counter(), time.process_time()
    result = work()
    _synchronize(device)
    return time.perf_counter() - wall, time.process_time() - process, result


def repeats_within(time_budget: float, seconds: float, repeats: int) -> int:
    """How often to repeat what takes `seconds` each time: `repeats` times, or as often as `time_budget` (seconds) allows,
    and once at least."""
    return max(1, min(repeats, int(time_budget / max(seconds, 1e-9))))


def time_interleaved(
    works: Mapping[Key, Work],
    device: torch.device,
    repeats: Mapping[Key, int],
    *,
    advance: AdvanceCallback = lambda steps=1, note="": None,
) -> dict[Key, Timing]:
    """Time every work, in turns, so that a busy moment of the machine meets all alike.

    Args:
        works: what to time, by name; each has been done before.
        device: where the work is done.
        repeats: how often each is timed.
        advance: called once for every round.
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
    """MiB of tensors that exist at once during the work, beyond those that were there before.

    On an accelerator from the statistics of its allocator, on a CPU from all allocations that PyTorch's profiler sees.
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
    """Keep PyTorch's profiler from telling on standard error that it starts and stops. Before its first use."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
