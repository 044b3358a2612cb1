"""The lowest vibrational modes of large structures without a full Hessian, for any structure and engine."""

from __future__ import annotations

from typing import TypeAlias

from ase import Atoms
from numpy.typing import ArrayLike

from hesse.curvature.davidson import HessianMatvec, LowestModes, lowest_eigenpairs
from hesse.datasets.io import StructuresLike, as_structure
from hesse.engine import Engine
from hesse.engines.engine_inputs import EngineLike, as_engine
from hesse.engines.potential_engine import PotentialEngine
from hesse.errors import RequestError
from hesse.potential import Potential
from hesse.structures import Structure

__all__ = ["lowest_modes"]

Operator: TypeAlias = "EngineLike | HessianMatvec"


def lowest_modes(
    structure: StructuresLike,
    engine: Operator,
    count: int = 1,
    *,
    masses: ArrayLike | bool = False,
    tolerance: float = 1e-3,
    max_products: int | None = None,
    start: ArrayLike | None = None,
    seed: int = 0,
    strict: bool = True,
    quiet: bool = True,
) -> LowestModes:
    """Compute the lowest modes of a structure from Hessian-vector products, by the block Davidson method.

    Rigid-body motions are projected out. No Hessian is formed; the number of products grows slowly with the number of
    atoms. See `hesse.curvature.lowest_eigenpairs` for the method and its limits.

    Args:
        structure: a Structure, ASE Atoms, or the path of a file with one structure.
        engine: a name ("gfn2"), the path of a model, an Engine, a Potential, an ASE calculator, or a function from
            directions `[k, n, 3]` to products `H v` in eV/Å² of the same shape.
        count: number of modes.
        masses: True for ASE's standard atomic weights, or masses in u, `[n]`: eigenvalues of the mass-weighted Hessian,
            and frequencies. False for eigenvalues of the Hessian itself.
        tolerance: limit of the residuals, in the unit of the eigenvalues.
        max_products: limit of the number of products; by default 3n, at least 300.
        start: start directions, `[n, 3]` or `[k, n, 3]`. Random directions are added.
        seed: seed of the random directions.
        strict: whether modes that did not converge are an error; otherwise they are returned as they are.
        quiet: show no progress.

    Returns:
        Eigenvalues in eV/Å² (eV/(Å² u) with masses), vectors and residuals, in ascending order.

    Raises:
        RequestError: not one structure, or not an engine; invalid options.
        LabelShapeError: directions or products of a wrong shape.
        EngineError: no convergence, or products that are not finite.
        GeometryError: atoms overlap.
        ConfigError: an option that is not a number.
    """
    if isinstance(structure, Potential) or (callable(structure) and not isinstance(structure, Structure | Atoms)):
        raise RequestError("expected the structure first, then the engine: lowest_modes(structure, engine)")
    return lowest_eigenpairs(
        _operator(engine),
        as_structure(structure),
        count,
        masses=masses,
        tolerance=tolerance,
        max_products=max_products,
        start=start,
        seed=seed,
        strict=strict,
        quiet=quiet,
    )


def _operator(engine: Operator) -> Potential | Engine | HessianMatvec:
    """The engine as `lowest_eigenpairs` takes it: the potential itself if there is one, functions unchanged."""
    if callable(engine) and not isinstance(engine, Potential) and not hasattr(engine, "get_potential_energy"):
        return engine
    result = as_engine(engine)
    return result.potential if isinstance(result, PotentialEngine) else result
