"""Small MACE models with random weights."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings of MACE, e3nn and TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def mace_model(**options: Any) -> Any:
    """A float64 model with two layers and all parts of a real model, small enough for tests."""
    return copy.deepcopy(_built(**options))


@functools.cache
def _built(
    kind: str = "ScaleShiftMACE",
    *,
    heads: tuple[str, ...] | None = None,
    numbers: tuple[int, ...] = (1, 6, 8),
    **options: Any,
) -> Any:
    with quiet():
        from e3nn import o3
        from mace import modules  # before e3nn

        energies = np.array([-13.6, -1029.0, -2041.0])[: len(numbers)]
        settings: dict[str, Any] = {
            "r_max": 4.0,
            "num_bessel": 5,
            "num_polynomial_cutoff": 5,
            "max_ell": 2,
            "interaction_cls": modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
            "interaction_cls_first": modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
            "num_interactions": 2,
            "num_elements": len(numbers),
            "hidden_irreps": o3.Irreps("4x0e+4x1o"),
            "MLP_irreps": o3.Irreps("4x0e"),
            "atomic_energies": energies if heads is None else np.stack([energies - 10 * k for k in range(len(heads))]),
            "avg_num_neighbors": 4.0,
            "atomic_numbers": list(numbers),
            "correlation": 2,
            "gate": torch.nn.functional.silu,
            "radial_MLP": [16, 16],
            "heads": None if heads is None else list(heads),
        }
        if kind == "ScaleShiftMACE":
            several = 1 if heads is None else len(heads)
            settings["atomic_inter_scale"] = 1.3 if several == 1 else [1.3 + k for k in range(several)]
            settings["atomic_inter_shift"] = 0.1 if several == 1 else [0.1 - k for k in range(several)]
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            return getattr(modules, kind)(**{**settings, **options})
        finally:
            torch.set_default_dtype(before)


def mace_calculator(model: Any, **options: Any) -> Any:
    """MACE's own ASE calculator for a model, or for a file."""
    with quiet():
        from mace.calculators import MACECalculator

        given = {"models": model} if isinstance(model, torch.nn.Module) else {"model_paths": str(model)}
        before = torch.get_default_dtype()
        try:
            return MACECalculator(device="cpu", default_dtype="float64", **given, **options)
        finally:
            torch.set_default_dtype(before)
