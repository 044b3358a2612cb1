"""Networks, data and options that make a recipe with teachers take seconds."""

from __future__ import annotations

from typing import Any

from hesse.datasets import Dataset
from oracles import Morse, labeled, molecules

ORACLE = Morse(depth=1.0, width=1.2)
TRAINING: dict[str, Any] = {
    "model": {"kind": "hipnn", "features": 4, "sensitivities": 4, "blocks": 1, "onsite_layers": 1, "l_max": 0,
              "cutoff": 4.0, "longest": 3.5},
    "steps": 6, "validate_every": 3, "batch": {"structures": 4}, "compile": "never", "dtype": "float64",
    "cpu_threads": 1,
}  # fmt: skip


def data(
    sizes: tuple[int, ...] = (3, 4, 5, 3, 4, 5, 3, 4, 5, 3, 4, 5),
    seed: int = 1,
    elements: tuple[int, ...] = (1, 6, 8),
    **options: Any,
) -> Dataset:
    """Molecules with energies and forces of a formula."""
    return labeled(ORACLE, molecules(list(sizes), seed=seed, elements=elements), **{"probes": 0, **options})
