"""How often a potential can be differentiated, and whether its derivatives are those of its energy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray as Array
from torch import Tensor, nn

from hesse.checks.differences import slope_error
from hesse.checks.result import Finding, judged, note, skipped
from hesse.checks.subject import Subject, directions, relative_error
from hesse.curvature import evaluate
from hesse.structures import Request, Structure

__all__ = [
    "check_closed_loop",
    "check_energy_slope",
    "check_force_slope",
    "check_hessian_symmetry",
    "check_parameter_gradient",
    "check_second_derivatives",
]

LOOP_RADIUS = 0.02
LOOP_POINTS = (24, 48)
LOOP_LIMIT = 1e-5
NEEDS_DOUBLE = "finite differences need float64"


def check_second_derivatives(subject: Subject) -> Finding:
    """`H v` of ordinary molecules exists, is finite, and is not zero everywhere."""
    answers = subject.ask(subject.molecules, directions(subject.molecules, seed=1))
    if not answers.finite():
        return Finding("fail", detail="energies, forces or H v of an ordinary molecule are not finite numbers")
    size = float(np.sqrt(np.mean(np.concatenate(answers.hvp) ** 2)))
    if size == 0:
        return Finding("fail", 0.0, detail="H v is exactly zero for every molecule and direction")
    return Finding("pass", size, detail=f"H v of random directions is {size:.3g} eV/Å² large")


def check_energy_slope(subject: Subject) -> Finding:
    """Forces against differences of the energy along a random line through each molecule."""
    if subject.dtype != torch.float64:
        return skipped(NEEDS_DOUBLE)
    found = []
    for structure, line in zip(subject.molecules, directions(subject.molecules, seed=2), strict=True):
        along = line / np.abs(line).max()
        force = subject.ask([structure]).forces[0]

        def difference(h: float, structure: Structure = structure, along: Array = along) -> Array:
            plus, minus = subject.ask(_ends(structure, h * along)).energy
            return np.array((plus - minus) / (2 * h))

        # A slope can vanish by accident; the size of the forces cannot.
        size = float(np.linalg.norm(force) * np.linalg.norm(along) / np.sqrt(along.size))
        found.append(slope_error(difference, np.array(-np.sum(force * along)), size=size, fine=1e-5))
    return _told(found, "forces against −∂E")


def check_force_slope(subject: Subject) -> Finding:
    """`H v` against differences of the forces along v."""
    if subject.dtype != torch.float64:
        return skipped(NEEDS_DOUBLE)
    found = []
    for structure, line in zip(subject.molecules, directions(subject.molecules, seed=3), strict=True):
        along = line / np.abs(line).max()
        product = subject.ask([structure], [along]).hvp[0]

        def difference(h: float, structure: Structure = structure, along: Array = along) -> Array:
            plus, minus = subject.ask(_ends(structure, h * along)).forces
            return (minus - plus) / (2 * h)

        size = float(np.abs(product).max())
        found.append(slope_error(difference, product, size=size, fine=1e-5))
    return _told(found, "H v against −∂F")


def check_hessian_symmetry(subject: Subject) -> Finding:
    """`u · H v = v · H u`: a second derivative has no preferred order."""
    molecules = (*subject.molecules,)
    u, v = directions(molecules, seed=4), directions(molecules, seed=5)
    hu, hv = subject.ask(molecules, u).hvp, subject.ask(molecules, v).hvp
    gaps = []
    for a, b, ha, hb in zip(u, v, hu, hv, strict=True):
        size = float(np.linalg.norm(a) * np.linalg.norm(hb))
        gaps.append(relative_error(np.array(np.sum(a * hb)), np.array(np.sum(b * ha)), size))
    return judged(_largest(gaps), subject.limit(1e-8, 1e-3), "u·Hv against v·Hu, relative to |u||Hv|")


def check_closed_loop(subject: Subject) -> Finding:
    """The work of the forces around a small circle in configuration space, which is zero for every energy surface."""
    if subject.dtype != torch.float64:
        return skipped(NEEDS_DOUBLE)
    first, second = directions(subject.molecules, seed=6), directions(subject.molecules, seed=7)
    values, hidden = [], False
    for structure, a, b in zip(subject.molecules, first, second, strict=True):
        a, b = a / np.abs(a).max(), b / np.abs(b).max()
        coarse, fine = (_work(subject, structure, a, b, points) for points in LOOP_POINTS)
        # On smooth forces the rule converges exponentially; where they jump, what it gives is its own error.
        if fine > LOOP_LIMIT and abs(fine - coarse) > 0.01 * fine:
            hidden = True
        else:
            values.append(fine)
    if hidden and _largest(values) <= LOOP_LIMIT:
        return note("the forces jump or bend on the loop, which hides its work")
    return judged(_largest(values), LOOP_LIMIT, "work around a closed circle, relative to |F| times its length")


def _work(subject: Subject, structure: Structure, a: Float[Array, "n 3"], b: Float[Array, "n 3"], points: int) -> float:
    """Work around the circle spanned by a and b, by the trapezoid rule, over |F| times its length (both root mean
    squares)."""
    angles = (2 * np.pi * np.arange(points) / points)[:, None, None]
    places = structure.positions + LOOP_RADIUS * (np.cos(angles) * a + np.sin(angles) * b)
    tangents = np.cos(angles) * b - np.sin(angles) * a
    forces = np.array(subject.ask([structure.moved(p) for p in places], together=True).forces)
    scale = np.sqrt(np.mean(np.sum(forces**2, axis=(1, 2))) * np.mean(np.sum(tangents**2, axis=(1, 2))))
    return float(abs(np.mean(np.sum(forces * tangents, axis=(1, 2)))) / scale)


def check_parameter_gradient(subject: Subject) -> Finding:
    """The gradient of `Σ |H v − y|²` in the parameters, against differences of that loss along a random line through
    parameter space: what a step of training on curvature takes, without autograd's word for it."""
    if subject.dtype != torch.float64:
        return skipped(NEEDS_DOUBLE)
    parameters = [p for p in subject.potential.parameters() if p.requires_grad and p.is_floating_point()]
    if not parameters:
        return skipped("no parameter that can be trained")
    probes = torch.from_numpy(np.concatenate(directions(subject.molecules, seed=8)))[None].to(subject.device)
    batch = subject.batch(subject.molecules)
    with torch.no_grad():
        known = evaluate(subject.potential, batch, Request(probes=probes)).hvp
    assert known is not None
    target = 0.5 * known

    def loss(graph: bool) -> Tensor:
        labels = evaluate(subject.potential, batch, Request(probes=probes), create_graph=graph)
        assert labels.hvp is not None
        return (labels.hvp - target).square().sum()

    value = loss(True)
    if not value.requires_grad:
        return Finding("fail", detail="H v does not depend on the parameters as autograd sees it")
    gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    if not all(bool(torch.isfinite(g).all()) for g in gradients if g is not None):
        return Finding("fail", detail="the gradient is not finite")
    line = _parameter_line(parameters)
    shares = [float((g * d).sum()) for g, d in zip(gradients, line, strict=True) if g is not None]
    size = float(np.linalg.norm(shares))

    def difference(h: float) -> Array:
        plus, minus = (_loss_at(parameters, line, sign * h, lambda: loss(False)) for sign in (1.0, -1.0))
        return np.array((plus - minus) / (2 * h))

    if size == 0 and difference(0.1) == 0:
        return note("H v does not depend on any parameter: curvature labels teach this potential nothing")
    found = slope_error(difference, np.array(sum(shares)), size=size, fine=1e-6)
    return _told([found], "gradient of an H v loss")


def _parameter_line(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(9)
    line = []
    for parameter in parameters:
        size = float(parameter.detach().square().mean().sqrt()) or 0.1
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        line.append((size * noise).to(parameter))
    return line


def _loss_at(
    parameters: Sequence[nn.Parameter], line: Sequence[Tensor], step: float, loss: Callable[[], Tensor]
) -> float:
    """The loss a step along the line; the parameters are what they were afterwards."""
    before = [p.detach().clone() for p in parameters]
    try:
        with torch.no_grad():
            for parameter, start, move in zip(parameters, before, line, strict=True):
                parameter.copy_(start + step * move)
        return float(loss())
    finally:
        with torch.no_grad():
            for parameter, start in zip(parameters, before, strict=True):
                parameter.copy_(start)


def _ends(structure: Structure, move: Float[Array, "n 3"]) -> list[Structure]:
    return [structure.moved(structure.positions + sign * move) for sign in (1.0, -1.0)]


def _told(found: Sequence[tuple[float, float]], what: str) -> Finding:
    orders = _range([order for _, order in found])
    return judged(_largest([error for error, _ in found]), 1e-5, f"{what}: differences converge with order {orders}")


def _largest(values: Sequence[float]) -> float:
    return float(np.max(values, initial=0.0))


def _range(orders: Sequence[float]) -> str:
    low, high = (f"{round(value, 1) + 0.0:.1f}" for value in (min(orders), max(orders)))
    return low if low == high else f"{low} to {high}"
