"""Model files: `.hesse` is one safetensors file whose header holds JSON (format, configuration, provenance).

Loading reads numbers and text; it never runs code from the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from hesse import __version__
from hesse.errors import FileFormatError, UnknownOptionError, nearest_name
from hesse.files import write_aside
from hesse.models.hipnn import Hipnn, HipnnConfig
from hesse.potential import Potential

__all__ = ["FORMAT_VERSION", "ModelConfig", "build_model", "load_model", "read_model_header", "save_model"]

FORMAT_VERSION = 1

ModelConfig = HipnnConfig
"""Configurations of the models that can be built from text (a union once there are several)."""


def build_model(config: ModelConfig, elements: tuple[int, ...], references: torch.Tensor | None = None) -> Potential:
    """The model that a configuration describes, freshly initialised from torch's global generator."""
    return Hipnn(config, elements, references)


def save_model(path: str | Path, potential: Potential, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a potential with where it came from (data hash, configuration, metrics, level of theory, ...).

    Raises:
        UnknownOptionError: the potential is not one of Hesse's own models.
        WriteError: the file cannot be written; what stood there is unharmed.
    """
    if not isinstance(potential, Hipnn):
        raise UnknownOptionError(f"only Hesse's own models have .hesse files, got a {type(potential).__name__}")
    header = {
        "format": "hesse-model",
        "version": str(FORMAT_VERSION),
        "config": json.dumps({"model": potential.config.model_dump(), "elements": list(potential.elements)}),
        "provenance": json.dumps({"code_version": __version__, **(provenance or {})}),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in potential.state_dict().items()}
    with write_aside(path) as aside:
        aside.write_bytes(save(tensors, metadata=header))


def read_model_header(path: str | Path) -> dict[str, Any]:
    """What a model file says of itself, without loading it: `{"version", "model", "elements", "provenance"}`.

    Raises:
        FileFormatError: no model file, damaged, or of a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileFormatError(f"{path}: there is no such model file")
    try:
        with safe_open(path, "pt") as handle:
            meta = handle.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise FileFormatError(
            f"{path}: not a readable .hesse file ({error}). It may be truncated: copy or train it again."
        ) from error
    if meta.get("format") != "hesse-model":
        raise FileFormatError(f"{path}: a safetensors file, but not a Hesse model (no format mark in its header)")
    try:
        version = int(meta["version"])
        config, provenance = json.loads(meta["config"]), json.loads(meta["provenance"])
        elements = tuple(int(z) for z in config["elements"])
        model = dict(config["model"])
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path}: its header is damaged ({type(error).__name__}: {error})") from error
    if version > FORMAT_VERSION:
        raise FileFormatError(
            f"{path}: model format {version} is newer than this Hesse reads ({FORMAT_VERSION}); upgrade Hesse"
        )
    return {"version": version, "model": model, "elements": elements, "provenance": provenance}


def load_model(path: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Potential:
    """The potential in a `.hesse` file, ready for evaluation, in the type it was trained in unless `dtype` says else.

    Raises:
        FileFormatError: the file is missing, damaged, newer, or its tensors do not fit its configuration.
    """
    header = read_model_header(path)
    kind = header["model"].get("kind")
    if kind != "hipnn":
        raise FileFormatError(f'{path}: unknown kind of model "{kind}". {nearest_name(str(kind), ["hipnn"])}')
    try:
        with safe_open(path, "pt") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
        config = HipnnConfig.model_validate(header["model"])
        with torch.device("meta"):  # shapes first, without memory: a wrong header cannot ask for too much
            expected = {name: value.shape for name, value in Hipnn(config, header["elements"]).state_dict().items()}
    except (SafetensorError, OSError, ValidationError, ValueError) as error:
        raise FileFormatError(f"{path}: {error}") from error
    found = {name: value.shape for name, value in tensors.items()}
    if found != expected:
        wrong = next(n for n in sorted({*found, *expected}) if found.get(n) != expected.get(n))
        raise FileFormatError(
            f"{path}: tensor {wrong} has shape {_shape(found.get(wrong))}, "
            f"its configuration asks for {_shape(expected.get(wrong))}"
        )
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise FileFormatError(f"{path}: holds numbers that are not finite")
    potential = build_model(config, header["elements"])
    stored = next(value.dtype for name, value in tensors.items() if name != "references")
    potential = potential.to(dtype=stored)
    potential.load_state_dict(tensors)
    return potential.to(device=device, dtype=dtype or stored).eval()


def _shape(shape: torch.Size | None) -> str:
    return "nothing" if shape is None else str(tuple(shape))
