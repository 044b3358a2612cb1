"""Answers that are no numbers are no answers."""

from __future__ import annotations

import torch

from hesse.errors import EngineError
from hesse.structures import Batch, Labels, owners_of

__all__ = ["require_finite"]


def require_finite(batch: Batch, found: Labels) -> None:
    """Raise EngineError, naming the structures, where energies, forces, products or Hessians are not finite."""
    checks = []
    if found.energy is not None:
        checks.append((found.energy, torch.arange(len(batch), device=batch.owner.device)))
    if found.forces is not None:
        checks.append((found.forces, batch.owner))
    if found.hvp is not None:
        checks.append((found.hvp.transpose(0, 1), batch.owner))
    if found.hessian is not None:
        checks.append((found.hessian, owners_of(9 * batch.n_atoms**2)))
    for values, owner in checks:
        broken = ~torch.isfinite(values).reshape(len(values), -1).all(-1)
        if bool(broken.any()):
            names = [batch.ids[i] for i in owner[broken].unique()[:3].tolist()]
            raise EngineError(
                f"the potential's answer is not a finite number for structure {', '.join(map(repr, names))}. "
                "Check the geometry (atoms on top of each other?) and the potential (`hesse check`)."
            )
