"""The state of a run on disk: one safetensors file, written aside and renamed, so that a kill leaves the one before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hesse.errors import FileFormatError
from hesse.runtime.tensor_files import read_header, read_tensors, write_tensors
from hesse.training.schedules import Plateau

__all__ = ["TrainState", "load_checkpoint", "save_checkpoint"]


@dataclass
class TrainState:
    """Where a run stands. Everything else (batches, probes, rates) follows from these numbers and the configuration.

    `compiled`: whether its steps are compiled; None before that is decided."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_loss: float = float("inf")
    best_step: int = -1
    n_without_improvement: int = 0
    seconds: float = 0.0
    compiled: bool | None = None
    plateau: Plateau = field(default_factory=Plateau)


def save_checkpoint(
    path: Path,
    state: TrainState,
    model: nn.Module,
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    fingerprint: str,
) -> None:
    """Write everything that a resumed run needs. Raises WriteError; the checkpoint before stays whole."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for index, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in entries.items()}
    state_json = json.dumps({"progress": asdict(state), "fingerprint": fingerprint})
    header = {"format": "hesse-checkpoint", "version": "1", "state": state_json}
    write_tensors(path, header, tensors)


def load_checkpoint(
    path: Path,
    model: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    fingerprint: str,
) -> TrainState:
    """Put a saved state back into model, average and optimizer, and return where the run stood.

    Raises:
        FileFormatError: the checkpoint is damaged or belongs to another configuration or other data.
    """
    try:
        meta, tensors = read_header(path, "checkpoint"), read_tensors(path, "checkpoint")
        content: dict[str, Any] = json.loads(meta["state"])
        saved = content["progress"]
        state = TrainState(**{**saved, "plateau": Plateau(**saved["plateau"])})
        saved_fingerprint = content["fingerprint"]
    except (FileFormatError, KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path}: damaged checkpoint ({error}). Start afresh with --restart.") from error
    if saved_fingerprint != fingerprint:
        raise FileFormatError(
            f"{path}: this run was started with another configuration or other data, or from another potential (its "
            "options or weights). Use another output folder, or --restart to begin again here."
        )
    model.load_state_dict({n.removeprefix("model."): v for n, v in tensors.items() if n.startswith("model.")})
    for name in average:
        average[name].copy_(tensors[f"average.{name}"])
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            entries.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
    return state
