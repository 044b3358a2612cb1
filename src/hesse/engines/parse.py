"""The one place where text becomes an engine."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hesse.engines.ase import AseEngine
from hesse.engines.engine import Engine
from hesse.engines.factories import import_and_call
from hesse.engines.numerical import FiniteDifferences
from hesse.engines.options import PYSCF_OPTIONS, XTB_OPTIONS, parse_settings
from hesse.engines.potential import PotentialEngine
from hesse.engines.potentials import ADAPTERS, POTENTIAL_NAMES, make_potential
from hesse.engines.pyscf import PyscfEngine
from hesse.engines.xtb import XTB_METHODS, XtbEngine
from hesse.errors import RequestError, UnknownOptionError, did_you_mean
from hesse.models import load_model
from hesse.models.tensors import tensor_digest

__all__ = ["ENGINE_NAMES", "make_engine"]

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
