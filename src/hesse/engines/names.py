"""Names of engines and potentials, as written on the command line and in configurations.

One grammar for both: the path of a model file; `mace:FILE`, `torchani:FILE`, `hippynn:FILE`, `nequip:FILE`,
`chgnet:FILE`, `sevenn:FILE` for files of those frameworks; `chgnet:0.3.0`, `sevenn:7net-0` for published weights that
an installed package brings with it; `python:package.module:factory` and `ase:package.module:factory` for objects that
your own modules create; and for engines `gfn2`, `gfn1` and `pyscf:METHOD/BASIS`. Settings follow a question mark:
`gfn2?accuracy=0.01`, `pyscf:hf/6-31g*?hvp=analytic,grid=3`, `mace:my.model?trust=pickle`. No other module converts text
to engines or potentials.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import pydantic
import torch
from pydantic import Field

from hesse.engine import Engine
from hesse.engines.ase_engine import AseEngine
from hesse.engines.factories import import_and_call
from hesse.engines.force_engine import FiniteDifferences
from hesse.engines.levels import file_digest, level_with_digest, module_file_digest, weights_digest
from hesse.engines.potential_engine import PotentialEngine
from hesse.engines.pyscf import PyscfEngine, PyscfSettings
from hesse.engines.xtb import XTB_METHODS, XtbEngine, XtbSettings, xtb_name
from hesse.errors import FileFormatError, RequestError, UnknownOptionError, did_you_mean
from hesse.models import best_model, is_run_folder, load_model
from hesse.models.adapters import PUBLISHED, checkpoint_file, is_published
from hesse.potential import Potential
from hesse.runtime.dtypes import DTypeLike, as_dtype
from hesse.runtime.settings import Settings, validate_config

__all__ = [
    "ADAPTERS",
    "ENGINE_NAMES",
    "POTENTIAL_NAMES",
    "make_engine",
    "make_potential",
    "parse_settings",
    "path_in_name",
    "settings_model",
    "with_base_folder",
]

S = TypeVar("S", bound=Settings)


_MODEL_SUFFIXES = (".hesse", ".safetensors")

ADAPTERS: Mapping[str, str] = {
    "torchani": "TorchAniPotential",
    "hippynn": "HippynnPotential",
    "mace": "MacePotential",
    "nequip": "NequipPotential",
    "chgnet": "ChgnetPotential",
    "sevenn": "SevennPotential",
}
"""Frameworks whose files can be read, and the class of the adapter in `hesse.models.adapters.<name>`."""


class _FileSettings(Settings):
    """Settings that every file of another framework has."""

    synonyms: ClassVar[Mapping[str, str]] = {"trust_pickle": "trust"}

    trust: Literal["pickle"] | None = Field(
        None, description="pickle: load a file that can run code of its author, because you trust them"
    )


@functools.cache
def _file_settings(kind: str) -> type[_FileSettings]:
    """The keyword arguments of the adapter's `from_file` that a text can express."""
    from_file = _adapter(kind).from_file
    types = typing.get_type_hints(from_file)
    fields: dict[str, Any] = {
        name: (types[name], parameter.default)
        for name, parameter in inspect.signature(from_file).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and types[name] in (str, str | None)
    }
    return pydantic.create_model(f"{kind}:FILE", __base__=_FileSettings, **fields)


def _adapter(kind: str) -> Any:
    return getattr(importlib.import_module(f"hesse.models.adapters.{kind}"), ADAPTERS[kind])


def settings_model(name: str) -> type[Settings]:
    """The settings that the name of an engine or potential may hold after a question mark.

    Args:
        name: a name as for `make_engine`, with or without settings.

    Returns:
        A model: its fields are the settings, with types, defaults and meanings.

    Raises:
        UnknownOptionError: an unknown engine; the message has the nearest name.
    """
    name = _with_plain_name(name)
    head = name.partition("?")[0]
    kind, _, rest = head.partition(":")
    if head in XTB_METHODS:
        return XtbSettings
    if kind == "pyscf" and rest:
        return PyscfSettings
    if kind in ADAPTERS and rest:
        return _file_settings(kind)
    if (kind in ("ase", "python") and rest) or _is_model_path(name):
        return Settings
    raise UnknownOptionError(f'no engine "{name}". {did_you_mean(name, ENGINE_NAMES)}')


def parse_settings(text: str, model: type[S]) -> tuple[str, S]:
    """Split a name at the question mark and parse the settings after it (`name=value`, separated by commas).

    Args:
        text: the name with its settings.
        model: the settings that are allowed.

    Returns:
        The part before the question mark, and the settings.

    Raises:
        UnknownOptionError: a setting that does not exist; the message has the nearest name.
        RequestError: no `=`, or a setting that occurs twice.
        ConfigError: a value of the wrong type or out of range.
    """
    head, _, tail = text.partition("?")
    values: dict[str, str] = {}
    for part in tail.split(",") if tail else ():
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise RequestError(f'"{text}": expected name=value after the question mark, got "{part}"')
        if name in values:
            raise RequestError(f'"{text}": the setting "{name}" is given twice')
        values[name] = value
    return head, validate_config(model, values, source=f'"{text}"')


POTENTIAL_NAMES: tuple[str, ...] = (
    "MODEL.hesse",
    *(f"{name}:FILE" for name in ADAPTERS),
    *(f"{name}:{weights}" for name, published in PUBLISHED.items() for weights in published),
    "python:package.module:factory",
)
"""Names that `make_potential` understands."""


def make_potential(
    text: str | Path, *, dtype: DTypeLike | None = None, device: torch.device | str = "cpu"
) -> Potential:
    """Create the potential of a name, in evaluation mode.

    Args:
        text: the path of a model (`run/model.hesse`); `mace:FILE`, `torchani:FILE`, `hippynn:FILE`, `nequip:FILE`,
            `chgnet:FILE` or `sevenn:FILE` for files of those frameworks, with settings after a question mark
            (`mace:my.model?trust=pickle`); `chgnet:0.3.0`, `sevenn:7net-0` for published weights; or
            `python:package.module:factory` for a function without arguments that returns a `Potential` (modules are
            also found in the current folder).
        dtype: floating-point type of its parameters, of torch or numpy or its name; None leaves them as they are.
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
    text = _with_plain_name(str(text))
    dtype = None if dtype is None else as_dtype(dtype)
    kind, _, rest = text.partition(":")
    _refuse_model_prefix(text)
    if kind in ADAPTERS and rest:
        head, settings = parse_settings(text, _file_settings(kind))
        file = checkpoint_file(kind, head.partition(":")[2])
        options = settings.model_dump(exclude={"trust"})
        potential: Potential = _adapter(kind).from_file(file, **options, trust_pickle=settings.trust == "pickle")
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
        The path of the file; None for a `python:` factory and for published weights.
    """
    text = _with_plain_name(text)
    kind, _, rest = text.partition(":")
    if kind == "python" or is_published(kind, rest.partition("?")[0]):
        return None
    return rest.partition("?")[0] if kind in ADAPTERS and rest else text


def with_base_folder(text: str, folder: Path) -> str:
    """Make the path in the name of an engine or potential relative to a folder.

    Args:
        text: a name as for `make_engine` or `make_potential`.
        folder: the folder from which relative paths count.

    Returns:
        The name with the path joined to `folder`; absolute paths, factories (`python:`, `ase:`), names of programs and
        published weights are unchanged.
    """
    kind, _, rest = text.partition(":")
    if is_published(kind, rest.partition("?")[0]):
        return text
    if kind in ("python", "ase", "pyscf") or xtb_name(kind).partition("?")[0] in XTB_METHODS:
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
        text: `gfn2` or `GFN2-xTB`, `gfn1` or `GFN1-xTB`, `pyscf:METHOD/BASIS`, `ase:package.module:factory`, or any
            name of a potential as for `make_potential` (the path of a model, `mace:FILE`, ...). Settings may follow
            the first three: `gfn2?accuracy=0.01`, `pyscf:wb97x/6-31g*?grid=3,hvp=analytic`; they are fields of
            `XtbSettings` and `PyscfSettings`. An ASE factory is a function without arguments that returns a
            calculator, or an `Engine` with its own `differences`; modules are also found in the current folder.
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
    text = _with_plain_name(str(text))
    kind, _, rest = text.partition(":")
    _refuse_model_prefix(text)
    if text.partition("?")[0] in XTB_METHODS:
        return XtbEngine(*parse_settings(text, XtbSettings), differences=differences)
    if kind == "pyscf" and rest:
        head, settings = parse_settings(text, PyscfSettings)
        return PyscfEngine(head.removeprefix("pyscf:"), settings, differences=differences)
    if kind == "ase" and rest:
        return _ase_engine(rest, differences)
    if kind in (*ADAPTERS, "python") and rest:
        return _potential_engine(text)
    if _is_model_path(text):
        return _model_engine(text)
    raise UnknownOptionError(f'no engine "{text}". {did_you_mean(text, ENGINE_NAMES)}')


def _with_plain_name(text: str) -> str:
    """The short name of an xTB method, the model file in the folder of a run; anything else as it is. A method comes
    before a folder of its name."""
    name = xtb_name(text)
    if name.partition("?")[0] in XTB_METHODS:
        return name
    return str(best_model(text)) if is_run_folder(text) else text


def _is_model_path(text: str) -> bool:
    return text.endswith(_MODEL_SUFFIXES) or Path(text).is_file()


def _refuse_model_prefix(text: str) -> None:
    kind, _, path = text.partition(":")
    if kind == "model" and not Path(text).exists():
        raise RequestError(f'"{text}": a model is named by its path alone: write {path or "PATH"}')


def _model_engine(text: str) -> Engine:
    potential = make_potential(text)
    digest = file_digest(text)
    level = level_with_digest(f"model:{Path(text).name}", digest)
    return PotentialEngine(potential, level, settings={"file_digest": digest})


def _potential_engine(text: str) -> Engine:
    # The content of a file can change while its name stays: a digest identifies the weights.
    name, _, options = text.partition("?")
    kind, _, rest = name.partition(":")
    potential = make_potential(text)
    if kind == "python":
        level = level_with_digest(name, weights_digest(potential), module_file_digest(rest.partition(":")[0]))
        return PotentialEngine(potential, level, name=kind)
    # Settings such as the head of a model belong to its identity, the permission to load it does not.
    options = ",".join(sorted(part for part in options.split(",") if not part.strip().startswith("trust")))
    level = level_with_digest(f"{kind}:{Path(rest).name}", file_digest(checkpoint_file(kind, rest)), options)
    return PotentialEngine(potential, level, name=kind)


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
    source = module_file_digest(text.partition(":")[0])
    settings = {"factory": text, **({"factory_digest": source} if source else {})}
    return AseEngine(result, differences=differences, settings=settings)
