"""A potential as an engine: exact derivatives, no finite differences.

The estimated errors are those of rounding, and of a model that violates a symmetry, not those of the model against its
reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import final

import numpy as np
import torch

from hesse.curvature import CompiledEvaluation, evaluate
from hesse.datasets.io import StructuresLike, as_structure
from hesse.engine import ENERGY_AND_FORCES, Engine
from hesse.engines.error_estimates import attach_error_estimates
from hesse.engines.levels import level_with_digest, weights_digest
from hesse.errors import EngineError
from hesse.potential import Potential, check_elements, dtype_and_device, warn_of_charge_states
from hesse.runtime.tensor_files import tensor_digest
from hesse.structures import Properties, Request, check_cell, check_request, collate

__all__ = ["PotentialEngine"]


@final
class PotentialEngine(Engine):
    """A potential as an engine: a teacher, or a model under test.

    Args:
        potential: any `hesse.potential.Potential`; evaluated on its own device and in its own floating-point type.
        level: its level of theory in labels ("model:water.hesse@3f2a9c01b4"); by default the class of the potential and
            a digest of its weights.
        name: short name for messages.
        settings: further settings that identify the model (a digest of its file); by default a digest of its weights.
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
        if level is None:
            level = level_with_digest(f"model:{type(potential).__name__}", weights_digest(potential))
        self.level = level
        self.name = name
        self._dtype, self._device = dtype_and_device(potential)
        self._settings = settings

    @cached_property
    def settings(self) -> Mapping[str, str]:  # type: ignore[override]
        """The given settings, or a digest of the weights; and the floating-point type."""
        settings = self._settings
        if settings is None:
            states = {name: value.detach().cpu() for name, value in self.potential.state_dict().items()}
            settings = {"weights_digest": tensor_digest({}, states)}
        return MappingProxyType({**settings, "dtype": str(self._dtype).removeprefix("torch.")})

    @cached_property
    def compiled(self) -> CompiledEvaluation:
        """Compiled forces of the potential, made once for all who use this engine."""
        return CompiledEvaluation(self.potential)

    def compute(self, structure: StructuresLike, request: Request = ENERGY_AND_FORCES) -> Properties:
        """See `Engine.compute`. ASE Atoms are accepted too.

        Raises:
            UnknownElementError: an element that the potential does not have.
            EngineError: a result that is not finite.
        """
        structure = as_structure(structure)
        check_request(request)
        check_elements(self.potential, structure.numbers, where=f'structure "{structure.id}"', name=self.level)
        check_cell(structure)
        structure.check_no_overlap()
        warn_of_charge_states(self.potential, [structure])
        batch = collate([structure], self.potential.cutoff, dtype=self._dtype, device=self._device)
        # Second derivatives need the forces anyway, and so does the rotational sum rule.
        curvature = request.probes is not None or request.hessian
        full_request = request.replace(forces=request.forces or curvature)
        labels = evaluate(self.potential, batch, full_request).to("cpu", torch.float64)
        for column, value in labels.items():
            is_label = column.kind == "value" and column.quantity.role == "label"
            if is_label and not np.isfinite(value.numpy()).all():
                raise EngineError(f'structure "{structure.id}": {self.level} gave a {column.name} that is not finite')
        return attach_error_estimates(structure, labels, request) if full_request.forces else labels
