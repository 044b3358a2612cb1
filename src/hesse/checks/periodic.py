"""Periodic structures: supercells, lattice translations, strain.

Signature of all checks: see `hesse.checks.catalog.Check`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy import ndarray as Array

from hesse.checks.check_result import Outcome, compare_to_limit, skipped
from hesse.checks.context import CheckContext, Predictions, largest_error, random_directions, relative_error
from hesse.checks.romberg import derivative_error
from hesse.curvature import evaluate
from hesse.errors import GeometryError, RequestError
from hesse.structures import Request, Structure

REFUSES_PERIODIC = "it refuses periodic structures"


def supports_periodic(context: CheckContext) -> bool:
    """Whether the potential accepts periodic structures; if it does not, it should raise a RequestError."""
    try:
        evaluate(context.potential, context.batch(context.crystals[:1]), Request())
    except (RequestError, GeometryError, NotImplementedError):
        return False
    return True


def check_periodic(context: CheckContext) -> Outcome:
    """A doubled cell, a shifted crystal with atoms moved by lattice vectors, `H t = 0`, and a molecule in a large empty
    cell."""
    if not supports_periodic(context):
        return skipped(REFUSES_PERIODIC)
    crystals = context.crystals
    along = random_directions(crystals, seed=31)
    baseline = context.predict(crystals, along)
    doubled = [_doubled(s) for s in crystals]
    expected_doubled = Predictions(
        2 * baseline.energy, [np.tile(f, (2, 1)) for f in baseline.forces], [np.tile(p, (2, 1)) for p in baseline.hvp]
    )
    rng = np.random.default_rng(32)
    shift = np.array([0.4, -1.3, 2.2])
    shifted = [s.with_positions(s.positions + shift + rng.integers(-2, 3, size=(len(s), 3)) @ s.cell) for s in crystals]
    products = np.concatenate(context.predict(crystals, [np.tile(shift, (len(s), 1)) for s in crystals]).hvp)
    curvature = float(np.abs(np.concatenate(baseline.hvp)).max())
    molecules = context.molecules
    molecule_directions = random_directions(molecules, seed=33)
    boxed = [_in_large_box(s, context.potential.cutoff) for s in molecules]
    results = [
        (
            *largest_error(context, context.predict(doubled, [np.tile(v, (2, 1)) for v in along]), expected_doubled),
            "a doubled cell",
        ),
        (
            *largest_error(context, context.predict(shifted, along), baseline),
            "a shifted crystal, atoms moved by lattice vectors",
        ),
        (relative_error(products, np.zeros_like(products), curvature), "H t", "a crystal"),
        (
            *largest_error(
                context, context.predict(boxed, molecule_directions), context.predict(molecules, molecule_directions)
            ),
            "a molecule in a large empty cell",
        ),
    ]
    error, name, where = max(results, key=lambda f: np.inf if np.isnan(f[0]) else f[0])
    return compare_to_limit(error, context.tolerance(1e-6, 1e-3), f"{name} of {where}, relative")


def check_stress(context: CheckContext) -> Outcome:
    """Stress compared with finite differences of the energy of strained crystals."""
    if not supports_periodic(context):
        return skipped(REFUSES_PERIODIC)
    if context.dtype != torch.float64:
        return skipped("finite differences need float64")
    rng = np.random.default_rng(34)
    errors = []
    for crystal in context.crystals:
        stress = evaluate(context.potential, context.batch([crystal]), Request(stress=True)).stress
        assert stress is not None
        tensor = stress[0].detach().to("cpu", torch.float64).numpy()
        random = rng.normal(size=(3, 3))
        strain = (random + random.T) / np.abs(random + random.T).max()
        volume = abs(np.linalg.det(crystal.cell))

        def difference(h: float, crystal: Structure = crystal, strain: Array = strain, volume: float = volume) -> Array:
            plus, minus = context.predict([_strained(crystal, sign * h * strain) for sign in (1, -1)]).energy
            return np.array((plus - minus) / (2 * h * volume))

        size = float(np.linalg.norm(tensor) * np.linalg.norm(strain))
        errors.append(derivative_error(difference, np.array(np.sum(tensor * strain)), size=size, fine_step=1e-4)[0])
    return compare_to_limit(
        float(np.max(errors)), 1e-5, "stress compared with differences of the energy under strain, relative"
    )


def _doubled(crystal: Structure) -> Structure:
    cell = crystal.cell * np.array([[2.0], [1.0], [1.0]])
    positions = np.concatenate([crystal.positions, crystal.positions + crystal.cell[0]])
    return Structure(np.tile(crystal.numbers, 2), positions, cell=cell, pbc=crystal.pbc)


def _in_large_box(molecule: Structure, cutoff: float) -> Structure:
    side = float(np.ptp(molecule.positions, axis=0).max()) + 5.0 * cutoff + 10.0
    return Structure(molecule.numbers, molecule.positions, cell=side * np.eye(3), pbc=(True, True, True))


def _strained(crystal: Structure, strain: Array) -> Structure:
    deformation = np.eye(3) + strain
    return Structure(crystal.numbers, crystal.positions @ deformation, cell=crystal.cell @ deformation, pbc=crystal.pbc)
