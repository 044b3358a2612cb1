"""Curvature from any source of forces, by finite differences, with an error estimate on every label."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from jaxtyping import Float

from hesse.datasets import identity_defects
from hesse.engines.differences import central_difference, richardson
from hesse.engines.engine import Engine, Point, Surface
from hesse.errors import ConfigError, EngineError, GeometryError, LabelShapeError, RequestError
from hesse.structures import Labels, Request, Structure

__all__ = ["Differences", "ForceEngine"]


def _finite_point(surface: Surface, positions: Float[np.ndarray, "n 3"], structure: Structure) -> Point:
    """`surface(positions)`. Raises EngineError when anything in it is not a finite number."""
    point = surface(positions)
    if not (np.isfinite(point.energy) and np.isfinite(point.forces).all()):
        raise EngineError(f'structure "{structure.id}": the engine returned numbers that are not finite')
    return point


@dataclass(frozen=True)
class Differences:
    """How finite differences are taken.

    Attributes:
        step: Å; the largest Cartesian displacement of an atom at the inner points (twice that at the outer ones).
        richardson: fourth-order Hessian-vector products, from four gradients each instead of two.
        hessian_richardson: fourth-order Hessians, from four gradients per coordinate instead of two.

    Raises:
        ConfigError: a step that is not a positive number below 0.1 Å.
    """

    step: float = 1e-3
    richardson: bool = True
    hessian_richardson: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.step) and 0 < self.step < 0.1):
            raise ConfigError(f"the step of finite differences must lie between 0 and 0.1 Å, got {self.step}")

    def settings(self) -> dict[str, str]:
        """As provenance."""
        return {
            "step": f"{self.step:g}",
            "differences": "richardson" if self.richardson else "central",
            "hessian_differences": "richardson" if self.hessian_richardson else "central",
        }


class ForceEngine(Engine):
    """An engine whose program gives energies and forces; curvature comes from differences of forces.

    A Hessian-vector product takes four gradients (two without Richardson) besides the one at the structure itself; a
    Hessian takes two per coordinate and is symmetrised. Errors are estimated from those same gradients and from the
    identities of `hesse.datasets.identities`; see `engines.differences`.

    To add a program, write `surface` and set `name`, `level`, `settings` and `differences`.
    """

    differences: Differences

    @abstractmethod
    def surface(self, structure: Structure) -> Surface:
        """The surface for this structure's species, cell, charge and multiplicity. Calling it raises EngineError when
        the program does not deliver."""

    @final
    def compute(self, structure: Structure, request: Request) -> Labels:
        """See `Engine.compute`. Atomic energies are not available."""
        if request.atomic_energies:
            raise RequestError(f"{self.level} has no atomic energies; only potentials do")
        if request.stress and not all(structure.pbc):
            raise GeometryError(f'structure "{structure.id}": stress needs a cell periodic in all three directions')
        probes = _checked_probes(structure, request)
        structure.require_separated_atoms()
        surface = self.surface(structure)
        here = _finite_point(surface, structure.positions, structure)
        if request.stress and here.stress is None:
            raise RequestError(f"{self.level} ({self.name}) gives no stress")
        curvature = _Curvature(surface, structure, -here.forces, self.differences.step)
        hvp = np.empty_like(probes)
        inner = np.zeros(len(probes))
        for k, probe in enumerate(probes):
            hvp[k], inner[k] = curvature.along(probe, self.differences.richardson)
        hessian, hessian_inner = (
            curvature.dense(self.differences.hessian_richardson) if request.hessian else (None, None)
        )
        second = len(probes) > 0
        labels = Labels.of(
            len(structure),
            energy=here.energy if request.energy else None,
            forces=here.forces,
            probes=probes if second else None,
            hvp=hvp if second else None,
            hessian=hessian,
            stress=here.stress if request.stress else None,
            structure_id=structure.id,
        )
        return _with_errors(structure, labels, request, inner if second else None, hessian_inner)


class _Curvature:
    """Derivatives of the gradient of one structure about one point."""

    def __init__(self, surface: Surface, structure: Structure, gradient: Float[np.ndarray, "n 3"], step: float) -> None:
        self.surface, self.structure, self.origin, self.step = surface, structure, gradient, step

    def along(self, probe: Float[np.ndarray, "n 3"], fourth_order: bool) -> tuple[Float[np.ndarray, "n 3"], float]:
        """`H v`, and the estimated error of its components."""

        def gradient(s: float) -> Float[np.ndarray, "n 3"]:
            moved = self.structure.positions + s * probe
            return -_finite_point(self.surface, moved, self.structure).forces

        epsilon = self.step / float(np.abs(probe).max())
        found = (richardson if fourth_order else central_difference)(gradient, self.origin, epsilon)
        return found.value, float(np.hypot(found.noise, found.truncation))

    def dense(self, fourth_order: bool) -> tuple[Float[np.ndarray, "n 3 n 3"], float]:
        """The symmetrised Hessian, and the estimated error of its elements."""
        n = len(self.structure)
        rows, squares = np.empty((3 * n, 3 * n)), np.empty(3 * n)
        for c in range(3 * n):
            direction = np.zeros(3 * n)
            direction[c] = 1.0
            value, error = self.along(direction.reshape(n, 3), fourth_order)
            rows[c], squares[c] = value.reshape(-1), error**2
        # Element (i, j) and element (j, i) are measured independently: their difference has twice the variance of
        # either, their mean half of it.
        skew = rows - rows.T
        pairs = max(3 * n * (3 * n - 1), 1)
        asymmetry = np.sqrt(np.sum(skew**2) / pairs) / 2.0
        return (0.5 * (rows + rows.T)).reshape(n, 3, n, 3), float(np.hypot(asymmetry, np.sqrt(squares.mean() / 2.0)))


def _checked_probes(structure: Structure, request: Request) -> Float[np.ndarray, "k n 3"]:
    n = len(structure)
    if request.probes is None:
        return np.zeros((0, n, 3))
    probes = request.probes.detach().cpu().to(torch.float64).numpy()
    if probes.ndim != 3 or probes.shape[1:] != (n, 3):
        raise LabelShapeError(f'structure "{structure.id}": probes of shape {probes.shape}, expected [k, {n}, 3]')
    if not np.isfinite(probes).all() or (len(probes) and not np.abs(probes).max((1, 2)).min() > 0):
        raise RequestError(f'structure "{structure.id}": a probe is zero or not finite; it has no direction')
    return probes


def _with_errors(
    structure: Structure,
    labels: Labels,
    request: Request,
    hvp_inner: Float[np.ndarray, "k"] | None,
    hessian_inner: float | None,
) -> Labels:
    """The labels with `*_error`: what the differences say of themselves, and at least what the identities show."""
    defects = identity_defects([structure], labels)
    changes: dict[str, torch.Tensor | None] = {}
    if request.forces:
        changes["forces_error"] = _largest(defects.forces_translation, defects.forces_rotation)
    else:
        changes["forces"] = None
    if hvp_inner is not None:
        shown = _largest(defects.hvp_translation, defects.hvp_rotation)
        changes["hvp_error"] = torch.hypot(shown, torch.from_numpy(hvp_inner)[:, None])
    if hessian_inner is not None:
        shown = _largest(defects.hessian_translation, defects.hessian_rotation)
        changes["hessian_error"] = torch.maximum(shown, torch.full_like(shown, hessian_inner))
    return replace(labels, **changes)  # type: ignore[arg-type]


def _largest(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The larger of two defects. Many programs remove the net force exactly, so that their mean would say too little;
    an identity that does not apply (NaN) shows nothing."""
    return torch.fmax(first, second).nan_to_num(0.0)
