"""Error estimates of labels, from the numbers of the method itself and from the violation of sum rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from hesse.datasets import sum_rule_errors
from hesse.structures import Properties, Request, Structure

__all__ = ["CurvatureErrors", "attach_error_estimates"]


@dataclass(frozen=True, eq=False)
class CurvatureErrors:
    """Errors of curvature as the method that computed it estimates them, eV/Å² per component; one number, or one per
    probe.

    Attributes:
        method: truncation, noise, asymmetry and thresholds: independent of what the sum rules reveal.
        grid: error caused by an integration grid; zero without one.
        invisible_noise: noise that the method itself cannot measure. It is added where no rotational sum rule exists
            (crystals), since that rule would have revealed it.
    """

    method: float | Float[np.ndarray, "k"] = 0.0
    grid: float | Float[np.ndarray, "k"] = 0.0
    invisible_noise: float | Float[np.ndarray, "k"] = 0.0


def attach_error_estimates(
    structure: Structure | Sequence[Structure],
    labels: Properties,
    request: Request,
    *,
    hvp_errors: CurvatureErrors | None = None,
    hessian_errors: CurvatureErrors | None = None,
) -> Properties:
    """Add error estimates to properties.

    The rotational sum rule reveals every kind of error (noise, a bias of the gradient, a grid that does not rotate with
    the molecule), but rotations are not a symmetry of crystals. The translational one reveals less, because many
    programs remove the net force.

    Args:
        structure: the structure, or several; the errors of a method are then the same for all.
        labels: their properties, with forces (the rotational sum rule needs them).
        request: the requested properties; forces that were not requested are removed.
        hvp_errors: errors of the Hessian-vector products as their method estimates them.
        hessian_errors: the same for the Hessian.

    Returns:
        The properties with `forces_error` (eV/Å), `hvp_error` and `hessian_error` (eV/Å²), root mean square per
        component.
    """
    violations = sum_rule_errors([structure] if isinstance(structure, Structure) else structure, labels)
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
        # The asymmetry contains already what the sum rules reveal.
        changes["hessian_error"] = visible.clamp(min=float(errors.method))
    return labels.replace(**changes)


def _combine_with_grid(visible: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Sum rules and grid forces estimate the same error: root of their mean square."""
    return torch.where(grid > 0, torch.sqrt((visible**2 + grid**2) / 2.0), visible)


def _larger_violation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The larger of two violations; NaN (a sum rule that does not apply) counts as zero."""
    return torch.fmax(first, second).nan_to_num(0.0)
