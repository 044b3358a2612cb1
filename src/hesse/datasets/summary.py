"""Summary of a data set: its content, the noise of its labels, and the curvature of its structures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import torch

from hesse.datasets.dataset import Dataset
from hesse.datasets.io import DatasetSource, as_dataset
from hesse.datasets.quality.consistency import diagnose_consistency
from hesse.datasets.quality.flags import find_issues, find_non_finite
from hesse.datasets.quality.sum_rules import hessian_blocks, sum_rule_errors
from hesse.structures import QUANTITIES, Properties, label_names, species_names

__all__ = ["dataset_summary"]

_MAX_CURVATURE: Final = 1e12
"""eV/Å²; the eigenvalues of a matrix with larger elements need not be found."""
_NEGATIVE_EIGENVALUE: Final = -0.5
"""eV/Å²; eigenvalues below it count as negative curvature, those above may be noise of rigid-body motions."""
_MAX_HESSIANS: Final = 1000
"""Largest number of Hessians that are diagonalized."""
_MAX_LISTED: Final = 20
"""Largest number of suspect structures that are listed with their reasons."""
_MAX_NAMED: Final = 5
"""Largest number of structures that are named for one label that is not finite."""
_STORED_NAMES: Final = {"status": "verdict", "outliers": "guilty"}
"""Fields of `ConsistencyReport` with other names in the summary, which `--json` writes."""


def dataset_summary(data: DatasetSource) -> dict[str, Any]:
    """Summarize a data set, as `hesse info` shows it.

    Args:
        data: a data set, or anything that `as_dataset` takes.

    Returns:
        A dictionary for JSON, in eV and Å; None where nothing is known. Noise, consistency and curvature are those of
        the structures that are not flagged suspect (of all, if every structure is flagged).
    """
    dataset = as_dataset(data)
    labels = dataset.labels
    sizes = labels.n_atoms.double()
    numbers, counts = np.unique(np.concatenate([s.numbers for s in dataset.structures]), return_counts=True)
    suspect_mask = labels.suspect_mask()
    unflagged = dataset if bool(suspect_mask.all()) else dataset.without_suspects()
    violations = sum_rule_errors(unflagged.structures, unflagged.labels)
    errors = {name: _rms(unflagged.labels[f"{name}_error"]) for name in label_names() if QUANTITIES[name].has_error}
    return {
        "source": dataset.source,
        "structures": len(dataset),
        "atoms": int(labels.n_atoms.sum()),
        "atoms_per_structure": {
            "smallest": int(sizes.min()),
            "median": float(sizes.quantile(0.5)),
            "largest": int(sizes.max()),
        },
        "elements": dict(zip(species_names(numbers), counts.tolist(), strict=True)),
        "periodic": sum(s.periodic for s in dataset.structures),
        "charges": _counts(s.charge for s in dataset.structures),
        "multiplicities": _counts(s.multiplicity for s in dataset.structures),
        "charged": sum(s.charge != 0 for s in dataset.structures),
        "groups": len({s.group for s in dataset.structures if s.group}),
        "attributes": dict(dataset.metadata),
        "unread": list(dataset.not_read),
        "units": {"energy": "eV", "length": "Å"},
        "tags": _tag_rows(dataset),
        "probes_per_structure": int(labels.mask("hvp").sum(0).max()),
        "suspect": {"structures": int(suspect_mask.sum()), "first": _suspect_rows(dataset)},
        "not_finite": [] if bool(suspect_mask.all()) else _not_finite_rows(unflagged),
        "label_rms": {name: _rms(unflagged.labels[name]) for name in _names_of_rms(unflagged.labels)},
        "noise": {name: _finite_or_none(violations.noise_floor(name)) for name in ("forces", "hvp", "hessian")},
        "stated_error": errors,
        "consistency": [
            {_STORED_NAMES.get(k, k): _finite_or_none(v) if isinstance(v, float) else v for k, v in asdict(c).items()}
            for c in diagnose_consistency(unflagged)
        ],
        "curvature": _curvature(unflagged),
        "data_hash": dataset.content_hash(),
    }


def _counts(values: Iterable[int]) -> dict[str, int]:
    """How often each value occurs, in order of the values."""
    return {f"{value:d}": count for value, count in sorted(Counter(values).items())}


def _tag_rows(dataset: Dataset) -> list[dict[str, Any]]:
    tags = [s.tag for s in dataset.structures]
    rows = []
    for tag in sorted(set(tags)):
        has_tag = torch.tensor([name == tag for name in tags])
        row: dict[str, Any] = {"tag": tag, "structures": int(has_tag.sum())}
        row |= {label: int((dataset.labels.has(label) & has_tag).sum()) for label in label_names()}
        rows.append(row)
    return rows


def _suspect_rows(dataset: Dataset) -> list[dict[str, str]]:
    """The structures flagged suspect, with the reasons that their labels show."""
    flagged = dataset.select(dataset.labels.suspect_mask().nonzero()[:_MAX_LISTED, 0])
    issues = find_issues(flagged.structures, flagged.labels) if len(flagged) else {}
    default_reason = "flagged where it was made"
    return [
        {"id": s.id, "reason": "; ".join(issue.reason for issue in issues.get(i, ())) or default_reason}
        for i, s in enumerate(flagged.structures)
    ]


def _not_finite_rows(dataset: Dataset) -> list[dict[str, Any]]:
    """The labels that are NaN or infinite, which training refuses, with the first structures that have them."""
    names: dict[str, list[str]] = {}
    for i, label in sorted(find_non_finite(dataset).items()):
        names.setdefault(label, []).append(dataset.structures[i].id)
    return [{"label": label, "structures": len(ids), "first": ids[:_MAX_NAMED]} for label, ids in names.items()]


def _curvature(dataset: Dataset) -> dict[str, Any] | None:
    """Eigenvalues of the first Hessians; None without Hessians."""
    lowest: list[float] = []
    highest: list[float] = []
    negative: list[int] = []
    for _, matrices in hessian_blocks(dataset.labels):
        batch = matrices[: _MAX_HESSIANS - len(lowest)]
        batch = batch[(batch.abs() < _MAX_CURVATURE).all(-1).all(-1)]  # not NaN either
        if len(batch) == 0:
            continue
        values = torch.linalg.eigvalsh(0.5 * (batch + batch.transpose(1, 2)).double())
        lowest += values[:, 0].tolist()
        highest += values[:, -1].tolist()
        negative += (values < _NEGATIVE_EIGENVALUE).sum(-1).tolist()
    if not lowest:
        return None
    return {
        "hessians_diagonalised": len(lowest),
        "lowest_eigenvalue": min(lowest),
        "highest_eigenvalue": max(highest),
        "structures_with_negative_curvature": sum(k > 0 for k in negative),
        "structures_with_one_negative_eigenvalue": sum(k == 1 for k in negative),
        "negative_below": _NEGATIVE_EIGENVALUE,
    }


def _names_of_rms(labels: Properties) -> list[str]:
    """Labels whose root mean square is reported: forces and curvature always, others if the data have them. That of
    energies depends on the zero of energy and says nothing."""
    names = [name for name in label_names() if (QUANTITIES[name].energy_power, QUANTITIES[name].length_power) != (1, 0)]
    return [name for name in names if name in ("forces", "hvp", "hessian") or labels[name] is not None]


def _rms(values: torch.Tensor | None) -> float | None:
    return None if values is None else _finite_or_none(float(values.square().nanmean().sqrt()))


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
