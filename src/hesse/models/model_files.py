"""Model files: `.hesse` is one safetensors file whose header holds JSON (format, configuration, provenance).

Loading reads numbers and text; it never runs code from the file. A digest over tensors, configuration and provenance
tells a damaged file from a model that was trained. Files of earlier formats are upgraded as they are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hesse._version import __version__
from hesse.errors import ConfigError, FileFormatError, HesseError, RequestError
from hesse.models.reference_energies import ReferenceEnergies
from hesse.models.registry import from_description, to_description
from hesse.potential import Potential
from hesse.runtime.tensor_files import read_header, read_tensors, tensor_digest, write_tensors

__all__ = [
    "FORMAT_VERSION",
    "load_model",
    "load_weights",
    "migrate",
    "read_model_header",
    "read_weights_header",
    "save_model",
    "save_weights",
    "tensor_digest",
]

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


Description = dict[str, Any]
Tensors = dict[str, Tensor]


def _migrate_1_to_2(description: Description, tensors: Tensors) -> tuple[Description, Tensors]:
    """Only HIP-NN existed, with its element references as a tensor of its own."""
    renamed = {("references.energies" if name == "references" else name): value for name, value in tensors.items()}
    return description, renamed


MIGRATIONS: Mapping[int, Callable[[Description, Tensors], tuple[Description, Tensors]]] = {1: _migrate_1_to_2}
FORMAT_VERSION = max(MIGRATIONS) + 1


def migrate(version: int, description: Description, tensors: Tensors) -> tuple[Description, Tensors]:
    """A description and tensors of format `version` in the present format."""
    for step in range(version, FORMAT_VERSION):
        description, tensors = MIGRATIONS[step](description, tensors)
    return description, tensors


def save_model(path: str | Path, potential: Potential, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a potential with where it came from (data hash, configuration, metrics, level of theory, ...).

    Raises:
        UnknownOptionError: the potential is not made of Hesse's own models.
        RequestError: its floating-point tensors are of several types.
        WriteError: the file cannot be written; what stood there is unharmed.
    """
    header = {
        "format": "hesse-model",
        "version": str(FORMAT_VERSION),
        "config": json.dumps(to_description(potential)),
        "provenance": json.dumps({"code_version": __version__, **(provenance or {})}),
    }
    tensors = dict(potential.state_dict())
    types = _float_dtypes(tensors, _reference_energy_names(potential))
    if len(types) > 1:
        names = ", ".join(str(dtype) for dtype in types)
        raise RequestError(f"the model holds tensors of several types ({names}); convert it first: potential.to(dtype)")
    write_tensors(path, header, tensors)


def read_model_header(path: str | Path) -> dict[str, Any]:
    """What a model file says of itself, without loading it: `{"version", "model", "elements", "provenance"}`.

    Raises:
        FileFormatError: no model file, damaged, or of a newer version.
    """
    path = Path(path)
    meta = read_header(path, "model")
    if meta.get("format") == "hesse-weights":
        raise FileFormatError(
            f"{path}: weights alone, of a {meta.get('module')}, not a Hesse model. Let your own code build it and put "
            "them in (hesse.models.load_weights), in a function that is named python:package.module:factory."
        )
    if meta.get("format") != "hesse-model":
        raise FileFormatError(f"{path}: a safetensors file, but not a Hesse model (no format mark in its header)")
    try:
        version = int(meta["version"])
        if version > FORMAT_VERSION:
            raise FileFormatError(
                f"{path}: model format {version} is newer than this Hesse reads ({FORMAT_VERSION}); upgrade Hesse"
            )
        if version < 1:
            raise ValueError(f"no format {version} exists")
        config, provenance = json.loads(meta["config"]), json.loads(meta["provenance"])
        elements = tuple(config["elements"])
        if not all(type(z) is int for z in elements):
            raise ValueError(f"elements must be atomic numbers, got {str(elements)[:60]}")
        model = dict(config["model"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise FileFormatError(f"{path}: its header is damaged ({type(error).__name__}: {error})") from error
    return {"version": version, "model": model, "elements": elements, "provenance": provenance}


def load_model(path: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Potential:
    """The potential in a `.hesse` file, ready for evaluation, in the type it was trained in unless `dtype` says else.

    Raises:
        FileFormatError: the file is missing, damaged, newer, or its tensors do not fit its configuration.
    """
    path = Path(path)
    header = read_model_header(path)
    tensors = read_tensors(path, "model")
    description = {"model": header["model"], "elements": list(header["elements"])}
    try:
        description, tensors = migrate(header["version"], description, tensors)
        # Built without memory first: a wrong header cannot ask for more than the file itself holds.
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            skeleton = from_description(description, max_tensors=len(tensors))
        if list(skeleton.elements) != description["elements"]:
            raise ConfigError(f"elements {description['elements']}, but its parts know {list(skeleton.elements)}")
    except (HesseError, ValueError, RuntimeError, OverflowError, TypeError, KeyError, MemoryError) as error:
        raise FileFormatError(f"{path}: {error}") from error
    float64_names = _reference_energy_names(skeleton)
    stored_dtype = next(iter(_float_dtypes(tensors, float64_names)), torch.float64)
    expected = {
        name: (v.shape, torch.float64 if name in float64_names else stored_dtype if v.is_floating_point() else v.dtype)
        for name, v in skeleton.state_dict().items()
    }
    actual = {name: (value.shape, value.dtype) for name, value in tensors.items()}
    if actual != expected:
        mismatch = next((n for n in sorted({*actual, *expected}) if actual.get(n) != expected.get(n)), "*")
        raise FileFormatError(
            f"{path}: tensor {mismatch} is {_format_tensor(actual.get(mismatch))}, its configuration asks for "
            f"{_format_tensor(expected.get(mismatch))}"
        )
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise FileFormatError(f"{path}: holds numbers that are not finite")
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn and thrown away
        potential = from_description(description).to(dtype=stored_dtype)
    potential.load_state_dict(tensors)
    return potential.to(device=device, dtype=dtype or stored_dtype).eval()


def _reference_energy_names(potential: Potential) -> set[str]:
    """Names of the element references among its tensors: float64 always."""
    modules = potential.named_modules(remove_duplicate=False)  # one member may stand in several places
    owners = [name for name, module in modules if isinstance(module, ReferenceEnergies)]
    return {f"{name}.energies" if name else "energies" for name in owners}


def _float_dtypes(tensors: Mapping[str, torch.Tensor], float64_names: set[str]) -> list[torch.dtype]:
    """The types of all floating-point tensors but those named in `fixed`, in the order in which they come."""
    return list(
        dict.fromkeys(v.dtype for name, v in tensors.items() if v.is_floating_point() and name not in float64_names)
    )


def _format_tensor(tensor: tuple[torch.Size, torch.dtype] | None) -> str:
    return "absent" if tensor is None else f"{tuple(tensor[0])} {str(tensor[1]).removeprefix('torch.')}"


# MERGED DOCSTRING (fold into the module docstring): """Weights of any module as numbers in a file (`.safetensors`): for potentials that only their own code can build."""

# MERGED DOCSTRING (fold into the module docstring): """Model files of earlier formats: one function per step, from a version to the next. Each takes the description of the model and its tensors and returns those of the next version. They are never changed once released, so that a file of any age is read through all steps since. What earlier releases wrote is kept in the tests. """
