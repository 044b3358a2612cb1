"""Energies, forces, Hessian-vector products and Hessians of any structures with any engine or potential."""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from hesse.curvature import evaluate_structures
from hesse.datasets.io import StructuresLike, as_structures
from hesse.engines.engine_inputs import EngineLike, as_engine
from hesse.engines.potential_engine import PotentialEngine
from hesse.errors import GeometryError, LabelShapeError, RequestError, check_whole_numbers
from hesse.probes import Probe, ProbeSeed, Rademacher
from hesse.structures import Properties, Request, Structure, collate

__all__ = ["ProbesLike", "compute"]

ProbesLike: TypeAlias = "int | Probe | ArrayLike | Tensor | None"
"""Directions of Hessian-vector products: their number, a Probe, or the directions themselves."""


def compute(
    structures: StructuresLike,
    engine: EngineLike,
    *,
    energy: bool = True,
    forces: bool = False,
    hessian: bool = False,
    probes: ProbesLike = None,
    seed: int = 0,
    stress: bool = False,
    atomic_energies: bool = False,
    outputs: Collection[str] = (),
) -> Properties:
    """Compute properties of structures with any engine or potential.

    Args:
        structures: ASE Atoms, a Structure, a list of them, a Dataset, or the path of a file.
        engine: a name (`gfn2`), the path of a model, an Engine, a Potential or an ASE calculator.
        energy: energies, eV.
        forces: forces, eV/Å.
        hessian: full Hessians, eV/Å²; `result.hessian_of(i)` is the one of structure i, `(n, 3, n, 3)`.
        probes: directions `v` of Hessian-vector products `H v`: how many random ones to draw per structure (Rademacher,
            independent signs), a Probe such as `hesse.Gaussian(2)`, or the directions themselves, `[probes, atoms, 3]`
            or `[atoms, 3]`, where atoms are those of all structures end to end.
        seed: seed of the random directions, which are a function of it and of each structure's id.
        stress: stress of periodic structures, eV/Å³.
        atomic_energies: energies of single atoms, eV (potentials only).
        outputs: further quantities by name (`hesse.register_quantity`), of engines and potentials that have them.

    Returns:
        The properties of all structures, float64, on the CPU, in the order of `structures`.

    Raises:
        RequestError: not structures, not an engine, or a property that the engine does not have.
        LabelShapeError: directions that do not fit the atoms.
        GeometryError: stress of structures none of which is periodic in all directions.
        HesseError: all that the engine raises; the message names the structure.
    """
    inputs = as_structures(structures)
    source = as_engine(engine)
    check_whole_numbers(seed=seed)
    directions = _directions(inputs, probes, seed)
    request = Request(
        energy=energy,
        forces=forces,
        probes=directions,
        hessian=hessian,
        stress=stress,
        atomic_energies=atomic_energies,
        **_further(outputs),
    )
    if isinstance(source, PotentialEngine):
        return evaluate_structures(source.potential, inputs, request)
    if stress and not any(all(structure.pbc) for structure in inputs):
        raise GeometryError("stress was requested, but no structure is periodic in all three directions")
    if atomic_energies:
        raise RequestError(f"{source.level} gives energies of whole structures only: leave out atomic_energies")
    results, start = [], 0
    for structure in inputs:
        stop = start + len(structure)
        local = None if directions is None else directions[:, start:stop]
        wants_stress = stress and all(structure.pbc)
        results.append(source.compute(structure, request.replace(probes=local, stress=wants_stress)))
        start = stop
    return Properties.concatenate(results)


def _directions(
    structures: tuple[Structure, ...], probes: ProbesLike, seed: int
) -> Float[Tensor, "probes atoms 3"] | None:
    if probes is None:
        return None
    if not isinstance(probes, Probe) and np.ndim(probes) == 0:  # a text is no number either
        count = _number(probes)
        if count == 0:
            return None
        probes = Rademacher(count)
    if isinstance(probes, Probe):
        return probes.draw(collate(list(structures), 0.1), ProbeSeed(seed))
    try:
        array = torch.as_tensor(probes, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RequestError(f"probes: expected a number of directions, a Probe or an array ({error})") from error
    atoms = sum(len(s) for s in structures)
    if array.dim() == 2:
        array = array[None]
    if array.dim() != 3 or array.shape[1:] != (atoms, 3):
        raise LabelShapeError(
            f"probes of shape {tuple(array.shape)}, expected [probes, {atoms}, 3] for the atoms of all "
            f"{len(structures)} structures, end to end"
        )
    return array


def _number(probes: object) -> int:
    """The number of random directions. Raises RequestError for what is no whole number."""
    try:
        count = -1 if isinstance(probes, bool | np.bool_) else operator.index(probes)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        count = -1
    if count < 0:
        raise RequestError(
            f"probes: expected a whole number of directions from 0, a Probe or an array of directions, got {probes!r}"
        )
    return count


def _further(outputs: Collection[str] | None) -> dict[str, bool]:
    """Further quantities as arguments of a Request."""
    names = [outputs] if isinstance(outputs, str) else list(outputs or ())
    own = sorted({"energy", "forces", "hessian", "stress", "atomic_energies", "probes"} & set(names))
    if own:
        raise RequestError(f"outputs: {own[0]} has its own argument: {own[0]}=True")
    return dict.fromkeys(names, True)
