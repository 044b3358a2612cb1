"""What is settled before a run's first step: is the data fit for it, what is predicted, which parameters decay."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from hesse.datasets import DatasetLike
from hesse.errors import ConfigError, MissingLabelError, UnknownElementError
from hesse.potential import Potential
from hesse.structures import Properties, Request
from hesse.training.config import TrainConfig

__all__ = ["check_data", "derive_seed", "request_for_loss", "run_fingerprint", "weight_decay_groups"]


def request_for_loss(labels: Properties, weights: Mapping[str, float]) -> Request:
    """What must be predicted for this batch: only what is weighted and present."""
    probes = None
    if weights["hvp"] > 0 and labels.hvp is not None and bool(labels.mask("hvp").any()):
        assert labels.probes is not None
        probes = torch.nan_to_num(labels.probes)  # absent pairs hold NaN; their products are masked in the loss
    return Request(
        energy=True,
        forces=weights["forces"] > 0 and labels.forces is not None,
        probes=probes,
        hessian=weights["hessian"] > 0 and labels.hessian is not None and bool(labels.mask("hessian").any()),
        atomic_energies=weights["atomic_energies"] > 0 and labels.atomic_energies is not None,
        stress=weights["stress"] > 0 and labels.stress is not None and bool(labels.mask("stress").any()),
    )


def check_data(training: DatasetLike, validation: DatasetLike | None, config: TrainConfig) -> None:
    active = config.weights.active()
    if not active:
        raise ConfigError("all loss weights are zero: there is nothing to train on")
    fresh = config.probe.source == "fresh"
    training.check_has_labels(*("hessian" if name == "hvp" and fresh else name for name in active))
    unknown = set(config.weight_ramps) - set(active)
    if unknown:
        raise ConfigError(f"weight_ramps are given for {', '.join(sorted(unknown))}, whose weight is zero")
    if validation is not None:
        if not any(validation.has(name) for name in (*active, *(["hessian"] if fresh else []))):
            raise MissingLabelError(
                f"{validation.source}: the validation structures hold none of the weighted labels "
                f"({', '.join(active)}), so no model can be chosen by them. Label them, or train without validation."
            )
        unknown_elements = set(validation.elements) - set(training.elements)
        if unknown_elements:
            structures = (structure for _, part in validation.iter_in_memory() for structure in part.structures)
            first = next(s for s in structures if unknown_elements & set(s.numbers.tolist()))
            raise UnknownElementError(
                f'{validation.source}: structure "{first.id}" holds element '
                f"{sorted(unknown_elements & set(first.numbers.tolist()))}, which no training structure has (they have "
                f"{list(training.elements)})"
            )


def weight_decay_groups(model: Potential, decay: float) -> list[dict[str, Any]]:
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:  # frozen by the user
            continue
        is_matrix = name.endswith("weight") and parameter.dim() >= 2 and min(parameter.shape) > 1
        (matrices if is_matrix else others).append(parameter)
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def derive_seed(*numbers: int) -> int:
    digest = hashlib.blake2b("/".join(map(str, numbers)).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")


def run_fingerprint(
    config: TrainConfig, training: DatasetLike, validation: DatasetLike | None, initial_digest: str = ""
) -> str:
    """What must be the same for a run to be continued: everything that decides its numbers. `identity`: of the
    potential it starts from."""
    settings = config.model_dump_json(exclude={"tensorboard", "checkpoint_every", "cpu_threads", "compile"})
    text = f"{initial_digest}/{settings}/{training.fingerprint()}/{validation.fingerprint() if validation else ''}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
