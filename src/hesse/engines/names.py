"""Settings of an engine or potential behind its name: `gfn2?accuracy=0.01`, `pyscf:hf/6-31g*?hvp=analytic,grid=3`."""

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
from hesse.runtime.tensor_files import tensor_digest

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
    """What `factory()` of `package.module` returns; modules are also found in the current folder.

    Args:
        text: "package.module:factory".
        asked: what the user wrote, for messages.

    Raises:
        RequestError: it cannot be imported or called.
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
"""Arguments of `PyscfEngine`, and how their text is read."""

XTB_OPTIONS: Mapping[str, Callable[[str], Any]] = {"accuracy": float, "max_iterations": int}
"""Arguments of `XtbEngine`."""

_EXPECTED_BY_NAME = {"trust": "pickle"}
_EXPECTED_BY_TYPE = {int: "a whole number", float: "a number", _parse_yes_no: "yes or no"}


def parse_settings(text: str, known: Mapping[str, Callable[[str], Any]]) -> tuple[str, dict[str, Any]]:
    """What stands before the question mark, and the settings after it, `name=value` with commas between.

    Raises:
        UnknownOptionError: a setting that is not in `known`; the message has the nearest name.
        RequestError: no `=`, a setting given twice, or a value that cannot be read.
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


ENGINE_NAMES: tuple[str, ...] = (
    *XTB_METHODS,
    "pyscf:METHOD/BASIS",
    "ase:package.module:factory",
    "model:PATH",
    *POTENTIAL_NAMES[1:],
)
"""What `make_engine` understands."""


def make_engine(text: str, *, differences: FiniteDifferences | None = None) -> Engine:
    """The engine that `text` names: `gfn2`, `gfn1`, `pyscf:METHOD/BASIS`, `ase:package.module:factory`, `model:PATH`,
    or one of the forms of `make_potential` (`mace:FILE`, ...).

    Settings may follow the first three: `gfn2?accuracy=0.01`, `pyscf:wb97x/6-31g*?grid=3,hvp=analytic`. They are the
    arguments of `XtbEngine` and `PyscfEngine`. An ASE factory is called without arguments and returns a calculator, or
    an `Engine` of your own (which brings its own `differences`: others are refused); modules are also found in the
    current folder. Potentials need no differences.

    Raises:
        UnknownOptionError: no such engine or setting; the message has the nearest name.
        RequestError: a method or setting that cannot be; a factory that cannot be imported or called.
        ConfigError: a setting out of its range.
        MissingExtraError: the engine's package is not installed.
        FileFormatError: the model file cannot be read.
    """
    kind, _, rest = text.partition(":")
    if text.partition("?")[0] in XTB_METHODS:
        name, settings = parse_settings(text, XTB_OPTIONS)
        return XtbEngine(name, differences=differences, **settings)
    if kind == "pyscf" and rest:
        head, settings = parse_settings(text, PYSCF_OPTIONS)
        return PyscfEngine(head.removeprefix("pyscf:"), differences=differences, **settings)
    if kind == "ase" and rest:
        return _ase_engine(rest, differences)
    if kind == "model" and rest:
        return _model_engine(Path(rest))
    if kind in (*ADAPTERS, "python") and rest:
        return _potential_engine(text)
    raise UnknownOptionError(f'no engine "{text}". {did_you_mean(text, ENGINE_NAMES)}')


def _model_engine(path: Path) -> Engine:
    potential = load_model(path)
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    return PotentialEngine(potential, f"model:{path.stem}", settings={"file_digest": digest})


def _potential_engine(text: str) -> Engine:
    potential = make_potential(text)
    name = text.partition("?")[0]
    # Files change under their names; weights do not.
    digest = tensor_digest({}, {n: value.detach().cpu() for n, value in potential.state_dict().items()})
    return PotentialEngine(potential, name, name=name.partition(":")[0], settings={"weights_digest": digest})


def _ase_engine(text: str, differences: FiniteDifferences | None) -> Engine:
    result = import_and_call(text, f"ase:{text}")
    if isinstance(result, Engine):
        if differences not in (None, FiniteDifferences()):
            raise RequestError(
                f'engine "ase:{text}" returned an engine, which brings its own differences; set the '
                "step and the order there"
            )
        return result
    if not hasattr(result, "get_potential_energy"):
        raise RequestError(
            f'engine "ase:{text}" returned a {type(result).__name__}, '
            "expected an ASE calculator or a hesse.engines.Engine"
        )
    return AseEngine(result, differences=differences, settings={"factory": text})


# MERGED DOCSTRING (fold into the module docstring): """Objects that the user's own modules make: `package.module:factory`."""

# MERGED DOCSTRING (fold into the module docstring): """The one place where text becomes a potential."""

# MERGED DOCSTRING (fold into the module docstring): """The one place where text becomes an engine."""
