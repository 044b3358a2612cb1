"""Where tensors live: the one place where text becomes a device that is known to work."""

from __future__ import annotations

import torch

from hesse.errors import ConfigError

__all__ = ["require_device"]


def require_device(name: str) -> torch.device:
    """The device `name` (`cpu`, `cuda`, `cuda:1`, ...), tried out. Raises ConfigError where it cannot be used."""
    try:
        return torch.empty(1, device=name).device
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f'device "{name}" cannot be used here ({first}). Use "cpu", or another one.') from error
