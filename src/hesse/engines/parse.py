"""The one place where text becomes an engine."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from hesse.engines.ase import AseEngine
from hesse.engines.engine import Engine
from hesse.engines.numerical import Differences
from hesse.engines.options import PYSCF_OPTIONS, XTB_OPTIONS, split_options
from hesse.engines.potential import PotentialEngine
from hesse.engines.pyscf import PyscfEngine
from hesse.engines.xtb import XTB_METHODS, XtbEngine
from hesse.errors import RequestError, UnknownOptionError, nearest_name

__all__ = ["ENGINE_FORMS", "make_engine"]

ENGINE_FORMS: tuple[str, ...] = (*XTB_METHODS, "pyscf:METHOD/BASIS", "ase:package.module:factory", "model:PATH")
"""What `make_engine` understands."""


def make_engine(text: str, *, differences: Differences | None = None) -> Engine:
    """The engine that `text` names: `gfn2`, `gfn1`, `pyscf:METHOD/BASIS`, `ase:package.module:factory`, `model:PATH`.

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
        name, settings = split_options(text, XTB_OPTIONS)
        return XtbEngine(name, differences=differences, **settings)
    if kind == "pyscf" and rest:
        head, settings = split_options(text, PYSCF_OPTIONS)
        return PyscfEngine(head.removeprefix("pyscf:"), differences=differences, **settings)
    if kind == "ase" and rest:
        return _ase_engine(rest, differences)
    if kind == "model" and rest:
        return _model_engine(Path(rest))
    raise UnknownOptionError(f'no engine "{text}". {nearest_name(text, ENGINE_FORMS)}')


def _model_engine(path: Path) -> Engine:
    from hesse.models import load_model

    potential = load_model(path)
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    return PotentialEngine(potential, f"model:{path.stem}", settings={"file_digest": digest})


def _ase_engine(text: str, differences: Differences | None) -> Engine:
    module_name, _, factory_name = text.partition(":")
    if not factory_name:
        raise RequestError(f'engine "ase:{text}": expected ase:package.module:factory, for example ase:my_code:make')
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise RequestError(f'engine "ase:{text}": cannot import {module_name} ({error})') from error
    factory: Any = getattr(module, factory_name, None)
    if not callable(factory):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        hint = nearest_name(factory_name, names) if names else "It defines none."
        raise RequestError(f'engine "ase:{text}": {module_name} has no function "{factory_name}". {hint}')
    try:
        made = factory()
    except Exception as error:  # the user's code
        raise RequestError(f'engine "ase:{text}": {factory_name}() failed: {type(error).__name__}: {error}') from error
    if isinstance(made, Engine):
        if differences not in (None, Differences()):
            raise RequestError(
                f'engine "ase:{text}": {factory_name}() returned an engine, which brings its own differences; set the '
                "step and the order there"
            )
        return made
    if not hasattr(made, "get_potential_energy"):
        raise RequestError(
            f'engine "ase:{text}": {factory_name}() returned a {type(made).__name__}, '
            "expected an ASE calculator or a hesse.engines.Engine"
        )
    return AseEngine(made, differences=differences, settings={"factory": text})
