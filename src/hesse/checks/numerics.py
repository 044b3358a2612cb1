"""Precision and repeatability.

Signature of all checks: see `hesse.checks.catalog.Check`.
"""

from __future__ import annotations

import copy

import numpy as np
import torch

from hesse.checks.check_result import Outcome, compare_to_limit, info, skipped
from hesse.checks.context import CheckContext, Predictions, largest_error, random_directions, relative_error
from hesse.curvature import evaluate
from hesse.structures import Request

SHORT_STEP, LONG_STEP = 1e-8, 1e-5
"""Å. In float32 the forces do not change over the short step."""


def check_energy(context: CheckContext) -> Outcome:
    """Energies are finite, and forces are not zero everywhere."""
    any_force = False
    for structure in context.molecules:
        labels = evaluate(context.potential, context.batch([structure]), Request(forces=True))
        assert labels.energy is not None
        assert labels.forces is not None
        if not bool(torch.isfinite(labels.energy).all()):
            return Outcome("fail", detail=f"the energy of an ordinary {structure.id} is not a finite number")
        any_force = any_force or bool((labels.forces != 0).any())
    if not any_force:
        return Outcome("fail", 0.0, detail="the forces of all molecules are exactly zero")
    return Outcome("pass", detail="energies are finite, and forces are not zero")


def check_determinism(context: CheckContext) -> Outcome:
    """Energies and forces of the same structures, computed again, and again after other structures."""
    structures = context.molecules
    first = context.predict(structures)
    again = context.predict(structures)
    context.predict(structures[:1])
    context.predict([s.with_positions(1.02 * s.positions) for s in structures[::-1]], batched=True)
    after = context.predict(structures)
    # NaN is reported by other checks; here NaN equals NaN.
    baseline = _nan_to_num(first)
    (error, name), when = max(
        (largest_error(context, _nan_to_num(again), baseline), "computed twice"),
        (largest_error(context, _nan_to_num(after), baseline), "computed again after other structures"),
    )
    detail = "identical to the last bit" if error == 0 else f"{name}, {when}, relative"
    return compare_to_limit(error, context.tolerance(1e-10, 1e-4), detail)


def _nan_to_num(predictions: Predictions) -> Predictions:
    return Predictions(np.nan_to_num(predictions.energy), [np.nan_to_num(f) for f in predictions.forces], [])


def check_training_mode(context: CheckContext) -> Outcome:
    """Energies, forces and `H v` in training mode, computed twice, equal those in evaluation mode."""
    structures = context.molecules
    along = random_directions(structures, seed=61)
    expected = context.predict(structures, along)
    try:
        context.potential.train()
        actual: list[Predictions] = [context.predict(structures, along) for _ in range(2)]
    finally:
        context.potential.eval()
    repeated, _ = largest_error(context, actual[1], actual[0])
    error, name = largest_error(context, actual[0], expected)
    if not repeated <= context.tolerance(1e-10, 1e-4):
        return compare_to_limit(
            repeated, context.tolerance(1e-10, 1e-4), "in training mode results differ each time (dropout?)"
        )
    return compare_to_limit(
        error, context.tolerance(1e-8, 1e-3), f"{name} in training mode, compared with evaluation mode, relative"
    )


def check_float64(context: CheckContext) -> Outcome:
    """Check that everything is computed in float64: the forces must respond to a displacement of 10⁻⁸ Å."""
    if context.dtype != torch.float64:
        return skipped("the checks run in float32")
    energy = evaluate(context.potential, context.batch(context.molecules[:1]), Request()).energy
    if energy is not None and energy.dtype != torch.float64:
        return Outcome("fail", detail=f"energies are {energy.dtype}")
    errors = []
    for structure, along in zip(context.molecules, random_directions(context.molecules, seed=62), strict=True):
        slopes = []
        for h in (SHORT_STEP, LONG_STEP):
            ends = [
                context.predict([structure.with_positions(structure.positions + s * h * along)]).forces[0]
                for s in (1, -1)
            ]
            slopes.append((ends[1] - ends[0]) / (2 * h))
        # Compared with a longer step and not with H v, which may be wrong for other reasons.
        errors.append(relative_error(*slopes))
    return compare_to_limit(
        float(np.median(errors)), 1e-2, "change of the forces over 10⁻⁸ Å, compared with that over 10⁻⁵ Å, relative"
    )


def check_float32(context: CheckContext) -> Outcome:
    """Curvature of a float32 copy, compared with float64."""
    if context.dtype != torch.float64:
        return skipped("the checks run in float32")
    try:
        single = copy.deepcopy(context.potential).float()
    except Exception as reason:  # third-party code
        return info(f"has no float32 form ({type(reason).__name__}: {reason})")
    # Positions are rounded first, so that both get the same structure.
    rounded = [s.with_positions(s.positions.astype(np.float32).astype(np.float64)) for s in context.molecules]
    along = [v.astype(np.float32).astype(np.float64) for v in random_directions(rounded, seed=63)]
    float32_context = CheckContext(
        single, tuple(rounded), context.crystals, context.elements, torch.float32, context.device
    )
    actual = np.concatenate(float32_context.predict(rounded, along).hvp)
    expected = np.concatenate(context.predict(rounded, along).hvp)
    error = float(np.sqrt(np.mean((actual - expected) ** 2) / np.mean(expected**2)))
    return compare_to_limit(error, 1e-3, "H v in float32, compared with float64, root mean square, relative")
