"""Devices by name, number of CPU threads, and memory settings of the C library."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hesse.errors import ConfigError

__all__ = ["device_from_name", "disable_malloc_trim", "n_cores", "torch_threads"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MAX_THRESHOLD = 2**30


def n_cores() -> int:
    """Number of cores that this process may use.

    Returns:
        The number, at least 1.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_from_name(name: str) -> torch.device:
    """The torch device of a name, after a test allocation on it.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, ...

    Returns:
        The device.

    Raises:
        ConfigError: unknown device, or one that cannot be used here.
    """
    try:
        return torch.empty(1, device=name).device
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        first = "unknown device" if "device string" in str(error) else str(error).splitlines()[0]
        raise ConfigError(
            f'device "{name}" cannot be used here ({first}). Use "cpu", or "cuda" for an NVIDIA GPU.'
        ) from error


def disable_malloc_trim() -> bool:
    """Let the C library reuse freed memory instead of returning it to the operating system (glibc on Linux only).

    By default glibc returns blocks above 32 MiB, and the top of its heap, to the operating system, which hands them out
    again page by page, filled with zeros. This took a third of the time of a training step on 2,000 atoms (see mallopt
    in the manual of the GNU C Library, "Malloc Tunable Parameters"). With this setting, memory stays with the process
    until it ends. glibc 2.36 reuses the memory of a tensor only after seven freed chunks of the same size class are
    cached, so a few tensors of the largest sizes may coexist.

    Returns:
        True if the setting was accepted, False with other C libraries.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(name, _MAX_THRESHOLD) == 1 for name in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))


@contextmanager
def torch_threads(n_threads: int | None) -> Iterator[None]:
    """Context with a number of CPU threads of torch, which is restored afterwards.

    Args:
        n_threads: number of threads; None leaves it unchanged.
    """
    before = torch.get_num_threads()
    if n_threads is not None:
        torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
