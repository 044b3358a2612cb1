"""The error estimate beside every label: what its own numbers say, and at least what symmetry shows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from hesse.datasets import sum_rule_errors
from hesse.structures import Properties, Request, Structure

__all__ = ["CurvatureErrors", "attach_error_estimates"]


@dataclass(frozen=True, eq=False)
class CurvatureErrors:
    """What a method says of the errors of its curvature, eV/Å² per component; one number, or one per probe.

    Attributes:
        inner: truncation, noise, asymmetry, thresholds: independent of all that symmetry shows.
        grid: what an integration grid does; zero without one.
        hidden: noise that the method cannot see but rotations would show; counts where there are none.
    """

    method: float | Float[np.ndarray, "k"] = 0.0
    grid: float | Float[np.ndarray, "k"] = 0.0
    invisible_noise: float | Float[np.ndarray, "k"] = 0.0


def attach_error_estimates(
    structure: Structure,
    labels: Properties,
    request: Request,
    *,
    hvp_errors: CurvatureErrors | None = None,
    hessian_errors: CurvatureErrors | None = None,
) -> Properties:
    """The labels with `*_error`, root mean square per component; forces that were not asked are dropped.

    Rotations show every kind of error (noise, a bias of the gradient, a grid that does not turn with the molecule), but
    are no symmetry of crystals. Translations show less: many programs remove the net force.

    Args:
        labels: of this one structure, with forces (the rotational identity needs them).
        hvp, hessian: what the method that made them says itself.
    """
    violations = sum_rule_errors([structure], labels)
    changes: dict[str, torch.Tensor | None] = {}
    if request.forces:
        changes["forces_error"] = _larger_violation(violations.forces_translation, violations.forces_rotation)
    else:
        changes["forces"] = None
    if labels.hvp is not None:
        errors = hvp_errors or CurvatureErrors()
        method, grid, invisible_noise = (
            torch.as_tensor(x).reshape(-1, 1) for x in (errors.method, errors.grid, errors.invisible_noise)
        )
        visible = _combine_with_grid(_larger_violation(violations.hvp_translation, violations.hvp_rotation), grid)
        visible = torch.where(
            violations.hvp_rotation.isnan(), torch.hypot(visible, invisible_noise.expand_as(visible)), visible
        )
        changes["hvp_error"] = torch.hypot(visible, method.expand_as(visible))
    if labels.hessian is not None:
        errors = hessian_errors or CurvatureErrors()
        visible = _larger_violation(violations.hessian_translation, violations.hessian_rotation)
        visible = _combine_with_grid(visible, torch.as_tensor(errors.grid))
        # Asymmetry has counted already what the identities show.
        changes["hessian_error"] = visible.clamp(min=float(errors.method))
    return replace(labels, **changes)  # type: ignore[arg-type]


def _combine_with_grid(visible: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Symmetry and the grid's own forces measure one and the same error: their mean square."""
    return torch.where(grid > 0, torch.sqrt((visible**2 + grid**2) / 2.0), visible)


def _larger_violation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The larger of two defects; an identity that does not apply (NaN) shows nothing."""
    return torch.fmax(first, second).nan_to_num(0.0)
