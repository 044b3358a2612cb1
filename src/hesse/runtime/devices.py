"""Where tensors live: the one place where text becomes a device that is known to work, and how its memory is kept."""

from __future__ import annotations

import ctypes
import platform

import torch

from hesse.errors import ConfigError

__all__ = ["device_from_name", "disable_malloc_trim"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MAX_THRESHOLD = 2**30


def device_from_name(name: str) -> torch.device:
    """The device `name` (`cpu`, `cuda`, `cuda:1`, ...), tried out. Raises ConfigError where it cannot be used."""
    try:
        return torch.empty(1, device=name).device
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f'device "{name}" cannot be used here ({first}). Use "cpu", or another one.') from error


def disable_malloc_trim() -> bool:
    """Ask the C library to keep what tensors free for the next ones, and say whether it does (glibc on Linux).

    By default it hands tensors above 32 MiB, and the end of its heap, back to the operating system, which gives them
    out again page by page, filled with zeros: a third of the time of a training step on 2,000 atoms went there (mallopt
    in the manual of the GNU C Library, "Malloc Tunable Parameters"). Memory then stays with the process until it ends.
    glibc 2.36 uses the room of a tensor again only after it has set aside seven chunks cut off from tensors like it, so
    that the first few of the largest sizes may lie beside each other.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(name, _MAX_THRESHOLD) == 1 for name in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
