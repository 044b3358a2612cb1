"""Names of engines and potentials, as written on the command line and in configurations.

One grammar for both: the path of a model file; `mace:FILE`, `torchani:FILE`, `hippynn:FILE`, `nequip:FILE` for files of
those frameworks; `python:package.module:factory` and `ase:package.module:factory` for objects that your own modules
create; and for engines `gfn2`, `gfn1` and `pyscf:METHOD/BASIS`. Settings follow a question mark:
`gfn2?accuracy=0.01`, `pyscf:hf/6-31g*?hvp=analytic,grid=3`, `mace:my.model?trust=pickle`. No other module converts text
to engines or potentials.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from hesse.engine import Engine
from hesse.engines.ase_engine import AseEngine
from hesse.engines.force_engine import FiniteDifferences
from hesse.engines.potential_engine import PotentialEngine
from hesse.engines.pyscf import PyscfEngine
from hesse.engines.xtb import XTB_METHODS, XtbEngine
from hesse.errors import FileFormatError, RequestError, UnknownOptionError, did_you_mean
from hesse.models import load_model
from hesse.potential import Potential
from hesse.runtime.filesystem import check_input_file

__all__ = [
    "ADAPTERS",
    "ENGINE_NAMES",
    "POTENTIAL_NAMES",
    "PYSCF_OPTIONS",
    "XTB_OPTIONS",
    "import_and_call",
    "make_engine",
    "make_potential",
    "parse_settings",
    "path_in_name",
    "with_base_folder",
]


def import_and_call(text: str, full_name: str) -> Any:
    """Import a function by its name and call it without arguments. Modules are also found in the current folder.

    Args:
        text: "package.module:factory".
        full_name: the complete name as the user wrote it, for messages.

    Returns:
        The object that the function returns.

    Raises:
        RequestError: the function cannot be imported, or importing or calling it raises an error.
    """
    module_name, _, factory_name = text.partition(":")
    if not factory_name:
        kind = full_name.partition(":")[0]
        raise RequestError(f'"{full_name}": expected {kind}:package.module:factory, for example {kind}:my_code:make')
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise RequestError(f'"{full_name}": cannot import {module_name} ({error})') from error
    except Exception as error:  # the user's code
        raise RequestError(f'"{full_name}": importing {module_name} failed: {type(error).__name__}: {error}') from error
    factory: Any = getattr(module, factory_name, None)
    if not callable(factory):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        hint = did_you_mean(factory_name, names) if names else "It defines none."
        raise RequestError(f'"{full_name}": {module_name} has no function "{factory_name}". {hint}')
    try:
        return factory()
    except Exception as error:  # the user's code
        raise RequestError(f'"{full_name}": {factory_name}() failed: {type(error).__name__}: {error}') from error


def _parse_yes_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(text)
    return text == "yes"


PYSCF_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "grid": int,
    "hvp": str,
    "probes": int,
    "hessian": str,
    "cartesian": _parse_yes_no,
    "energy_threshold": float,
    "gradient_threshold": float,
    "max_cycles": int,
}
"""Arguments of `PyscfEngine` that a name may set, and the functions that parse their text."""

XTB_OPTIONS: Mapping[str, Callable[[str], Any]] = {"accuracy": float, "max_iterations": int}
"""Arguments of `XtbEngine` that a name may set."""

_MODEL_SUFFIXES = (".hesse", ".safetensors")

_EXPECTED_BY_NAME = {"trust": "pickle"}
_EXPECTED_BY_TYPE = {int: "a whole number", float: "a number", _parse_yes_no: "yes or no"}


def parse_settings(text: str, known: Mapping[str, Callable[[str], Any]]) -> tuple[str, dict[str, Any]]:
    """Split a name at the question mark and parse the settings after it (`name=value`, separated by commas).

    Args:
        text: the name with its settings.
        known: the settings that are allowed, each with the function that parses its text.

    Returns:
        The part before the question mark, and the values of the settings.

    Raises:
        UnknownOptionError: a setting that is not in `known`; the message has the nearest name.
        RequestError: no `=`, a setting that occurs twice, or a value that cannot be parsed.
    """
    head, _, tail = text.partition("?")
    settings: dict[str, Any] = {}
    for part in tail.split(",") if tail else ():
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise RequestError(f'"{text}": expected name=value after the question mark, got "{part}"')
        if name not in known:
            raise UnknownOptionError(f'"{text}": no setting "{name}". {did_you_mean(name, known)}')
        if name in settings:
            raise RequestError(f'"{text}": the setting "{name}" is given twice')
        try:
            settings[name] = known[name](value)
        except ValueError as error:
            expected = _EXPECTED_BY_TYPE.get(known[name], _EXPECTED_BY_NAME.get(name, "another value"))
            raise RequestError(f'"{text}": {name} must be {expected}, got "{value}"') from error
    return head, settings


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
"""Frameworks whose files can be read: the class of the adapter in `hesse.models.adapters.<name>`, and the arguments of
its `from_file` that a name may set, besides `trust=pickle`."""

POTENTIAL_NAMES: tuple[str, ...] = (
    "MODEL.hesse",
    *(f"{name}:FILE" for name in ADAPTERS),
    "python:package.module:factory",
)
"""Names that `make_potential` understands."""


def make_potential(
    text: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> Potential:
    """Create the potential of a name, in evaluation mode.

    Args:
        text: the path of a model (`run/model.hesse`); `mace:FILE`, `torchani:FILE`, `hippynn:FILE` or `nequip:FILE` for
            files of those frameworks, with settings after a question mark (`mace:my.model?trust=pickle`); or
            `python:package.module:factory` for a function without arguments that returns a `Potential` (modules are
            also found in the current folder).
        dtype: floating-point type of its parameters; None leaves them as they are.
        device: device of its parameters.

    Returns:
        The potential.

    Raises:
        UnknownOptionError: an unknown kind or setting.
        FileFormatError: the file does not exist or is not a model.
        RequestError: a pickle without `trust=pickle`; a factory that fails or returns something else; the name of an
            engine that is not a potential.
        MissingExtraError: the framework is not installed.
    """
    text = str(text)
    kind, _, rest = text.partition(":")
    _refuse_model_prefix(text)
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
    elif text.partition("?")[0] in XTB_METHODS or (kind in ("pyscf", "ase") and rest):
        raise RequestError(
            f'"{text}" is an engine, not a potential that PyTorch can differentiate. Expected one of '
            f"{', '.join(POTENTIAL_NAMES)}"
        )
    elif ":" not in text or _is_model_path(text):
        try:
            return load_model(text, dtype=dtype, device=device)
        except FileFormatError as error:
            if text.endswith(_MODEL_SUFFIXES) or not Path(text).is_file():
                raise
            forms = ", ".join(f"{name}:{text}" for name in ADAPTERS)
            raise FileFormatError(f"{error} If it is a file of another framework, write which: {forms}") from None
    else:
        raise UnknownOptionError(f'no potential "{text}". {did_you_mean(text, POTENTIAL_NAMES)}')
    return potential.to(device=device, dtype=dtype).eval()


def path_in_name(text: str) -> str | None:
    """The file in the name of a potential.

    Args:
        text: a name as for `make_potential`.

    Returns:
        The path of the file; None for a `python:` factory.
    """
    kind, _, rest = text.partition(":")
    if kind == "python":
        return None
    return rest.partition("?")[0] if kind in ADAPTERS and rest else text


def with_base_folder(text: str, folder: Path) -> str:
    """Make the path in the name of a potential relative to a folder.

    Args:
        text: a name as for `make_potential`.
        folder: the folder from which relative paths count.

    Returns:
        The name with the path joined to `folder`; absolute paths and `python:` factories are unchanged.
    """
    kind, _, rest = text.partition(":")
    if kind == "python":
        return text
    if kind in ADAPTERS and rest:
        return f"{kind}:{folder / rest}"
    return str(folder / text)


ENGINE_NAMES: tuple[str, ...] = (
    *XTB_METHODS,
    "pyscf:METHOD/BASIS",
    "ase:package.module:factory",
    *POTENTIAL_NAMES,
)
"""Names that `make_engine` understands."""


def make_engine(text: str | Path, *, differences: FiniteDifferences | None = None) -> Engine:
    """Create the engine of a name.

    Args:
        text: `gfn2`, `gfn1`, `pyscf:METHOD/BASIS`, `ase:package.module:factory`, or any name of a potential as for
            `make_potential` (the path of a model, `mace:FILE`, ...). Settings may follow the first three:
            `gfn2?accuracy=0.01`, `pyscf:wb97x/6-31g*?grid=3,hvp=analytic`; they are arguments of `XtbEngine` and
            `PyscfEngine`. An ASE factory is a function without arguments that returns a calculator, or an `Engine` with
            its own `differences`; modules are also found in the current folder.
        differences: how curvature is taken from forces. Potentials, which are differentiated exactly, ignore it.

    Returns:
        The engine.

    Raises:
        UnknownOptionError: an unknown engine or setting; the message has the nearest name.
        RequestError: an invalid method or setting; a factory that cannot be imported or called.
        ConfigError: a setting out of its range.
        MissingExtraError: the package of the engine is not installed.
        FileFormatError: the model file cannot be read.
    """
    text = str(text)
    kind, _, rest = text.partition(":")
    _refuse_model_prefix(text)
    if text.partition("?")[0] in XTB_METHODS:
        name, settings = parse_settings(text, XTB_OPTIONS)
        return XtbEngine(name, differences=differences, **settings)
    if kind == "pyscf" and rest:
        head, settings = parse_settings(text, PYSCF_OPTIONS)
        return PyscfEngine(head.removeprefix("pyscf:"), differences=differences, **settings)
    if kind == "ase" and rest:
        return _ase_engine(rest, differences)
    if kind in (*ADAPTERS, "python") and rest:
        return _potential_engine(text)
    if _is_model_path(text):
        return _model_engine(text)
    raise UnknownOptionError(f'no engine "{text}". {did_you_mean(text, ENGINE_NAMES)}')


def _is_model_path(text: str) -> bool:
    return text.endswith(_MODEL_SUFFIXES) or Path(text).is_file()


def _refuse_model_prefix(text: str) -> None:
    kind, _, path = text.partition(":")
    if kind == "model" and not Path(text).exists():
        raise RequestError(f'"{text}": a model is named by its path alone: write {path or "PATH"}')


def _model_engine(text: str) -> Engine:
    potential = make_potential(text)
    path = Path(text)
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    return PotentialEngine(potential, f"model:{path.stem}", settings={"file_digest": digest})


def _potential_engine(text: str) -> Engine:
    # The content of a file can change while its name stays: a digest identifies the weights.
    name = text.partition("?")[0]
    return PotentialEngine(make_potential(text), name, name=name.partition(":")[0])


def _ase_engine(text: str, differences: FiniteDifferences | None) -> Engine:
    result = import_and_call(text, f"ase:{text}")
    if isinstance(result, Engine):
        if differences not in (None, FiniteDifferences()):
            raise RequestError(
                f'engine "ase:{text}" returned an engine, which has its own differences; set the '
                "step and the order there"
            )
        return result
    if not hasattr(result, "get_potential_energy"):
        raise RequestError(
            f'engine "ase:{text}" returned a {type(result).__name__}, '
            "expected an ASE calculator or a hesse.engines.Engine"
        )
    return AseEngine(result, differences=differences, settings={"factory": text})
