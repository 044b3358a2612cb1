"""Conversion of names, files, calculators and models to engines and potentials, for every public function."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, TypeAlias

import torch
from ase.calculators.calculator import BaseCalculator

from hesse.engine import Engine
from hesse.engines.ase_engine import AseEngine
from hesse.engines.force_engine import FiniteDifferences
from hesse.engines.names import make_engine, make_potential
from hesse.engines.potential_engine import PotentialEngine
from hesse.errors import RequestError
from hesse.potential import Potential
from hesse.runtime.dtypes import DTypeLike, as_dtype

__all__ = ["EngineLike", "PotentialLike", "as_engine", "as_potential", "engine_for_workers"]

EngineLike: TypeAlias = "str | Path | Engine | Potential | BaseCalculator | Any"
"""An engine: its name as on the command line, the path of a model, an Engine, a Potential, an ASE calculator, or an
object with a `potential` (the result of training)."""

PotentialLike: TypeAlias = "str | Path | Potential | Any"
"""A potential: its name as on the command line, the path of a model, a Potential, or an object with a `potential` (the
result of training, a HesseCalculator)."""


def as_engine(engine: EngineLike, *, differences: FiniteDifferences | None = None) -> Engine:
    """Convert a name, a path, a calculator or a potential to an engine.

    Args:
        engine: a name as on the command line (`gfn2`, `pyscf:hf/6-31g*`, `mace:FILE`, the path of a model), an Engine,
            a Potential, an ASE calculator, or an object with a `potential`, such as the result of `hesse.train`.
        differences: how curvature is taken from forces, for names and ASE calculators.

    Returns:
        An engine, which computes energies, forces, Hessian-vector products and Hessians.

    Raises:
        RequestError: the argument is of another type; a dtype other than float32 and float64.
        HesseError: all that `make_engine` raises.
    """
    if differences is not None and not isinstance(differences, FiniteDifferences):
        raise RequestError(f"differences: expected FiniteDifferences(...), got {type(differences).__name__}")
    if isinstance(engine, str | Path):
        return make_engine(str(engine), differences=differences)
    if isinstance(engine, Engine):
        return engine
    potential = _potential_in(engine)
    if potential is not None:
        return PotentialEngine(potential)
    if not isinstance(engine, type) and (isinstance(engine, BaseCalculator) or hasattr(engine, "get_potential_energy")):
        return AseEngine(engine, differences=differences)
    raise RequestError(
        'expected an engine: a name such as "gfn2", the path of a model, a hesse.Engine, a hesse.Potential or an ASE '
        f"calculator; got {_describe(engine)}"
    )


def engine_for_workers(
    engine: EngineLike, workers: int | None, scheduler: str | None, differences: FiniteDifferences | None = None
) -> tuple[str | Engine, int | None]:
    """Prepare an engine for worker processes, which create their own engine from a name; objects stay in this process.

    Args:
        engine: a name, the path of a model, or an object, see `as_engine`.
        workers: the requested number of processes.
        scheduler: the requested cluster.
        differences: how curvature is taken from forces, for an ASE calculator.

    Returns:
        The name or the engine; and the number of processes, 0 for an engine that is an object.

    Raises:
        RequestError: an object together with processes.
    """
    if isinstance(engine, str | Path):
        return str(engine), workers
    if workers or scheduler is not None:
        raise RequestError(
            f"an engine object ({type(engine).__name__}) works in this process only: give the engine by its name, such "
            'as "gfn2", from which each process makes its own, or leave out workers and scheduler'
        )
    return as_engine(engine, differences=differences), 0


def as_potential(
    potential: PotentialLike, *, dtype: DTypeLike | None = None, device: torch.device | str | None = None
) -> Potential:
    """Convert a name, a path, or an object with a potential to that potential.

    Args:
        potential: a name as on the command line (`mace:FILE`, `torchani:FILE`, the path of a model), a Potential, or an
            object with a `potential`, such as the result of `hesse.train` or a HesseCalculator.
        dtype: floating-point type of the result, of torch or numpy or its name; None leaves it as it is.
        device: device of the result; None leaves it where it is (the CPU for files).

    Returns:
        The potential; a copy where its type or device had to change.

    Raises:
        RequestError: the argument is of another type.
        HesseError: all that `make_potential` raises.
    """
    dtype = None if dtype is None else as_dtype(dtype)
    if isinstance(potential, str | Path):
        return make_potential(str(potential), dtype=dtype, device=device or "cpu")
    result = _potential_in(potential)
    if result is None:
        hint = ""
        if isinstance(potential, torch.nn.Module):
            hint = (
                ". Models of other frameworks become potentials through the adapters in hesse.models.adapters, energy "
                "functions through hesse.CallablePotential"
            )
        raise RequestError(
            "expected a potential: the path of a model, a name such as mace:FILE, or a hesse.Potential; got "
            f"{_describe(potential)}{hint}"
        )
    if dtype is None and device is None:
        return result
    return copy.deepcopy(result).to(dtype=dtype, device=device)


def _potential_in(thing: object) -> Potential | None:
    if isinstance(thing, Potential):
        return thing
    inner = getattr(thing, "potential", None)
    return inner if isinstance(inner, Potential) else None


def _describe(thing: object) -> str:
    if isinstance(thing, type):
        return f"the class {thing.__name__}: make an object of it, {thing.__name__}(...)"
    return "None" if thing is None else f"an object of type {type(thing).__name__}"
