"""What takes a training step: a potential through Hesse, and (in `hesse.recipes.peers`) other programs on their own."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from torch import Tensor

from hesse.datasets import Dataset
from hesse.errors import CompilationError
from hesse.potential import Potential
from hesse.recipes.timing import Work
from hesse.training.compiled import CompiledGradient
from hesse.training.step import GradientStep

__all__ = ["SCHEMES", "WEIGHTS", "OwnSubject", "StepSubject", "Task"]

SCHEMES = ("ef", "ef_hvp", "ef_h")
"""Loss of energies and forces; with Hessian-vector products; with full Hessians."""

_NOTHING = dict.fromkeys(("energy", "forces", "hvp", "hessian", "atomic_energies", "stress", "penalty"), 0.0)
WEIGHTS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "ef": {**_NOTHING, "energy": 1.0, "forces": 1.0},
        "ef_hvp": {**_NOTHING, "energy": 1.0, "forces": 1.0, "hvp": 1.0},
        "ef_h": {**_NOTHING, "energy": 1.0, "forces": 1.0, "hessian": 1.0},
    }
)
"""Weights of the loss by scheme."""


@dataclass(frozen=True, eq=False)
class Task:
    """A step to take.

    Attributes:
        data: the structures of the step, with labels.
        scheme: one of `SCHEMES`.
        mode: "eager" or "compiled".
        dtype, device: of the calculation.
        parts: how many graphs of their own the structures are spread over (memory is that of the largest).
    """

    data: Dataset
    scheme: str
    mode: str = "eager"
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    parts: int = 1

    def of(self, scheme: str) -> Task:
        """The same with another scheme."""
        return replace(self, scheme=scheme)

    def indices(self) -> list[list[int]]:
        """The structures of each part."""
        chunks = torch.arange(len(self.data)).chunk(self.parts)
        return [chunk.tolist() for chunk in chunks]


class StepSubject(ABC):
    """Something that can be trained: it makes the work of one step (loss, and its gradient in the parameters).

    Attributes:
        name: in tables.
        schemes: what it can train on.
        modes: how it can be run.
    """

    name: str
    schemes: tuple[str, ...] = SCHEMES
    modes: tuple[str, ...] = ("eager",)

    @abstractmethod
    def work(self, task: Task) -> Work:
        """A function that takes the step and returns its loss. Batches are made here, outside of it.

        Raises:
            CompilationError: this step cannot be compiled.
        """


class OwnSubject(StepSubject):
    """A potential, trained as `hesse train` does it. The potential itself stays as it is: copies are timed."""

    modes = ("eager", "compiled")

    def __init__(self, name: str, potential: Potential) -> None:
        self.name, self._potential = name, potential
        self._steps: dict[tuple[str, torch.dtype, torch.device], GradientStep] = {}

    def work(self, task: Task) -> Work:
        """See `StepSubject`."""
        step = self._step(task)
        potential = step.potential
        parts = [
            task.data.batch(indices, potential.cutoff, dtype=task.dtype, device=task.device)
            for indices in task.indices()
        ]
        weights = WEIGHTS[task.scheme]
        if step.compiled is not None:
            for _, labels in parts:
                reason = step.why_eager(labels, weights)
                if reason:
                    raise CompilationError(reason)

        def work() -> Tensor:
            loss = step(parts, weights)[0]
            potential.zero_grad(set_to_none=True)
            return loss

        return work

    def _step(self, task: Task) -> GradientStep:
        key = (task.mode, task.dtype, task.device)
        if key not in self._steps:
            potential = copy.deepcopy(self._potential).to(dtype=task.dtype, device=task.device)
            for parameter in potential.parameters():
                parameter.requires_grad_(parameter.is_floating_point())
            potential.train()
            compiled = CompiledGradient(potential) if task.mode == "compiled" else None
            self._steps[key] = GradientStep(potential, compiled)
        return self._steps[key]
