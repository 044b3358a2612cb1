"""A trained potential as an engine: exact derivatives, no finite differences. Errors estimated are those of rounding
(and of a model that breaks a symmetry), never of the model against its reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import final

import numpy as np
import torch

from hesse.curvature import evaluate
from hesse.engine import Engine
from hesse.engines.error_estimates import attach_error_estimates
from hesse.errors import EngineError, UnknownElementError
from hesse.potential import Potential
from hesse.structures import Properties, Request, Structure, collate

__all__ = ["PotentialEngine"]


@final
class PotentialEngine(Engine):
    """A potential that answers like any other engine: a teacher, or a model under test.

    Args:
        potential: any `hesse.potential.Potential`; evaluated on its own device and in its own floating-point type.
        level: name of its level of theory in labels ("model:ef_hvp"); the class of the potential by default.
        name: short name for messages.
        settings: what identifies the model further (a digest of its file).
    """

    def __init__(
        self,
        potential: Potential,
        level: str | None = None,
        *,
        name: str = "model",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.potential = potential
        self.level = level or f"model:{type(potential).__name__}"
        self.name = name
        tensors = (t for t in (*potential.parameters(), *potential.buffers()) if t.is_floating_point())
        first = next(tensors, torch.zeros(0, dtype=torch.float64))
        self._dtype = first.dtype
        self._device = first.device
        self.settings = MappingProxyType({**(settings or {}), "dtype": str(self._dtype).removeprefix("torch.")})

    def compute(self, structure: Structure, request: Request) -> Properties:
        """See `Engine.compute`. Raises UnknownElementError for an element that the potential was not made for."""
        known = self.potential.elements
        unknown = sorted({int(z) for z in structure.numbers} - set(known)) if known else []
        if unknown:
            raise UnknownElementError(
                f'structure "{structure.id}": element Z = {unknown[0]} is unknown to {self.level}, '
                f"which knows {sorted(known)}"
            )
        structure.check_no_overlap()
        batch = collate([structure], self.potential.cutoff, dtype=self._dtype, device=self._device)
        # The forces come along with any second derivative, and the rotational identity needs them.
        curvature = request.probes is not None or request.hessian
        full_request = replace(request, forces=request.forces or curvature)
        labels = evaluate(self.potential, batch, full_request).to("cpu", torch.float64)
        for name in ("energy", "forces", "hvp", "hessian", "stress"):
            value = getattr(labels, name)
            if value is not None and not np.isfinite(value.numpy()).all():
                raise EngineError(f'structure "{structure.id}": {self.level} gave a {name} that is not finite')
        return attach_error_estimates(structure, labels, request) if full_request.forces else labels
