"""Cases of the training-step benchmark: a potential trained by Hesse. Other programs are in `hesse.bench.baselines`."""

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
from hesse.engines import PotentialLike, as_potential
from hesse.errors import CompilationError
from hesse.losses import term_names
from hesse.training.compiled_step import CompiledLossAndGradient
from hesse.training.step import LossAndGradient

__all__ = ["SCHEMES", "SCHEME_WEIGHTS", "BenchmarkCase", "HesseCase", "StepSpec"]

SCHEMES = ("ef", "ef_hvp", "ef_h")
"""Labels in the loss: energies and forces; with Hessian-vector products; with full Hessians."""

_ZERO_WEIGHTS = dict.fromkeys(term_names(), 0.0)
SCHEME_WEIGHTS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "ef": {**_ZERO_WEIGHTS, "energy": 1.0, "forces": 1.0},
        "ef_hvp": {**_ZERO_WEIGHTS, "energy": 1.0, "forces": 1.0, "hvp": 1.0},
        "ef_h": {**_ZERO_WEIGHTS, "energy": 1.0, "forces": 1.0, "hessian": 1.0},
    }
)
"""Loss weights of each scheme."""


@dataclass(frozen=True, eq=False)
class StepSpec:
    """Specification of a training step.

    Attributes:
        data: the structures of the step, with labels.
        scheme: one of `SCHEMES`.
        mode: "eager" or "compiled".
        dtype, device: floating-point type and device of the calculation.
        n_microbatches: number of microbatches whose gradients are accumulated; the largest one determines the memory.
    """

    data: Dataset
    scheme: str
    mode: str = "eager"
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    n_microbatches: int = 1

    def with_scheme(self, scheme: str) -> StepSpec:
        """The same step with another scheme.

        Args:
            scheme: one of `SCHEMES`.

        Returns:
            The new specification.
        """
        return replace(self, scheme=scheme)

    def microbatch_indices(self) -> list[list[int]]:
        """The structures of each microbatch.

        Returns:
            Indices into `data`, one list per microbatch.
        """
        chunks = torch.arange(len(self.data)).chunk(self.n_microbatches)
        return [chunk.tolist() for chunk in chunks]


class BenchmarkCase(ABC):
    """A subject of the training-step benchmark. It makes functions that compute the loss of a step and its gradient
    with respect to the parameters.

    Attributes:
        name: name in tables.
        schemes: the schemes it supports.
        modes: the modes it supports.
    """

    name: str
    schemes: tuple[str, ...] = SCHEMES
    modes: tuple[str, ...] = ("eager",)

    @abstractmethod
    def make_step(self, spec: StepSpec) -> Work:
        """Make the function that is timed. Batches are made here, not in that function.

        Args:
            spec: the step.

        Returns:
            A function that computes loss and gradient and returns the loss.

        Raises:
            CompilationError: this step cannot be compiled.
        """


class HesseCase(BenchmarkCase):
    """A potential, trained as `hesse train` does it. Copies of it are timed; the potential is not modified.

    Args:
        name: name in tables.
        potential: a potential, or the path or name of one.
    """

    modes = ("eager", "compiled")

    def __init__(self, name: str, potential: PotentialLike) -> None:
        self.name, self._potential = name, as_potential(potential)
        self._cache: dict[tuple[str, torch.dtype, torch.device], LossAndGradient] = {}

    def make_step(self, spec: StepSpec) -> Work:
        """See `BenchmarkCase.make_step`."""
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
            self._cache[settings] = LossAndGradient(potential, compiled=compiled)
        return self._cache[settings]
