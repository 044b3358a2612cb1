"""The state of a run on disk: one safetensors file, replaced atomically, so that it survives a killed process.

It also holds what identifies the run (`hesse.training.run_identity`): only the same run continues it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hesse.errors import ConfigError, FileFormatError
from hesse.runtime.tensor_files import read_header, read_tensors, write_tensors
from hesse.training.run_identity import Identity, changed_run_error, find_changes
from hesse.training.schedules import Plateau

__all__ = ["TrainState", "load_checkpoint", "save_checkpoint"]

_FORMAT, _VERSION = "hesse-checkpoint", "3"


@dataclass
class TrainState:
    """Progress of a run. Batches, probes and learning rates follow from these numbers and the configuration.

    Attributes:
        step: steps done.
        epoch: number of the current epoch, from 0.
        batch: number of the next batch in it, from 0.
        best_loss: lowest validation loss so far.
        best_step: its step; -1 before the first validation.
        n_without_improvement: validations since then.
        seconds: wall time of all sessions.
        processor_seconds: processor time of the first process in all sessions, with all of its threads.
        compiled: whether steps are compiled; None before that is decided.
        plateau: state of the plateau schedule.
        weights: weights of the loss terms by name, if they were measured before the first step.
        replay_epoch: number of the current epoch of the replay data, from 0.
        replay_batch: number of the next batch in it, from 0.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_loss: float = float("inf")
    best_step: int = -1
    n_without_improvement: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0
    compiled: bool | None = None
    plateau: Plateau = field(default_factory=Plateau)
    weights: dict[str, float] | None = None
    replay_epoch: int = 0
    replay_batch: int = 0


def save_checkpoint(
    path: Path,
    state: TrainState,
    model: nn.Module,
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    identity: Identity,
) -> None:
    """Write everything that a resumed run needs.

    Args:
        path: the file. It is replaced atomically: if writing fails, the previous checkpoint stays valid.
        state: progress of the run.
        model: the network.
        average: moving average of its parameters, by name.
        optimizer: its optimizer.
        identity: what determines the numbers of the run.

    Raises:
        WriteError: the file cannot be written.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for index, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in entries.items()}
    state_json = json.dumps({"progress": asdict(state), "run": dict(identity)})
    header = {"format": _FORMAT, "version": _VERSION, "state": state_json}
    write_tensors(path, header, tensors)


def load_checkpoint(
    path: Path,
    model: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    identity: Identity,
) -> tuple[TrainState, int]:
    """Restore a saved state.

    Args:
        path: the checkpoint.
        model: the network; its parameters and buffers are overwritten.
        average: moving average of its parameters, by name; overwritten.
        optimizer: its optimizer; its state is overwritten.
        identity: what determines the numbers of the run that is to go on.

    Returns:
        The progress of the run, and the number of steps that it was to do before.

    Raises:
        FileFormatError: the checkpoint is damaged, is of an older version of Hesse, or belongs to another configuration
            or other data.
        ConfigError: the run has done more steps than it is to do now.
    """
    try:
        meta, tensors = read_header(path, "checkpoint"), read_tensors(path, "checkpoint")
        content: dict[str, Any] = json.loads(meta["state"])
        if meta["version"] == _VERSION:
            saved = content["progress"]
            state = TrainState(**{**saved, "plateau": Plateau(**saved["plateau"])})
            saved_run = content["run"]
            changes, previous_steps = find_changes(saved_run, identity), int(saved_run["steps"])
    except (FileFormatError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise FileFormatError(f"{path}: damaged checkpoint ({error}). Start again with --restart.") from error
    if meta["version"] != _VERSION:
        raise FileFormatError(
            f"{path}: a checkpoint of format {meta['version']}; this version of Hesse reads format {_VERSION}. "
            "Finish the run with the version that started it, or start it again with --restart."
        )
    if changes:
        raise changed_run_error(path.parent, changes)
    if state.step > identity["steps"]:
        raise ConfigError(
            f"steps: {identity['steps']}: the run in {path.parent} has done {state.step} steps already. Give as many "
            "or more, another output, or --restart to begin again here."
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
    return state, previous_steps
