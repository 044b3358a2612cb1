"""The part of a Hessian that belongs to some atoms, from the columns of these atoms alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray as Array

from hesse.engines import Engine
from hesse.structures import Request, Structure

__all__ = ["PartialHessian", "hessian_of_atoms"]


@dataclass(frozen=True, eq=False)
class PartialHessian:
    """The Hessian of some atoms, the others being frozen.

    Attributes:
        energy: eV.
        forces: eV/Å, `[n, 3]`, on all atoms.
        hessian: eV/Å², `[m, 3, m, 3]`, symmetric.
        error: estimated root mean square error of its elements, eV/Å²; None if the engine estimates none.
    """

    energy: float
    forces: Float[Array, "n 3"]
    hessian: Float[Array, "m 3 m 3"]
    error: float | None


def hessian_of_atoms(structure: Structure, engine: Engine, atoms: Int[Array, "m"]) -> PartialHessian:
    """Compute the Hessian of some atoms: one Hessian-vector product for each of their coordinates.

    Args:
        structure: the structure.
        engine: the engine; frozen atoms cost nothing beyond what they add to each gradient.
        atoms: indices of the atoms that move, in ascending order.

    Returns:
        Their Hessian, with energy and forces of the structure.

    Raises:
        EngineError: the engine failed.
        GeometryError: overlapping atoms.
    """
    m, n = len(atoms), len(structure)
    probes = torch.zeros(3 * m, n, 3, dtype=torch.float64)
    rows = torch.arange(3 * m)
    probes[rows, torch.as_tensor(np.repeat(atoms, 3)), rows % 3] = 1.0
    labels = engine.compute(structure, Request(forces=True, probes=probes))
    assert labels.energy is not None
    assert labels.forces is not None
    assert labels.hvp is not None
    columns = labels.hvp[:, torch.as_tensor(atoms)].numpy().reshape(3 * m, 3 * m)
    # Elements (i, j) and (j, i) are independent: the variance of their mean is a quarter of that of their difference.
    skew = columns - columns.T
    asymmetry = 0.5 * float(np.sqrt(np.sum(skew**2) / max(3 * m * (3 * m - 1), 1)))
    errors = labels.hvp_error
    error = None if errors is None else max(asymmetry, float((0.5 * errors.square().mean()).sqrt()))
    block = 0.5 * (columns + columns.T).reshape(m, 3, m, 3)
    return PartialHessian(float(labels.energy[0]), labels.forces.numpy(), block, error)
