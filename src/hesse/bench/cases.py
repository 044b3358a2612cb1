"""What takes a training step: a potential through Hesse, and (in `hesse.bench.baselines`) other programs on their own."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from torch import Tensor

from hesse.bench.timing import Work
from hesse.datasets import Dataset
from hesse.errors import CompilationError
from hesse.potential import Potential
from hesse.training.compiled_step import CompiledLossAndGradient
from hesse.training.step import LossAndGradient

__all__ = ["SCHEMES", "SCHEME_WEIGHTS", "BenchmarkCase", "HesseCase", "StepSpec"]

SCHEMES = ("ef", "ef_hvp", "ef_h")
"""Loss of energies and forces; with Hessian-vector products; with full Hessians."""

_ZERO_WEIGHTS = dict.fromkeys(("energy", "forces", "hvp", "hessian", "atomic_energies", "stress", "regularizer"), 0.0)
SCHEME_WEIGHTS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "ef": {**_ZERO_WEIGHTS, "energy": 1.0, "forces": 1.0},
        "ef_hvp": {**_ZERO_WEIGHTS, "energy": 1.0, "forces": 1.0, "hvp": 1.0},
        "ef_h": {**_ZERO_WEIGHTS, "energy": 1.0, "forces": 1.0, "hessian": 1.0},
    }
)
"""Weights of the loss by scheme."""


@dataclass(frozen=True, eq=False)
class StepSpec:
    """A step to take.

    Attributes:
        data: the structures of the step, with labels.
        scheme: one of `SCHEMES`.
        mode: "eager" or "compiled".
        dtype, device: of the calculation.
        n_microbatches: how many graphs of their own the structures are spread over (memory is that of the largest).
    """

    data: Dataset
    scheme: str
    mode: str = "eager"
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    n_microbatches: int = 1

    def with_scheme(self, scheme: str) -> StepSpec:
        """The same with another scheme."""
        return replace(self, scheme=scheme)

    def microbatch_indices(self) -> list[list[int]]:
        """The structures of each part."""
        chunks = torch.arange(len(self.data)).chunk(self.n_microbatches)
        return [chunk.tolist() for chunk in chunks]


class BenchmarkCase(ABC):
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
    def make_step(self, spec: StepSpec) -> Work:
        """A function that takes the step and returns its loss. Batches are made here, outside of it.

        Raises:
            CompilationError: this step cannot be compiled.
        """


class HesseCase(BenchmarkCase):
    """A potential, trained as `hesse train` does it. The potential itself stays as it is: copies are timed."""

    modes = ("eager", "compiled")

    def __init__(self, name: str, potential: Potential) -> None:
        self.name, self._potential = name, potential
        self._cache: dict[tuple[str, torch.dtype, torch.device], LossAndGradient] = {}

    def make_step(self, spec: StepSpec) -> Work:
        """See `BenchmarkCase`."""
        loss_and_gradient = self._loss_and_gradient(spec)
        potential = loss_and_gradient.potential
        microbatches = [
            spec.data.batch(indices, potential.cutoff, dtype=spec.dtype, device=spec.device)
            for indices in spec.microbatch_indices()
        ]
        weights = SCHEME_WEIGHTS[spec.scheme]
        if loss_and_gradient.compiled is not None:
            for _, labels in microbatches:
                reason = loss_and_gradient.eager_reason(labels, weights)
                if reason:
                    raise CompilationError(reason)

        def take_step() -> Tensor:
            loss = loss_and_gradient(microbatches, weights)[0]
            potential.zero_grad(set_to_none=True)
            return loss

        return take_step

    def _loss_and_gradient(self, spec: StepSpec) -> LossAndGradient:
        settings = (spec.mode, spec.dtype, spec.device)
        if settings not in self._cache:
            potential = copy.deepcopy(self._potential).to(dtype=spec.dtype, device=spec.device)
            for parameter in potential.parameters():
                parameter.requires_grad_(parameter.is_floating_point())
            potential.train()
            compiled = CompiledLossAndGradient(potential) if spec.mode == "compiled" else None
            self._cache[settings] = LossAndGradient(potential, compiled)
        return self._cache[settings]
