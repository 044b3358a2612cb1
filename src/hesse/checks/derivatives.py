"""Existence and correctness of first, second and third derivatives.

Signature of all checks: see `hesse.checks.catalog.Check`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray as Array
from torch import Tensor, nn

from hesse.checks.check_result import Outcome, compare_to_limit, info, skipped
from hesse.checks.context import CheckContext, random_directions, relative_error
from hesse.checks.romberg import derivative_error
from hesse.curvature import evaluate
from hesse.structures import Request, Structure

LOOP_RADIUS = 0.02
LOOP_POINTS = (24, 48)
LOOP_LIMIT = 1e-5
NEEDS_FLOAT64 = "finite differences need float64"


def check_second_derivatives(context: CheckContext) -> Outcome:
    """`H v` of ordinary molecules exists, is finite, and is not zero everywhere."""
    predictions = context.predict(context.molecules, random_directions(context.molecules, seed=1))
    if not predictions.all_finite():
        return Outcome("fail", detail="energies, forces or H v of an ordinary molecule are not finite numbers")
    size = float(np.sqrt(np.mean(np.concatenate(predictions.hvp) ** 2)))
    if size == 0:
        return Outcome("fail", 0.0, detail="H v is exactly zero for every molecule and direction")
    return Outcome("pass", size, detail=f"H v of random directions is {size:.3g} eV/Å² large")


def check_forces_finite_difference(context: CheckContext) -> Outcome:
    """Forces compared with finite differences of the energy along a random direction for each molecule."""
    if context.dtype != torch.float64:
        return skipped(NEEDS_FLOAT64)
    results = []
    for structure, direction in zip(context.molecules, random_directions(context.molecules, seed=2), strict=True):
        along = direction / np.abs(direction).max()
        force = context.predict([structure]).forces[0]

        def difference(h: float, structure: Structure = structure, along: Array = along) -> Array:
            plus, minus = context.predict(_displaced_both_ways(structure, h * along)).energy
            return np.array((plus - minus) / (2 * h))

        # Relative to the size of the forces: the slope in one direction may be zero by accident.
        size = float(np.linalg.norm(force) * np.linalg.norm(along) / np.sqrt(along.size))
        results.append(derivative_error(difference, np.array(-np.sum(force * along)), size=size, fine_step=1e-5))
    return _convergence_outcome(results, "forces compared with −∂E")


def check_hvp_finite_difference(context: CheckContext) -> Outcome:
    """`H v` compared with finite differences of the forces along v."""
    if context.dtype != torch.float64:
        return skipped(NEEDS_FLOAT64)
    results = []
    for structure, direction in zip(context.molecules, random_directions(context.molecules, seed=3), strict=True):
        along = direction / np.abs(direction).max()
        product = context.predict([structure], [along]).hvp[0]

        def difference(h: float, structure: Structure = structure, along: Array = along) -> Array:
            plus, minus = context.predict(_displaced_both_ways(structure, h * along)).forces
            return (minus - plus) / (2 * h)

        size = float(np.abs(product).max())
        results.append(derivative_error(difference, product, size=size, fine_step=1e-5))
    return _convergence_outcome(results, "H v compared with −∂F")


def check_hessian_symmetry(context: CheckContext) -> Outcome:
    """`u · H v = v · H u`: second derivatives are symmetric."""
    molecules = (*context.molecules,)
    u, v = random_directions(molecules, seed=4), random_directions(molecules, seed=5)
    hu, hv = context.predict(molecules, u).hvp, context.predict(molecules, v).hvp
    errors = []
    for a, b, ha, hb in zip(u, v, hu, hv, strict=True):
        size = float(np.linalg.norm(a) * np.linalg.norm(hb))
        errors.append(relative_error(np.array(np.sum(a * hb)), np.array(np.sum(b * ha)), size))
    return compare_to_limit(
        _largest(errors), context.tolerance(1e-8, 1e-3), "u·Hv compared with v·Hu, relative to |u||Hv|"
    )


def check_closed_loop(context: CheckContext) -> Outcome:
    """Work of the forces along a small circle in configuration space; it is zero if the forces have an energy."""
    if context.dtype != torch.float64:
        return skipped(NEEDS_FLOAT64)
    first, second = random_directions(context.molecules, seed=6), random_directions(context.molecules, seed=7)
    values, inconclusive = [], False
    for structure, a, b in zip(context.molecules, first, second, strict=True):
        a, b = a / np.abs(a).max(), b / np.abs(b).max()
        coarse, fine = (_work(context, structure, a, b, points) for points in LOOP_POINTS)
        # For smooth forces the trapezoid rule converges exponentially; where they jump, its own error dominates.
        if fine > LOOP_LIMIT and abs(fine - coarse) > 0.01 * fine:
            inconclusive = True
        else:
            values.append(fine)
    if inconclusive and _largest(values) <= LOOP_LIMIT:
        return info("the forces jump or have a kink on the loop, so that its work cannot be measured")
    return compare_to_limit(
        _largest(values), LOOP_LIMIT, "work around a closed circle, relative to |F| times its length"
    )


def _work(
    context: CheckContext, structure: Structure, a: Float[Array, "n 3"], b: Float[Array, "n 3"], points: int
) -> float:
    """Work along the circle spanned by a and b (trapezoid rule), divided by |F| and its length (root mean squares)."""
    angles = (2 * np.pi * np.arange(points) / points)[:, None, None]
    positions = structure.positions + LOOP_RADIUS * (np.cos(angles) * a + np.sin(angles) * b)
    tangents = np.cos(angles) * b - np.sin(angles) * a
    forces = np.array(context.predict([structure.with_positions(p) for p in positions], batched=True).forces)
    scale = np.sqrt(np.mean(np.sum(forces**2, axis=(1, 2))) * np.mean(np.sum(tangents**2, axis=(1, 2))))
    return float(abs(np.mean(np.sum(forces * tangents, axis=(1, 2)))) / scale)


def check_parameter_gradient(context: CheckContext) -> Outcome:
    """Gradient of `Σ |H v − y|²` in the parameters, as in a training step, compared with finite differences of the loss
    along a random direction in parameter space."""
    if context.dtype != torch.float64:
        return skipped(NEEDS_FLOAT64)
    parameters = [p for p in context.potential.parameters() if p.requires_grad and p.is_floating_point()]
    if not parameters:
        return skipped("no parameter that can be trained")
    probes = torch.from_numpy(np.concatenate(random_directions(context.molecules, seed=8)))[None].to(context.device)
    batch = context.batch(context.molecules)
    with torch.no_grad():
        product = evaluate(context.potential, batch, Request(probes=probes)).hvp
    assert product is not None
    target = 0.5 * product

    def loss(create_graph: bool) -> Tensor:
        labels = evaluate(context.potential, batch, Request(probes=probes), create_graph=create_graph)
        assert labels.hvp is not None
        return (labels.hvp - target).square().sum()

    value = loss(True)
    if not value.requires_grad:
        return Outcome("fail", detail="autograd finds no dependence of H v on the parameters")
    gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    if not all(bool(torch.isfinite(g).all()) for g in gradients if g is not None):
        return Outcome("fail", detail="the gradient is not finite")
    direction = _random_parameter_direction(parameters)
    contributions = [float((g * d).sum()) for g, d in zip(gradients, direction, strict=True) if g is not None]
    size = float(np.linalg.norm(contributions))

    def difference(h: float) -> Array:
        plus, minus = (_loss_at(parameters, direction, sign * h, lambda: loss(False)) for sign in (1.0, -1.0))
        return np.array((plus - minus) / (2 * h))

    if size == 0 and difference(0.1) == 0:
        return info("H v does not depend on any parameter: curvature labels have no effect on this potential")
    result = derivative_error(difference, np.array(sum(contributions)), size=size, fine_step=1e-6)
    return _convergence_outcome([result], "gradient of an H v loss")


def _random_parameter_direction(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(9)
    direction = []
    for parameter in parameters:
        size = float(parameter.detach().square().mean().sqrt()) or 0.1
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        direction.append((size * noise).to(parameter))
    return direction


def _loss_at(
    parameters: Sequence[nn.Parameter], direction: Sequence[Tensor], step: float, loss: Callable[[], Tensor]
) -> float:
    """Loss after a step along `direction`; the parameters are restored."""
    initial = [p.detach().clone() for p in parameters]
    try:
        with torch.no_grad():
            for parameter, start, component in zip(parameters, initial, direction, strict=True):
                parameter.copy_(start + step * component)
        return float(loss())
    finally:
        with torch.no_grad():
            for parameter, start in zip(parameters, initial, strict=True):
                parameter.copy_(start)


def _displaced_both_ways(structure: Structure, displacement: Float[Array, "n 3"]) -> list[Structure]:
    return [structure.with_positions(structure.positions + sign * displacement) for sign in (1.0, -1.0)]


def _convergence_outcome(results: Sequence[tuple[float, float]], description: str) -> Outcome:
    orders = _format_range([order for _, order in results])
    return compare_to_limit(
        _largest([error for error, _ in results]), 1e-5, f"{description}: differences converge with order {orders}"
    )


def _largest(values: Sequence[float]) -> float:
    return float(np.max(values, initial=0.0))


def _format_range(orders: Sequence[float]) -> str:
    low, high = (f"{round(value, 1) + 0.0:.1f}" for value in (min(orders), max(orders)))
    return low if low == high else f"{low} to {high}"
