"""The error estimate beside every label: what its own numbers say, and at least what symmetry shows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from hesse.datasets import identity_defects
from hesse.structures import Labels, Request, Structure

__all__ = ["OwnErrors", "with_errors"]


@dataclass(frozen=True, eq=False)
class OwnErrors:
    """What a method says of the errors of its curvature, eV/Å² per component; one number, or one per probe.

    Attributes:
        inner: truncation, noise, asymmetry, thresholds: independent of all that symmetry shows.
        grid: what an integration grid does; zero without one.
        hidden: noise that the method cannot see but rotations would show; counts where there are none.
    """

    inner: float | Float[np.ndarray, "k"] = 0.0
    grid: float | Float[np.ndarray, "k"] = 0.0
    hidden: float | Float[np.ndarray, "k"] = 0.0


def with_errors(
    structure: Structure,
    labels: Labels,
    request: Request,
    *,
    hvp: OwnErrors | None = None,
    hessian: OwnErrors | None = None,
) -> Labels:
    """The labels with `*_error`, root mean square per component; forces that were not asked are dropped.

    Rotations show every kind of error (noise, a bias of the gradient, a grid that does not turn with the molecule), but
    are no symmetry of crystals. Translations show less: many programs remove the net force.

    Args:
        labels: of this one structure, with forces (the rotational identity needs them).
        hvp, hessian: what the method that made them says itself.
    """
    defects = identity_defects([structure], labels)
    changes: dict[str, torch.Tensor | None] = {}
    if request.forces:
        changes["forces_error"] = _largest(defects.forces_translation, defects.forces_rotation)
    else:
        changes["forces"] = None
    if labels.hvp is not None:
        own = hvp or OwnErrors()
        inner, grid, hidden = (torch.as_tensor(x).reshape(-1, 1) for x in (own.inner, own.grid, own.hidden))
        shown = _with_grid(_largest(defects.hvp_translation, defects.hvp_rotation), grid)
        shown = torch.where(defects.hvp_rotation.isnan(), torch.hypot(shown, hidden.expand_as(shown)), shown)
        changes["hvp_error"] = torch.hypot(shown, inner.expand_as(shown))
    if labels.hessian is not None:
        own = hessian or OwnErrors()
        shown = _largest(defects.hessian_translation, defects.hessian_rotation)
        shown = _with_grid(shown, torch.as_tensor(own.grid))
        # Asymmetry has counted already what the identities show.
        changes["hessian_error"] = shown.clamp(min=float(own.inner))
    return replace(labels, **changes)  # type: ignore[arg-type]


def _with_grid(shown: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Symmetry and the grid's own forces measure one and the same error: their mean square."""
    return torch.where(grid > 0, torch.sqrt((shown**2 + grid**2) / 2.0), shown)


def _largest(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The larger of two defects; an identity that does not apply (NaN) shows nothing."""
    return torch.fmax(first, second).nan_to_num(0.0)
