"""Model files: `.hesse` is one safetensors file whose header holds JSON (format, configuration, provenance).

Loading reads numbers and text; it never runs code from the file. A digest over tensors, configuration and provenance
reveals damaged files. Files of earlier formats are migrated while they are read: one function per step, from each
version to the next. A released step is never changed, so that files of any age can be converted by all later steps; the
tests keep files of all formats.

The weights of any other module (one that only its own code can build) are stored in the same way, as `.safetensors`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hesse._version import __version__
from hesse.errors import FileFormatError, HesseError, RequestError
from hesse.models.reference_energies import ReferenceEnergies
from hesse.models.registry import from_description, to_description
from hesse.potential import Potential, known_environments
from hesse.runtime.dtypes import DTypeLike, as_dtype
from hesse.runtime.tensor_files import read_header, read_tensors, write_tensors
from hesse.structures import TrainingEnvironments

__all__ = [
    "FORMAT_VERSION",
    "best_model",
    "is_run_folder",
    "load_model",
    "load_weights",
    "migrate",
    "read_model_header",
    "read_training_environments",
    "read_weights_header",
    "save_model",
    "save_weights",
]

Description = dict[str, Any]
Tensors = dict[str, Tensor]


def _migrate_1_to_2(description: Description, tensors: Tensors) -> tuple[Description, Tensors]:
    """Format 1: only HIP-NN, with its reference energies as a separate tensor."""
    renamed = {("references.energies" if name == "references" else name): value for name, value in tensors.items()}
    return description, renamed


MIGRATIONS: Mapping[int, Callable[[Description, Tensors], tuple[Description, Tensors]]] = {1: _migrate_1_to_2}
FORMAT_VERSION = max(MIGRATIONS) + 1


def migrate(version: int, description: Description, tensors: Tensors) -> tuple[Description, Tensors]:
    """Convert description and tensors to the current format.

    Args:
        version: format of the file.
        description: description of the model, see `hesse.models.registry`.
        tensors: state dict of the model.

    Returns:
        Description and tensors in format `FORMAT_VERSION`.
    """
    for step in range(version, FORMAT_VERSION):
        description, tensors = MIGRATIONS[step](description, tensors)
    return description, tensors


def save_model(path: str | Path, potential: Potential, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a potential to a `.hesse` file.

    Args:
        path: file to write; replaced in one step if it exists.
        potential: one of Hesse's own kinds, or a sum or ensemble of them. Its `training_environments` are stored too.
        provenance: where it comes from (data hash, configuration, metrics, level of theory, ...), stored as JSON.

    Raises:
        UnknownOptionError: the potential is not made of Hesse's own models.
        RequestError: not a potential, or its floating-point tensors have several dtypes.
        WriteError: the file cannot be written; an existing file is unchanged.
    """
    if not isinstance(path, str | Path):
        raise RequestError(f"expected the path first, then the potential, got a {type(path).__name__} as the path")
    if not isinstance(potential, Potential):
        inner = (
            " (its potential is in .potential)" if isinstance(getattr(potential, "potential", None), Potential) else ""
        )
        raise RequestError(f"expected a hesse.Potential to save, got a {type(potential).__name__}{inner}")
    header = {
        "format": "hesse-model",
        "version": str(FORMAT_VERSION),
        "config": json.dumps(to_description(potential)),
        "provenance": json.dumps({"code_version": __version__, **(provenance or {})}),
    }
    environments = known_environments(potential)
    if environments is not None:
        header["environments"] = environments.to_text()
    tensors = dict(potential.state_dict())
    types = _float_dtypes(tensors, _reference_energy_names(potential))
    if len(types) > 1:
        names = ", ".join(str(dtype) for dtype in types)
        raise RequestError(f"the model holds tensors of several types ({names}); convert it first: potential.to(dtype)")
    write_tensors(path, header, tensors)


def read_model_header(path: str | Path) -> dict[str, Any]:
    """Header of a model file, without loading the model.

    Args:
        path: a `.hesse` file, or the folder of a run.

    Returns:
        `{"version", "model", "elements", "provenance"}`: format version, options of the model, atomic numbers, and the
        provenance given to `save_model`.

    Raises:
        RequestError: not the path of a file.
        FileFormatError: not a model file, damaged, or of a newer version.
    """
    path = _checked_path(path)
    meta = read_header(path, "model")
    if meta.get("format") == "hesse-weights":
        raise FileFormatError(
            f"{path}: only the weights of a {meta.get('module')}, not a Hesse model. Build the module in your own "
            "function, load the weights there (hesse.models.load_weights), and name it python:package.module:factory."
        )
    if meta.get("format") != "hesse-model":
        raise FileFormatError(f"{path}: a safetensors file, but not a Hesse model (no format mark in its header)")
    try:
        header = _parsed_header(meta)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise FileFormatError(f"{path}: its header is damaged ({type(error).__name__}: {error})") from error
    if header["version"] > FORMAT_VERSION:
        raise FileFormatError(
            f"{path}: model format {header['version']} is newer than this Hesse reads ({FORMAT_VERSION}); upgrade Hesse"
        )
    return header


def is_run_folder(path: str | Path) -> bool:
    """Check for the folder of a run.

    Args:
        path: any path or name.

    Returns:
        True for a folder with the log or the data record of a run.
    """
    folder = Path(path)
    return folder.is_dir() and any((folder / name).exists() for name in ("data.json", "metrics.jsonl"))


def best_model(folder: str | Path) -> Path:
    """Find the best model in the folder of a run.

    Args:
        folder: folder of the run.

    Returns:
        The file of the model.

    Raises:
        FileFormatError: no model in it, or only one in the format of another program.
    """
    path = Path(folder) / "model.hesse"
    if path.exists():
        return path
    others = sorted(p.name for p in Path(folder).glob("model.*"))
    if others:
        raise FileFormatError(
            f"{folder}: this run trained a potential of another program ({', '.join(others)}); name it with its "
            f"program, for example mace:{Path(folder) / others[0]}"
        )
    raise FileFormatError(
        f"{folder}: a folder without a model (model.hesse), expected a model file or the folder of a run, which has "
        "its model after the first validation"
    )


def _checked_path(path: str | Path) -> Path:
    """The path of a model file, which for the folder of a run is in it. Raises RequestError, which names the function
    to call, if the argument is no path."""
    if not isinstance(path, str | Path):
        raise RequestError(f"expected the path of a .hesse file, got a {type(path).__name__}")
    kind, colon, _ = str(path).partition(":")
    if colon and kind.isalpha() and len(kind) > 1 and not Path(path).exists():
        raise RequestError(f"expected the path of a .hesse file, got {path}; hesse.make_potential reads such names")
    return best_model(path) if Path(path).is_dir() else Path(path)


def _parsed_header(meta: Mapping[str, str]) -> dict[str, Any]:
    """Parse the texts of a header. Raises KeyError, TypeError, ValueError, OverflowError or RecursionError if a value
    is missing or invalid."""
    version = int(meta["version"])
    if version > FORMAT_VERSION:
        return {"version": version}
    if version < 1:
        raise ValueError(f"no format {version} exists")
    config, provenance = json.loads(meta["config"]), json.loads(meta["provenance"])
    elements = tuple(config["elements"])
    if not all(type(z) is int for z in elements):
        raise ValueError(f"elements must be atomic numbers, got {str(elements)[:60]}")
    return {"version": version, "model": dict(config["model"]), "elements": elements, "provenance": provenance}


def read_training_environments(path: str | Path) -> TrainingEnvironments | None:
    """The summary of the training data in a model file, without loading the model.

    Args:
        path: a `.hesse` file, or the folder of a run.

    Returns:
        The summary; None in files without one, such as those of older versions.

    Raises:
        RequestError: not the path of a file.
        FileFormatError: not a model file, or damaged.
    """
    path = _checked_path(path)
    text = read_header(path, "model").get("environments")
    try:
        return None if text is None else TrainingEnvironments.from_text(text)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError, AttributeError) as error:
        raise FileFormatError(f"{path}: its header is damaged ({type(error).__name__}: {error})") from error


def load_model(path: str | Path, *, dtype: DTypeLike | None = None, device: torch.device | str = "cpu") -> Potential:
    """Read a potential from a `.hesse` file.

    Args:
        path: the file.
        dtype: dtype of the weights, of torch or numpy or its name; default: as stored.
        device: device of the weights.

    Returns:
        The potential, in evaluation mode.

    Raises:
        RequestError: not the path of a file.
        FileFormatError: the file is missing, damaged, of a newer version, or its tensors do not fit its configuration.
    """
    path = _checked_path(path)
    header, environments = read_model_header(path), read_training_environments(path)
    tensors = read_tensors(path, "model")
    description = {"model": header["model"], "elements": list(header["elements"])}
    try:
        description, tensors = migrate(header["version"], description, tensors)
        # Built on the meta device first: a wrong header cannot allocate more memory than the file itself has.
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            skeleton = from_description(description, max_tensors=len(tensors))
        if list(skeleton.elements) != description["elements"]:
            raise FileFormatError(
                f"elements {description['elements']}, but its parts support {list(skeleton.elements)}"
            )
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
            f"{path}: tensor {mismatch} is {_format_tensor(actual.get(mismatch))}, its configuration needs "
            f"{_format_tensor(expected.get(mismatch))}"
        )
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise FileFormatError(f"{path}: holds numbers that are not finite")
    with torch.random.fork_rng(devices=[]):  # the random initial weights are replaced
        potential = from_description(description).to(dtype=stored_dtype)
    potential.load_state_dict(tensors)
    potential.training_environments = environments
    return potential.to(device=device, dtype=stored_dtype if dtype is None else as_dtype(dtype)).eval()


def _reference_energy_names(potential: Potential) -> set[str]:
    """Names of the tensors that hold reference energies: they are always float64."""
    modules = potential.named_modules(remove_duplicate=False)  # one member may occur several times
    owners = [name for name, module in modules if isinstance(module, ReferenceEnergies)]
    return {f"{name}.energies" if name else "energies" for name in owners}


def _float_dtypes(tensors: Mapping[str, torch.Tensor], float64_names: set[str]) -> list[torch.dtype]:
    """The dtypes of all floating-point tensors, except those in `float64_names`, in order of occurrence."""
    return list(
        dict.fromkeys(v.dtype for name, v in tensors.items() if v.is_floating_point() and name not in float64_names)
    )


def _format_tensor(tensor: tuple[torch.Size, torch.dtype] | None) -> str:
    return "absent" if tensor is None else f"{tuple(tensor[0])} {str(tensor[1]).removeprefix('torch.')}"


# --- weights of any module ------------------------------------------------------------------------------------------

WEIGHTS_KIND = "weights"


def save_weights(path: str | Path, module: nn.Module, provenance: Mapping[str, Any] | None = None) -> None:
    """Write the `state_dict` of any module to a `.safetensors` file.

    Args:
        path: file to write; replaced in one step if it exists.
        module: any module.
        provenance: where the weights come from, stored as JSON.

    Raises:
        WriteError: the file cannot be written; an existing file is unchanged.
    """
    header = {
        "format": "hesse-weights",
        "version": "1",
        "module": f"{type(module).__module__}.{type(module).__qualname__}",
        "provenance": json.dumps({"code_version": __version__, **(provenance or {})}),
    }
    write_tensors(path, header, module.state_dict())


def read_weights_header(path: str | Path) -> dict[str, Any]:
    """Header of a weights file.

    Args:
        path: a file written by `save_weights`.

    Returns:
        `{"module", "provenance"}`: the name of the module's class, and the provenance given to `save_weights`.

    Raises:
        FileFormatError: not a weights file of Hesse, or damaged.
    """
    path = Path(path)
    meta = read_header(path, WEIGHTS_KIND)
    if meta.get("format") != "hesse-weights":
        raise FileFormatError(f'{path}: not a weights file of Hesse (its format is "{meta.get("format")}")')
    try:
        return {"module": meta["module"], "provenance": dict(json.loads(meta["provenance"]))}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: its header is damaged ({type(error).__name__}: {error})") from error


def load_weights(path: str | Path, module: nn.Module) -> dict[str, Any]:
    """Load the weights of a file into a module.

    Args:
        path: a file written by `save_weights`.
        module: a module of the same architecture; changed in place.

    Returns:
        The provenance given to `save_weights`.

    Raises:
        FileFormatError: the file is missing, damaged, or its tensors do not fit the module.
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
