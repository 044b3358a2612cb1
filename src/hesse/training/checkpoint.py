"""The state of a run on disk: one safetensors file, replaced atomically, so that it survives a killed process.

`run_fingerprint` identifies the run: a checkpoint is continued only by a run with the same fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hesse.datasets import DatasetLike
from hesse.errors import FileFormatError
from hesse.runtime.tensor_files import read_header, read_tensors, write_tensors
from hesse.training.config import TrainConfig
from hesse.training.schedules import Plateau

__all__ = ["TrainState", "load_checkpoint", "run_fingerprint", "save_checkpoint"]

_FORMAT, _VERSION = "hesse-checkpoint", "2"


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
        compiled: whether steps are compiled; None before that is decided.
        plateau: state of the plateau schedule.
        weights: weights of the loss terms by name, if they were measured before the first step.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_loss: float = float("inf")
    best_step: int = -1
    n_without_improvement: int = 0
    seconds: float = 0.0
    compiled: bool | None = None
    plateau: Plateau = field(default_factory=Plateau)
    weights: dict[str, float] | None = None


def run_fingerprint(
    config: TrainConfig, training: DatasetLike, validation: DatasetLike | None, initial_digest: str = ""
) -> str:
    """Digest of everything that determines the numbers of a run.

    Args:
        config: its settings. Those that change no number (record, checkpoints, threads, compilation) are left out.
        training: training data.
        validation: validation data, if any.
        initial_digest: `potential_digest` of the potential that the run starts from; empty for a new network.

    Returns:
        The digest, 32 hexadecimal digits.
    """
    without_effect = {"tensorboard", "checkpoint_every", "cpu_threads", "compile"}
    without_effect |= {"allow_mixed_charges", "allow_shared_structures"}
    settings = config.model_dump_json(exclude=without_effect)
    text = f"{initial_digest}/{settings}/{training.fingerprint()}/{validation.fingerprint() if validation else ''}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def save_checkpoint(
    path: Path,
    state: TrainState,
    model: nn.Module,
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    fingerprint: str,
) -> None:
    """Write everything that a resumed run needs.

    Args:
        path: the file. It is replaced atomically: if writing fails, the previous checkpoint stays valid.
        state: progress of the run.
        model: the network.
        average: moving average of its parameters, by name.
        optimizer: its optimizer.
        fingerprint: see `run_fingerprint`.

    Raises:
        WriteError: the file cannot be written.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for index, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in entries.items()}
    state_json = json.dumps({"progress": asdict(state), "fingerprint": fingerprint})
    header = {"format": _FORMAT, "version": _VERSION, "state": state_json}
    write_tensors(path, header, tensors)


def load_checkpoint(
    path: Path,
    model: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    fingerprint: str,
) -> TrainState:
    """Restore a saved state.

    Args:
        path: the checkpoint.
        model: the network; its parameters and buffers are overwritten.
        average: moving average of its parameters, by name; overwritten.
        optimizer: its optimizer; its state is overwritten.
        fingerprint: see `run_fingerprint`.

    Returns:
        The progress of the run.

    Raises:
        FileFormatError: the checkpoint is damaged, is of an older version of Hesse, or belongs to another configuration
            or other data.
    """
    try:
        meta, tensors = read_header(path, "checkpoint"), read_tensors(path, "checkpoint")
        content: dict[str, Any] = json.loads(meta["state"])
        if meta["version"] == _VERSION:
            saved = content["progress"]
            state = TrainState(**{**saved, "plateau": Plateau(**saved["plateau"])})
        saved_fingerprint = content["fingerprint"]
    except (FileFormatError, KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path}: damaged checkpoint ({error}). Start again with --restart.") from error
    if meta["version"] != _VERSION:
        raise FileFormatError(
            f"{path}: a checkpoint of format {meta['version']}; this version of Hesse reads format {_VERSION}. "
            "Finish the run with the version that started it, or start it again with --restart."
        )
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
