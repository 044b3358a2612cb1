"""The one place where text becomes a potential."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from hesse.engines.factories import import_and_call
from hesse.engines.options import parse_settings
from hesse.errors import FileFormatError, RequestError, UnknownOptionError, did_you_mean
from hesse.files import check_input_file
from hesse.models import load_model
from hesse.potential import Potential

__all__ = ["ADAPTERS", "POTENTIAL_NAMES", "with_base_folder", "path_in_name", "make_potential"]


def _parse_trust(text: str) -> bool:
    if text != "pickle":
        raise ValueError(text)
    return True


ADAPTERS: Mapping[str, tuple[str, Mapping[str, Callable[[str], Any]]]] = {
    "torchani": ("TorchAniPotential", {"architecture": str}),
    "hippynn": ("HippynnPotential", {"energy_unit": str, "length_unit": str, "energy": str}),
    "mace": ("MacePotential", {"head": str}),
    "nequip": ("NequipPotential", {"energy_unit": str, "length_unit": str}),
}
"""Frameworks whose files can be read: the adapter's class in `hesse.models.adapters.<name>`, and the settings that
`Class.from_file` takes beside the trust in pickles."""

POTENTIAL_NAMES: tuple[str, ...] = (
    "MODEL.hesse",
    *(f"{name}:FILE" for name in ADAPTERS),
    "python:package.module:factory",
)
"""What `make_potential` understands."""


def make_potential(text: str, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Potential:
    """The potential that `text` names, ready for evaluation.

    `MODEL.hesse`; `mace:FILE`, `torchani:FILE`, `hippynn:FILE`, `nequip:FILE` for the files of those frameworks, with
    settings behind the name (`mace:my.model?trust=pickle`); `python:package.module:factory` for a function without
    arguments that returns a `Potential` (modules are also found in the current folder).

    Args:
        text: the name.
        dtype: type of its parameters; None leaves them as they are.
        device: where it shall live.

    Raises:
        UnknownOptionError: no such kind or setting.
        FileFormatError: the file is missing or no model.
        RequestError: a pickle that was not declared trusted; a factory that fails or returns something else.
        MissingExtraError: the framework is not installed.
    """
    kind, colon, rest = text.partition(":")
    if kind in ADAPTERS and rest:
        class_name, known = ADAPTERS[kind]
        path, settings = parse_settings(rest, {"trust": _parse_trust, **known})
        check_input_file(path, f"model file of {kind}")
        settings["trust_pickle"] = settings.pop("trust", False)
        adapter = getattr(importlib.import_module(f"hesse.models.adapters.{kind}"), class_name)
        potential: Potential = adapter.from_file(Path(path), **settings)
    elif kind == "python" and rest:
        result = import_and_call(rest, text)
        if not isinstance(result, Potential):
            raise RequestError(
                f'"{text}" returned a {type(result).__name__}, expected a hesse.Potential (any energy function becomes '
                "one through hesse.models.adapters.CallablePotential)"
            )
        if not hasattr(result, "cutoff"):
            raise RequestError(f'"{text}" returned a {type(result).__name__} without a cutoff: set it, in Å')
        potential = result
    elif not colon or text.endswith(".hesse") or Path(text).exists():
        try:
            return load_model(text, dtype=dtype, device=device)
        except FileFormatError as error:
            if text.endswith((".hesse", ".safetensors")) or not Path(text).is_file():
                raise
            forms = ", ".join(f"{name}:{text}" for name in ADAPTERS)
            raise FileFormatError(f"{error} Is it a file of another framework? Then say which: {forms}") from None
    else:
        raise UnknownOptionError(f'no potential "{text}". {did_you_mean(text, POTENTIAL_NAMES)}')
    return potential.to(device=device, dtype=dtype).eval()


def path_in_name(text: str) -> str | None:
    """The file that a text names; None for a factory."""
    kind, _, rest = text.partition(":")
    if kind == "python":
        return None
    return rest.partition("?")[0] if kind in ADAPTERS and rest else text


def with_base_folder(text: str, folder: Path) -> str:
    """The same potential with a file path that counts from `folder`."""
    kind, _, rest = text.partition(":")
    if kind == "python":
        return text
    if kind in ADAPTERS and rest:
        return f"{kind}:{folder / rest}"
    return str(folder / text)
