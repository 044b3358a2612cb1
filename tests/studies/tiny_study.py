"""Data and configuration of a study that takes a few seconds: a dozen molecules with labels of a formula."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hesse.datasets import Dataset, write_dataset
from oracles import Morse, labeled, molecules

ORACLE = Morse(depth=1.0, width=1.2)
MODEL = {
    "kind": "hipnn", "features": 3, "sensitivities": 3, "blocks": 1, "onsite_layers": 0, "cutoff": 4.0, "longest": 3.5,
}  # fmt: skip
BASE: dict[str, Any] = {
    "data": {"train": "train.h5", "validation": "validation.h5"},
    "model": MODEL,
    "steps": 5,
    "batch": {"structures": 3},
    "compile": "never",
    "dtype": "float64",
    "validate_every": 5,
}


def grouped(sizes: list[int], seed: int, n_groups: int) -> Dataset:
    data = labeled(ORACLE, molecules(sizes, seed=seed), probes=2, hessian=True)
    structures = tuple(replace(s, group=f"g{k % n_groups}") for k, s in enumerate(data.structures))
    return Dataset(structures, data.labels, metadata={"level": "closed form"})


def write_data(folder: Path) -> None:
    write_dataset(folder / "train.h5", grouped([3, 4, 2, 3, 4, 2, 3, 4], 1, 4))
    write_dataset(folder / "validation.h5", grouped([3, 2, 4], 2, 3))
    write_dataset(folder / "test.h5", grouped([4, 3, 4, 2, 3, 4], 3, 3))


def study(**changes: Any) -> dict[str, Any]:
    """The configuration as in a file."""
    options: dict[str, Any] = {
        "base": BASE,
        "axes": {"scheme": ["ef", "ef-hvp"], "seed": [0, 1, 2]},
        "test": {"far": "test.h5"},
        "output": "study",
    }
    return {**options, **changes}
