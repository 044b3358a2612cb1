"""Weights of any module as numbers in a file (`.safetensors`): for potentials that only their own code can build."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from hesse import __version__
from hesse.errors import FileFormatError
from hesse.models.tensors import read_header, read_tensors, write_tensors

__all__ = ["load_weights", "read_weights_header", "save_weights"]

WEIGHTS_KIND = "weights"


def save_weights(path: str | Path, module: nn.Module, provenance: Mapping[str, Any] | None = None) -> None:
    """Write the `state_dict` of a module with where it came from. Raises WriteError."""
    header = {
        "format": "hesse-weights",
        "version": "1",
        "module": f"{type(module).__module__}.{type(module).__qualname__}",
        "provenance": json.dumps({"code_version": __version__, **(provenance or {})}),
    }
    write_tensors(path, header, module.state_dict())


def read_weights_header(path: str | Path) -> dict[str, Any]:
    """What a weights file says of itself: `{"module", "provenance"}`. Raises FileFormatError."""
    path = Path(path)
    meta = read_header(path, WEIGHTS_KIND)
    if meta.get("format") != "hesse-weights":
        raise FileFormatError(f'{path}: not a weights file of Hesse (its format is "{meta.get("format")}")')
    try:
        return {"module": meta["module"], "provenance": dict(json.loads(meta["provenance"]))}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: its header is damaged ({type(error).__name__}: {error})") from error


def load_weights(path: str | Path, module: nn.Module) -> dict[str, Any]:
    """Put the weights in a file into `module`, which its own code has built; returns their provenance.

    Raises:
        FileFormatError: the file is missing, damaged, or its tensors are not those of the module.
    """
    path = Path(path)
    header = read_weights_header(path)
    tensors = read_tensors(path, WEIGHTS_KIND)
    expected = module.state_dict()
    for name in sorted({*expected, *tensors}):
        if name not in expected or name not in tensors or expected[name].shape != tensors[name].shape:
            raise FileFormatError(
                f"{path}: its tensors are those of a {header['module']} and do not fit this "
                f"{type(module).__name__}: the first that differs is {name}"
            )
    module.load_state_dict(tensors)
    provenance: dict[str, Any] = header["provenance"]
    return provenance
