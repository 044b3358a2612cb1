"""A run that is small enough to be repeated often: ten molecules with labels of a formula, a few hundred parameters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from hesse.datasets import Dataset
from hesse.errors import HesseError
from hesse.structures import Properties
from hesse.training import TrainConfig, TrainResult, read_log, train
from oracles import Morse, labeled, molecules

OPTIONS: dict[str, Any] = {
    "compile": "never",  # the decision has its own tests
    "model": {
        "kind": "hipnn", "features": 4, "sensitivities": 4, "blocks": 1, "onsite_layers": 1, "cutoff": 4.0,
        "longest": 3.5,
    },
    "weights": {"energy": 1.0, "forces": 0.3, "hvp": 0.09},
    "optimizer": {"learning_rate": 5e-3, "weight_decay": 1e-4, "max_grad_norm": 10.0, "ema_decay": 0.995},
    "schedule": {"kind": "cosine", "warmup": 3, "final": 0.01},
    "batch": {"structures": 3},
    "steps": 20,
    "validate_every": 4,
    "checkpoint_every": 3,
    "dtype": "float64",
    "cpu_threads": 1,
}  # fmt: skip
ORACLE = Morse(depth=1.0, width=1.2)


def config(**changes: Any) -> TrainConfig:
    merged: dict[str, Any] = {**OPTIONS}
    if "loss" in changes:  # in place of weights
        del merged["weights"]
    for name, value in changes.items():
        both = isinstance(value, dict) and name in OPTIONS
        merged[name] = {**OPTIONS[name], **value} if both else value
    return TrainConfig.model_validate(merged)


def training_data(seed: int = 1, *, probes: int = 2) -> Dataset:
    """Half of the structures have energies and forces only."""
    plain = labeled(ORACLE, molecules([3, 5, 4, 6, 2], seed=seed), probes=0)
    curved = labeled(ORACLE, molecules([4, 3, 5, 2, 6], seed=seed + 50), probes=probes, hessian=True)
    return Dataset(
        (*plain.structures, *curved.structures),
        Properties.concatenate([plain.labels, curved.labels]),
        metadata={"level": "closed form"},
    )


def validation_data() -> Dataset:
    return labeled(ORACLE, molecules([4, 3, 5], seed=9), probes=1, hessian=True)


def run(folder: Path, *, restart: bool = False, validate: bool = True, **changes: Any) -> TrainResult:
    data = validation_data() if validate else None
    return train(training_data(), data, config(**changes), output=folder, restart=restart, quiet=True)


def record(folder: Path) -> list[dict[str, Any]]:
    """Rows of the record without wall times; they must not depend on interruptions."""
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in read_log(folder / "metrics.jsonl")]


def tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as handle:
        return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118


def assert_same_run(one: Path, two: Path) -> None:
    assert record(one) == record(two)
    for name in ("model.hesse", "last.hesse", "checkpoint.safetensors"):
        a, b = tensors(one / name), tensors(two / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name


def run_or_exit(folder: Path, changes: dict[str, Any]) -> None:
    """The same run, whose errors end the process as those of a command."""
    try:
        run(folder, **changes)
    except HesseError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
