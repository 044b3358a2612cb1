"""Answers that are no numbers are no answers."""

from __future__ import annotations

import torch

from hesse.errors import EngineError
from hesse.structures import Batch, Properties, segment_ids

__all__ = ["check_finite"]


def check_finite(batch: Batch, predictions: Properties) -> None:
    """Raise EngineError, naming the structures, where energies, forces, products or Hessians are not finite."""
    checks = []
    if predictions.energy is not None:
        checks.append((predictions.energy, torch.arange(len(batch), device=batch.structure_index.device)))
    if predictions.forces is not None:
        checks.append((predictions.forces, batch.structure_index))
    if predictions.hvp is not None:
        checks.append((predictions.hvp.transpose(0, 1), batch.structure_index))
    if predictions.hessian is not None:
        checks.append((predictions.hessian, segment_ids(9 * batch.n_atoms**2)))
    for values, structure_index in checks:
        non_finite = ~torch.isfinite(values).reshape(len(values), -1).all(-1)
        if bool(non_finite.any()):
            names = [batch.ids[i] for i in structure_index[non_finite].unique()[:3].tolist()]
            raise EngineError(
                f"the potential's answer is not a finite number for structure {', '.join(map(repr, names))}. "
                "Check the geometry (atoms on top of each other?) and the potential (`hesse check`)."
            )
