"""Search for discontinuities of the energy and its derivatives along a path, by bisection.

The change of a continuous function across an interval shrinks with the interval; that across a jump does not. Intervals
to search are those whose change differs most from that of their neighbors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.checks.context import CheckContext
from hesse.curvature.hvp import gradients
from hesse.potential import Potential
from hesse.structures import Batch, Structure

__all__ = ["Discontinuity", "ScanPath", "find_discontinuities"]

BISECTIONS = 16
COMPARED_BISECTIONS = 5
"""The change across the last interval is compared with that this many bisections earlier: for a continuous function it
is smaller by 2⁵, for a jump it is the same."""
JUMP_RATIO = 0.5
ROUNDING = 1e-9
"""Changes below this, relative to the size of the quantity along the path, are rounding errors."""
CANDIDATES = 3


@dataclass(frozen=True)
class ScanPath:
    """Structures along a path.

    Attributes:
        structure_at: the structure as a function of the path coordinate (Å).
        start: first coordinate, Å.
        end: last coordinate, Å.
        along: direction `[atoms, 3]` of the second and third derivatives.
        points: number of grid points of the search.
    """

    structure_at: Callable[[float], Structure]
    start: float
    end: float
    along: Float[Array, "n 3"]
    points: int


@dataclass(frozen=True)
class Discontinuity:
    """A discontinuity of the energy or of one of its derivatives along a path.

    Attributes:
        order: 0 for the energy, 1 for the forces, 2 for `H v`, 3 for the third derivative.
        coordinate: on the path, Å.
        size: largest component of the jump, eV/Å^order.
        relative: the jump divided by the range of the quantity along the path.
    """

    order: int
    coordinate: float
    size: float
    relative: float


def find_discontinuities(
    context: CheckContext, path: ScanPath, brackets: Sequence[tuple[float, float]] = ()
) -> list[Discontinuity]:
    """Discontinuities along a path.

    Args:
        context: the potential.
        path: structures to search.
        brackets: intervals of the coordinate (Å) that are searched in any case.

    Returns:
        Discontinuities, lowest order first; at each coordinate only the one of lowest order, from which the others
        follow.
    """
    grid = np.linspace(path.start, path.end, path.points)
    values = _profile(context, path, grid)
    sizes = [float(np.abs(v - v.mean(0)).max()) for v in values]
    rounding = [ROUNDING * size for size in sizes]
    rounding[0] += 10 * float(np.abs(values[0]).max()) * torch.finfo(torch.float64).eps
    searches = [(order, *bracket) for order in range(len(values)) for bracket in brackets]
    for order, value in enumerate(values):
        searches += [(order, grid[k], grid[k + 1]) for k in _candidate_intervals(value)]
    discontinuities = []
    for (order, *_), (coordinate, size, stays) in zip(searches, _bisect(context, path, searches), strict=True):
        if stays and size > rounding[order]:
            discontinuities.append(Discontinuity(order, coordinate, size, size / sizes[order]))
    return _lowest_order_at_each_coordinate(discontinuities)


def _candidate_intervals(values: Float[Array, "points components"]) -> list[int]:
    """Intervals whose change differs most from the mean of their neighbors, relative to the local median difference."""
    change = np.diff(values, axis=0)
    departure = np.abs(change[1:-1] - 0.5 * (change[2:] + change[:-2])).max(1)
    usual = np.array([np.median(departure[max(0, k - 6) : k + 7]) for k in range(len(departure))])
    ratio = departure / np.where(usual > 0, usual, np.inf)
    return [int(k) + 1 for k in np.argsort(ratio)[::-1][:CANDIDATES]]


def _bisect(
    context: CheckContext, path: ScanPath, searches: Sequence[tuple[int, float, float]]
) -> list[tuple[float, float, bool]]:
    """For each search (order, low, high): final coordinate, change across the last interval, and whether it is a jump.
    All searches advance together, with one batch per bisection."""
    low, high = np.array([s[1] for s in searches]), np.array([s[2] for s in searches])
    orders = [s[0] for s in searches]
    below, above = (
        _select_orders(_profile(context, path, low), orders),
        _select_orders(_profile(context, path, high), orders),
    )
    changes = []
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        between = _select_orders(_profile(context, path, middle), orders)
        for k, value in enumerate(between):
            if _max_difference(below[k], value) >= _max_difference(value, above[k]):
                high[k], above[k] = middle[k], value
            else:
                low[k], below[k] = middle[k], value
        changes.append([_max_difference(a, b) for a, b in zip(below, above, strict=True)])
    history = np.array(changes)
    stays = history[-1] > JUMP_RATIO * history[-1 - COMPARED_BISECTIONS]
    return [(float(m), float(c), bool(s)) for m, c, s in zip(0.5 * (low + high), history[-1], stays, strict=True)]


def _max_difference(a: Float[Array, "components"], b: Float[Array, "components"]) -> float:
    return float(np.abs(a - b).max())


def _select_orders(
    values: Sequence[Float[Array, "points components"]], orders: Sequence[int]
) -> list[Float[Array, "components"]]:
    return [values[order][k] for k, order in enumerate(orders)]


def _lowest_order_at_each_coordinate(jumps: Sequence[Discontinuity]) -> list[Discontinuity]:
    unique: list[Discontinuity] = []
    for jump in sorted(jumps, key=lambda j: (j.order, -j.size)):
        if all(abs(jump.coordinate - other.coordinate) > 1e-4 for other in unique):
            unique.append(jump)
    return unique


def _profile(
    context: CheckContext, path: ScanPath, coordinates: Float[Array, "points"]
) -> list[Float[Array, "points components"]]:
    """Energy, forces, H v and the third derivative along v at coordinates of the path; fewer if the potential cannot be
    differentiated further."""
    batch = context.batch([path.structure_at(float(s)) for s in coordinates])
    along = torch.from_numpy(np.tile(path.along, (len(coordinates), 1))).to(batch.positions)
    derivatives = _derivatives(context.potential, batch, along)
    return [p.detach().to("cpu", torch.float64).reshape(len(coordinates), -1).numpy() for p in derivatives]


def _derivatives(potential: Potential, batch: Batch, along: torch.Tensor) -> list[torch.Tensor]:
    """Reverse mode, one order after the other, as far as the graph of the potential goes."""
    positions = batch.positions.detach().requires_grad_(True)
    with torch.enable_grad():
        energy = batch.sum_over_atoms(potential(batch.with_positions(positions=positions)))
        derivatives, target = [energy], energy.sum()
        for _ in range(3):
            if not target.requires_grad:
                break
            try:
                (gradient,) = gradients(target, [positions], create_graph=True)
            except RuntimeError:  # the graph has no further derivative
                break
            derivatives.append(gradient)
            target = (gradient * along).sum()
    return derivatives
