"""The error estimate beside every label: what its own numbers say, and at least what symmetry shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from hesse.datasets import identity_defects
from hesse.structures import Labels, Request, Structure

__all__ = ["with_errors"]


def with_errors(
    structure: Structure,
    labels: Labels,
    request: Request,
    *,
    hvp_inner: Float[np.ndarray, "k"] | None = None,
    hvp_hidden: Float[np.ndarray, "k"] | None = None,
    hessian_inner: float = 0.0,
) -> Labels:
    """The labels with `*_error`, root mean square per component; forces that were not asked are dropped.

    Rotations show every kind of error (noise, a bias of the gradient, a grid that does not turn with the molecule), but
    are no symmetry of crystals. Translations show less: many programs remove the net force.

    Args:
        labels: of this one structure, with forces (the rotational identity needs them).
        hvp_inner: eV/Å²; what the method that made the products estimates itself.
        hvp_hidden: eV/Å²; what it cannot see and rotations would show: added where there are none.
        hessian_inner: the same as `hvp_inner`, for the elements of the Hessian.
    """
    defects = identity_defects([structure], labels)
    changes: dict[str, torch.Tensor | None] = {}
    if request.forces:
        changes["forces_error"] = _largest(defects.forces_translation, defects.forces_rotation)
    else:
        changes["forces"] = None
    if labels.hvp is not None:
        shown = _largest(defects.hvp_translation, defects.hvp_rotation)
        if hvp_hidden is not None:
            blind = defects.hvp_rotation.isnan()
            shown = torch.where(blind, torch.hypot(shown, torch.from_numpy(hvp_hidden)[:, None]), shown)
        inner = np.zeros(len(shown)) if hvp_inner is None else hvp_inner
        changes["hvp_error"] = torch.hypot(shown, torch.from_numpy(inner)[:, None])
    if labels.hessian is not None:
        shown = _largest(defects.hessian_translation, defects.hessian_rotation)
        changes["hessian_error"] = torch.fmax(shown, torch.full_like(shown, hessian_inner))
    return replace(labels, **changes)  # type: ignore[arg-type]


def _largest(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The larger of two defects; an identity that does not apply (NaN) shows nothing."""
    return torch.fmax(first, second).nan_to_num(0.0)
