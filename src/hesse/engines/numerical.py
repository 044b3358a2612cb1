"""Curvature from any source of forces, by finite differences, with an error estimate on every label."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float

from hesse.engines.differences import choose_step
from hesse.engines.engine import Engine, EnergyFunction
from hesse.engines.estimates import CurvatureErrors, attach_error_estimates
from hesse.engines.slopes import FiniteDifferenceCurvature, checked_point
from hesse.errors import ConfigError, EngineError, GeometryError, LabelShapeError, RequestError
from hesse.structures import Properties, Request, Structure

__all__ = ["DEFAULT_GRADIENT_NOISE", "AnalyticDerivatives", "FiniteDifferences", "ForceEngine"]

DEFAULT_GRADIENT_NOISE = 1e-6
"""eV/Å; of engines that do not say: a self-consistent program, tightly converged."""


@dataclass(frozen=True)
class FiniteDifferences:
    """How finite differences are taken.

    Attributes:
        step: Å; the largest Cartesian displacement of an atom at the inner points (twice that at the outer ones). None
            picks it by the noise of the engine's gradients, see `engines.differences`.
        richardson: fourth-order Hessian-vector products, from four gradients each instead of two.
        hessian_richardson: fourth-order Hessians, from four gradients per coordinate instead of two.

    Raises:
        ConfigError: a step that is not a positive number below 0.1 Å.
    """

    step: float | None = None
    richardson: bool = False
    hessian_richardson: bool = False

    def __post_init__(self) -> None:
        if self.step is not None and not (np.isfinite(self.step) and 0 < self.step < 0.1):
            raise ConfigError(f"the step of finite differences must lie between 0 and 0.1 Å, got {self.step}")

    def step_for(self, noise: float, fourth_order: bool) -> float:
        """Å; the step given, or the one picked for gradients of this noise (eV/Å)."""
        return choose_step(noise, fourth_order) if self.step is None else self.step

    def settings(self, noise: float = DEFAULT_GRADIENT_NOISE, *, hvp: bool = True, hessian: bool = True) -> dict[str, str]:
        """As provenance, the steps in numbers. `hvp`, `hessian`: whether differences make these at all."""
        settings = {}
        if hvp:
            settings["step"] = f"{self.step_for(noise, self.richardson):g}"
            settings["differences"] = "richardson" if self.richardson else "central"
        if hessian:
            settings["hessian_step"] = f"{self.step_for(noise, self.hessian_richardson):g}"
            settings["hessian_differences"] = "richardson" if self.hessian_richardson else "central"
        return settings


@dataclass(frozen=True, eq=False)
class AnalyticDerivatives:
    """Second derivatives that a program gives itself, eV/Å²; None leaves them to differences.

    Attributes:
        error: eV/Å²; what the program's own thresholds leave, besides all that the identities show.
    """

    hvp: Float[np.ndarray, "k n 3"] | None = None
    hessian: Float[np.ndarray, "n 3 n 3"] | None = None
    error: float = 0.0


class ForceEngine(Engine):
    """An engine whose program gives energies and forces; curvature comes from differences of forces.

    A Hessian-vector product takes two gradients (four with Richardson) besides the one at the structure itself; a
    Hessian takes two per coordinate and is symmetrised. Errors are estimated from those same gradients and from the
    identities of `hesse.datasets.identities`; see `engines.differences`.

    To add a program, write `surface` and set `name`, `level`, `settings`, `differences` and, better than the default,
    `gradient_noise`.

    Attributes:
        gradient_noise: eV/Å per component; by how much gradients at neighbouring points differ without reason
            (`noise_of_gradients` measures it). It picks the step.
    """

    differences: FiniteDifferences
    gradient_noise: float = DEFAULT_GRADIENT_NOISE

    @abstractmethod
    def energy_function(self, structure: Structure) -> EnergyFunction:
        """The surface for this structure's species, cell, charge and multiplicity. Calling it raises EngineError when
        the program does not deliver."""

    def analytic_derivatives(self, structure: Structure, energy_function: EnergyFunction, request: Request) -> AnalyticDerivatives:
        """Whatever of `request` the program differentiates itself; nothing, unless an engine says otherwise."""
        return AnalyticDerivatives()

    @final
    def compute(self, structure: Structure, request: Request) -> Properties:
        """See `Engine.compute`. Atomic energies are not available."""
        if request.atomic_energies:
            raise RequestError(f"{self.level} has no atomic energies; only potentials do")
        if request.stress and not all(structure.pbc):
            raise GeometryError(f'structure "{structure.id}": stress needs a cell periodic in all three directions')
        probes = _checked_probes(structure, request)
        structure.check_no_overlap()
        energy_function = self.energy_function(structure)
        point = checked_point(energy_function, structure.positions, structure)
        if request.stress and point.stress is None:
            raise RequestError(f"{self.level} ({self.name}) gives no stress")
        analytic = self.analytic_derivatives(structure, energy_function, request)
        hvp, hessian = analytic.hvp, analytic.hessian
        hvp_errors = hessian_errors = CurvatureErrors(analytic.error)
        curvature = FiniteDifferenceCurvature(energy_function, structure, -point.forces, self.gradient_noise)
        if hvp is None and len(probes):
            step = self.differences.step_for(self.gradient_noise, self.differences.richardson)
            hvp, hvp_errors = curvature.hvp(probes, step, self.differences.richardson)
        if hessian is None and request.hessian:
            step = self.differences.step_for(self.gradient_noise, self.differences.hessian_richardson)
            hessian, hessian_errors = curvature.hessian(step, self.differences.hessian_richardson)
        for name, value in (("product", hvp), ("Hessian", hessian)):
            if value is not None and not np.isfinite(value).all():
                raise EngineError(f'structure "{structure.id}": {self.level} gave a {name} that is not finite')
        labels = Properties.single(
            len(structure),
            energy=point.energy if request.energy else None,
            forces=point.forces,
            probes=probes if len(probes) else None,
            hvp=hvp if len(probes) else None,
            hessian=hessian,
            stress=point.stress if request.stress else None,
            structure_id=structure.id,
        )
        return attach_error_estimates(structure, labels, request, hvp_errors=hvp_errors, hessian_errors=hessian_errors)


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
