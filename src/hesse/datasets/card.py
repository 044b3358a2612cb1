"""The data card: what a data set holds, how noisy its labels are, and how curved its structures."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import torch
from ase.data import chemical_symbols

from hesse.datasets.consistency import diagnose_consistency
from hesse.datasets.dataset import Dataset
from hesse.datasets.identities import hessian_blocks, identity_defects
from hesse.datasets.suspicion import find_doubts

__all__ = ["data_card"]

_LABELS: Final = ("energy", "forces", "hvp", "hessian", "atomic_energies", "stress")
_NEGATIVE: Final = -0.5
"""eV/Å²; an eigenvalue below it is negative curvature, above it may be noise of rigid motions."""
_SAMPLE: Final = 1000
"""Hessians that are diagonalised at most."""
_NAMED: Final = 20
"""Suspect structures that are named, with the reason."""


def data_card(dataset: Dataset) -> dict[str, Any]:
    """Everything `hesse info` shows, ready for JSON (None where nothing is known); eV and Å. The quality of labels and
    the curvature are those of the structures that are not flagged suspect (of all, when every one is)."""
    labels = dataset.labels
    sizes = labels.n_atoms.double()
    numbers, counts = np.unique(np.concatenate([s.numbers for s in dataset.structures]), return_counts=True)
    suspects = labels.suspects()
    judged = dataset if bool(suspects.all()) else dataset.without_suspects()
    defects = identity_defects(judged.structures, judged.labels)
    errors = {name: _rms(getattr(judged.labels, f"{name}_error")) for name in ("energy", "forces", "hvp", "hessian")}
    return {
        "source": dataset.source,
        "structures": len(dataset),
        "atoms": int(labels.n_atoms.sum()),
        "atoms_per_structure": {
            "smallest": int(sizes.min()),
            "median": float(sizes.quantile(0.5)),
            "largest": int(sizes.max()),
        },
        "elements": {chemical_symbols[z]: int(c) for z, c in zip(numbers.tolist(), counts.tolist(), strict=True)},
        "periodic": sum(s.periodic for s in dataset.structures),
        "charged": sum(s.charge != 0 for s in dataset.structures),
        "groups": len({s.group for s in dataset.structures if s.group}),
        "attributes": dict(dataset.attributes),
        "unread": list(dataset.unread),
        "units": {"energy": "eV", "length": "Å"},
        "tags": _tags(dataset),
        "probes_per_structure": int(labels.mask("hvp").sum(0).max()),
        "suspect": {"structures": int(suspects.sum()), "first": _suspects(dataset)},
        "label_rms": {name: _rms(getattr(judged.labels, name)) for name in ("forces", "hvp", "hessian")},
        "noise": {name: _finite(defects.noise_floor(name)) for name in ("forces", "hvp", "hessian")},
        "stated_error": errors,
        "consistency": [
            {k: _finite(v) if isinstance(v, float) else v for k, v in asdict(c).items()}
            for c in diagnose_consistency(judged)
        ],
        "curvature": _curvature(judged),
        "data_hash": dataset.data_hash(),
    }


def _tags(dataset: Dataset) -> list[dict[str, Any]]:
    names = [s.tag for s in dataset.structures]
    rows = []
    for tag in sorted(set(names)):
        here = torch.tensor([name == tag for name in names])
        row: dict[str, Any] = {"tag": tag, "structures": int(here.sum())}
        for label in _LABELS:
            held = dataset.labels.mask(label)
            held = held.any(0) if held.ndim == 2 else held
            row[label] = int((held & here).sum())
        rows.append(row)
    return rows


def _suspects(dataset: Dataset) -> list[dict[str, str]]:
    """Structures flagged suspect, and what their labels themselves say against them."""
    chosen = dataset.select(dataset.labels.suspects().nonzero()[:_NAMED, 0])
    doubts = find_doubts(chosen.structures, chosen.labels) if len(chosen) else {}
    unsaid = "flagged where it was made"
    return [
        {"id": s.id, "reason": "; ".join(doubt.reason for doubt in doubts.get(i, ())) or unsaid}
        for i, s in enumerate(chosen.structures)
    ]


def _curvature(dataset: Dataset) -> dict[str, Any] | None:
    """Eigenvalues of the Hessians (the first ones, where there are many); None without Hessians."""
    lowest: list[float] = []
    highest: list[float] = []
    negative: list[int] = []
    for _, matrices in hessian_blocks(dataset.labels):
        some = matrices[: _SAMPLE - len(lowest)]
        some = some[some.isfinite().all(-1).all(-1)]
        if len(some) == 0:
            continue
        values = torch.linalg.eigvalsh(0.5 * (some + some.transpose(1, 2)).double())
        lowest += values[:, 0].tolist()
        highest += values[:, -1].tolist()
        negative += (values < _NEGATIVE).sum(-1).tolist()
    if not lowest:
        return None
    return {
        "hessians_diagonalised": len(lowest),
        "lowest_eigenvalue": min(lowest),
        "highest_eigenvalue": max(highest),
        "structures_with_negative_curvature": sum(k > 0 for k in negative),
        "structures_with_one_negative_eigenvalue": sum(k == 1 for k in negative),
        "negative_below": _NEGATIVE,
    }


def _rms(values: torch.Tensor | None) -> float | None:
    return None if values is None else _finite(float(values.square().nanmean().sqrt()))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
