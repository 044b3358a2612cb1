"""Model files: `.hesse` is one safetensors file whose header holds JSON (format, configuration, provenance).

Loading reads numbers and text; it never runs code from the file. A digest over tensors, configuration and provenance
tells a damaged file from a model that was trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from hesse import __version__
from hesse.errors import ConfigError, FileFormatError, UnknownOptionError, nearest_name
from hesse.files import require_file, write_aside
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
    header["digest"] = tensor_digest(header, tensors)
    with write_aside(path) as aside:
        aside.write_bytes(save(tensors, metadata=header))


def read_model_header(path: str | Path) -> dict[str, Any]:
    """What a model file says of itself, without loading it: `{"version", "model", "elements", "provenance"}`.

    Raises:
        FileFormatError: no model file, damaged, or of a newer version.
    """
    path = Path(path)
    require_file(path, "model file")
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
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
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
            meta = handle.metadata()
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
        config = HipnnConfig.model_validate(header["model"])
        expected = _expected_tensors(config, header["elements"], at_most=len(tensors))
    except (SafetensorError, OSError, ValidationError, ValueError, RuntimeError, ConfigError) as error:
        raise FileFormatError(f"{path}: {error}") from error
    found = {name: (value.shape, value.dtype) for name, value in tensors.items()}
    stored = tensors["interactions.0.after.weight"].dtype if "interactions.0.after.weight" in tensors else torch.float64
    wanted = {name: (shape, torch.float64 if name == "references" else stored) for name, shape in expected.items()}
    if found != wanted or not stored.is_floating_point:
        wrong = next((n for n in sorted({*found, *wanted}) if found.get(n) != wanted.get(n)), "*")
        raise FileFormatError(
            f"{path}: tensor {wrong} is {_described(found.get(wrong))}, its configuration asks for "
            f"{_described(wanted.get(wrong))}"
        )
    if meta.get("digest") != tensor_digest(meta, tensors):
        raise FileFormatError(f"{path}: its contents do not match their digest: the file was damaged or edited by hand")
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise FileFormatError(f"{path}: holds numbers that are not finite")
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn and thrown away
        potential = build_model(config, header["elements"]).to(dtype=stored)
    potential.load_state_dict(tensors)
    return potential.to(device=device, dtype=dtype or stored).eval()


def _expected_tensors(config: HipnnConfig, elements: tuple[int, ...], *, at_most: int) -> dict[str, torch.Size]:
    """Names and shapes of the tensors of such a model, found without memory: a wrong header cannot ask for too much."""
    if config.blocks * (config.onsite_layers + 1) > at_most:
        raise ValueError(
            f"its {at_most} tensors are too few for {config.blocks} blocks of {config.onsite_layers} layers"
        )
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return {name: value.shape for name, value in Hipnn(config, elements).state_dict().items()}


def tensor_digest(meta: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> str:
    """A digest of a safetensors file's header (but for its entry "digest") and of all its tensors."""
    digest = hashlib.blake2b(digest_size=16)
    for key in sorted(meta):
        if key != "digest":
            digest.update(f"{key}={meta[key]}\n".encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _described(tensor: tuple[torch.Size, torch.dtype] | None) -> str:
    return "absent" if tensor is None else f"{tuple(tensor[0])} {str(tensor[1]).removeprefix('torch.')}"
