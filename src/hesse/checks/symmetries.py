"""Symmetries and sum rules that energies, forces and curvature of every potential must obey.

Signature of all checks: see `hesse.checks.catalog.Check`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.checks.check_result import Outcome, compare_to_limit
from hesse.checks.context import CheckContext, Predictions, largest_error, random_directions, relative_error
from hesse.structures import Structure


def check_translation(context: CheckContext) -> Outcome:
    """Energies, forces and `H v` of shifted molecules."""
    structures = context.molecules
    along = random_directions(structures, seed=11)
    shift = np.array([1.3, -2.1, 3.7])
    return _compare(
        context,
        context.predict([s.with_positions(s.positions + shift) for s in structures], along),
        context.predict(structures, along),
        "of shifted molecules",
    )


def check_rotation(context: CheckContext) -> Outcome:
    """Energies, forces and `H v` of rotated molecules, rotated back."""
    return _compare_transformed(context, _rotation(seed=12), "of rotated molecules")


def check_mirror(context: CheckContext) -> Outcome:
    """Energies, forces and `H v` of mirror images, mirrored back."""
    return _compare_transformed(context, _rotation(seed=13) @ np.diag([1.0, 1.0, -1.0]), "of mirror images")


def check_permutation(context: CheckContext) -> Outcome:
    """Energies, forces and `H v` with the atoms in another order, put back in order."""
    rng = np.random.default_rng(14)
    structures = context.molecules
    along = random_directions(structures, seed=15)
    orders = [rng.permutation(len(s)) for s in structures]
    shuffled = [Structure(s.numbers[o], s.positions[o]) for s, o in zip(structures, orders, strict=True)]
    permuted = context.predict(shuffled, [v[o] for v, o in zip(along, orders, strict=True)])
    inverse_orders = [np.argsort(o) for o in orders]
    ordered = Predictions(
        permuted.energy,
        [f[b] for f, b in zip(permuted.forces, inverse_orders, strict=True)],
        [p[b] for p, b in zip(permuted.hvp, inverse_orders, strict=True)],
    )
    return _compare(context, ordered, context.predict(structures, along), "with the atoms in another order")


def check_translational_sum_rule(context: CheckContext) -> Outcome:
    """`H t = 0` for a translation t of all atoms."""
    structures = context.molecules
    shifts = [np.tile([0.5, -1.0, 0.7], (len(s), 1)) for s in structures]
    products = context.predict(structures, shifts).hvp
    return _relative_to_curvature(context, structures, products, "|H t| of a translation t, relative to |H v|")


def check_rotational_sum_rule(context: CheckContext) -> Outcome:
    """`H (e × r) = e × ∇E` for a rotation about e."""
    structures, axis = context.molecules, np.array([0.6, -0.3, 0.8])
    rotations = [np.cross(axis, s.positions) for s in structures]
    predictions = context.predict(structures, rotations)
    violations = [p - np.cross(axis, -f) for p, f in zip(predictions.hvp, predictions.forces, strict=True)]
    return _relative_to_curvature(context, structures, violations, "H(e×r) against e×∇E, relative to |H v|")


def check_batch(context: CheckContext) -> Outcome:
    """Structures in one batch, in two orders, compared with each one alone."""
    structures = context.molecules
    along = random_directions(structures, seed=16)
    alone = context.predict(structures, along)
    outcome = _compare(
        context, context.predict(structures, along, batched=True), alone, "in a batch, compared with alone"
    )
    reversed_batch = context.predict(structures[::-1], along[::-1], batched=True)
    reordered = Predictions(reversed_batch.energy[::-1], reversed_batch.forces[::-1], reversed_batch.hvp[::-1])
    other = _compare(context, reordered, alone, "in a batch of another order, compared with alone")
    return other if outcome.status == "pass" else outcome


def check_neighbor_list(context: CheckContext) -> Outcome:
    """Neighbors beyond the cutoff in the list change nothing."""
    along = random_directions(context.molecules, seed=17)
    actual = context.predict(context.molecules, along, cutoff=context.potential.cutoff + 2.5)
    expected = context.predict(context.molecules, along)
    return _compare(context, actual, expected, "with neighbors listed 2.5 Å further")


def check_extensive(context: CheckContext) -> Outcome:
    """Two copies far apart have twice the energy, and the same forces and curvature as one."""
    shift = np.array([10.0 * context.potential.cutoff + 30.0, 0.0, 0.0])
    structures = context.molecules
    along = random_directions(structures, seed=18)
    pairs = [
        Structure(np.tile(s.numbers, 2), np.concatenate([s.positions, s.positions + shift]), id=f"two of {s.id}")
        for s in structures
    ]
    actual = context.predict(pairs, [np.tile(v, (2, 1)) for v in along])
    alone = context.predict(structures, along)
    expected = Predictions(
        2 * alone.energy, [np.tile(f, (2, 1)) for f in alone.forces], [np.tile(p, (2, 1)) for p in alone.hvp]
    )
    return _compare(context, actual, expected, f"of two copies {shift[0]:.0f} Å apart, compared with twice one")


def _compare_transformed(context: CheckContext, matrix: Float[Array, "3 3"], description: str) -> Outcome:
    structures = context.molecules
    along = random_directions(structures, seed=19)
    transformed = context.predict(
        [s.with_positions(s.positions @ matrix.T) for s in structures], [v @ matrix.T for v in along]
    )
    transformed_back = Predictions(
        transformed.energy, [f @ matrix for f in transformed.forces], [p @ matrix for p in transformed.hvp]
    )
    return _compare(context, transformed_back, context.predict(structures, along), description)


def _compare(context: CheckContext, actual: Predictions, expected: Predictions, description: str) -> Outcome:
    error, name = largest_error(context, actual, expected)
    return compare_to_limit(error, context.tolerance(1e-6, 1e-3), f"{name} {description}, relative")


def _relative_to_curvature(
    context: CheckContext, structures: Sequence[Structure], violations: Sequence[Float[Array, "n 3"]], description: str
) -> Outcome:
    products = context.predict(structures, random_directions(structures, seed=20)).hvp
    size = float(np.abs(np.concatenate(products)).max())
    violation = np.concatenate(list(violations))
    return compare_to_limit(
        relative_error(violation, np.zeros_like(violation), size), context.tolerance(1e-6, 1e-3), description
    )


def _rotation(seed: int) -> Float[Array, "3 3"]:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return np.asarray(q if np.linalg.det(q) > 0 else -q)
