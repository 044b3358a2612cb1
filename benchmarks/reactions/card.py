"""The data card of a build: contents, structures left out and why, curvature, times."""

from __future__ import annotations

import json
import platform
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hesse import __version__
from hesse.datasets import Dataset, dataset_summary
from hesse.harmonic.normal_modes import normal_modes
from hesse.runtime.filesystem import atomic_write_text

__all__ = ["write_card"]

Answers = Mapping[str, Mapping[str, Any]]


def write_card(
    out: Path,
    sets: Mapping[str, Dataset],
    *,
    answers: Mapping[str, Answers],
    left_out: Mapping[str, int],
    failures: Mapping[str, Mapping[str, str]],
    seconds: Mapping[str, float],
    workers: int,
) -> None:
    """Write `CARD.md` to read and `card.json` with all of it into `out`.

    Args:
        sets: as written.
        answers: results of the geometry stages, by name of the task.
        left_out: number of structures and reactions left out, by reason.
        failures: id and reason, by stage.
        seconds: wall time by stage.
    """
    tables = {name: _numbers(dataset) for name, dataset in sets.items()}
    stages = {name: _outcomes(found) for name, found in answers.items()}
    stages |= {name: _count(found.values()) for name, found in failures.items() if found}
    size = sum((out / f"{name}.h5").stat().st_size for name in sets)
    first = next(iter(sets.values()))
    record = {
        "sets": {
            name: {**tables[name], "card": {**dataset_summary(dataset), "source": f"{name}.h5"}}
            for name, dataset in sets.items()
        },
        "outcomes": stages,
        "left_out": {reason: count for reason, count in left_out.items() if count},
        "seconds": dict(seconds),
        "task_seconds": {name: round(sum(a["seconds"] for a in found.values()), 1) for name, found in answers.items()},
        "workers": workers,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "bytes": size,
        "code_version": __version__,
        "attributes": dict(first.metadata),
    }
    atomic_write_text(out / "card.json", json.dumps(record, indent=1) + "\n")
    atomic_write_text(out / "CARD.md", _page(record))


def _numbers(dataset: Dataset) -> dict[str, Any]:
    labels = dataset.labels
    assert labels.forces is not None
    assert labels.hessian is not None
    assert labels.energy is not None
    modes = [normal_modes(s, labels.hessian_of(i).numpy()) for i, s in enumerate(dataset.structures)]
    lowest = np.array([m.frequencies[0] for m in modes])
    imaginary = Counter(m.n_imaginary for m in modes)
    spread = _spread_within_reactions(dataset)
    return {
        "structures": len(dataset),
        "reactions": len({s.group for s in dataset.structures}),
        "tags": dict(sorted(Counter(s.tag for s in dataset.structures).items())),
        "energy_spread_median": float(np.median(spread)),
        "forces_rms": float(labels.forces.square().mean().sqrt()),
        "hessian_rms": float(labels.hessian.square().mean().sqrt()),
        "lowest_frequency": [float(q) for q in np.quantile(lowest, (0.0, 0.5, 1.0))],
        "imaginary_modes": {str(k): imaginary[k] for k in sorted(imaginary)},
        "hvp_error": _quantiles(labels.hvp_error),
        "hessian_error": _quantiles(labels.hessian_error),
        "suspect": int(labels.suspect_mask().sum()),
    }


def _spread_within_reactions(dataset: Dataset) -> list[float]:
    """Highest less lowest energy of each reaction, eV."""
    assert dataset.labels.energy is not None
    energies: dict[str, list[float]] = {}
    for structure, energy in zip(dataset.structures, dataset.labels.energy.tolist(), strict=True):
        energies.setdefault(structure.group, []).append(energy)
    return [max(values) - min(values) for values in energies.values()]


def _quantiles(errors: torch.Tensor | None) -> list[float] | None:
    """Median and largest."""
    if errors is None:
        return None
    known = errors[errors.isfinite()]
    return [float(known.median()), float(known.max())]


def _outcomes(answers: Answers) -> dict[str, int]:
    return _count(a.get("failure") or a.get("path_failure") or a.get("kind") or "done" for a in answers.values())


def _count(reasons: Any) -> dict[str, int]:
    """How often each reason occurs, with names and numbers removed."""
    plain = (re.sub(r'structure "[^"]*": ', "", re.sub(r"\d+(\.\d+)?(e-?\d+)?", "N", reason)) for reason in reasons)
    return dict(Counter(plain).most_common())


def _page(record: Mapping[str, Any]) -> str:
    lines = [
        "# Reaction benchmark: data card",
        "",
        f"Hesse {record['code_version']}, {record['attributes'].get('level')}; {record['bytes'] / 2**20:.1f} MiB. "
        "Energies in eV, lengths in Å; every structure has energy, forces, Hessian and one product along each of "
        f"{record['attributes'].get('probe')}.",
        "",
        "| set | structures | reactions | atoms | kinds | elements |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in record["sets"].items():
        card = found["card"]
        sizes, elements = card["atoms_per_structure"], " ".join(f"{e} {n}" for e, n in card["elements"].items())
        kinds = ", ".join(f"{tag} {count}" for tag, count in found["tags"].items())
        lines.append(
            f"| {name} | {found['structures']} | {found['reactions']} | {sizes['smallest']}-{sizes['largest']}, median "
            f"{sizes['median']:.0f} | {kinds} | {elements} |"
        )
    lines += [
        "",
        "| set | energy spread per reaction, median (eV) | forces rms (eV/Å) | Hessian rms (eV/Å²) | lowest frequency: "
        "least, median, largest (cm⁻¹; negative: imaginary) | structures by imaginary modes | "
        "HVP error, median / largest (eV/Å²) | Hessian error | suspect |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in record["sets"].items():
        least, median, largest = found["lowest_frequency"]
        by_modes = ", ".join(f"{k}: {n}" for k, n in found["imaginary_modes"].items())
        lines.append(
            f"| {name} | {found['energy_spread_median']:.2f} | {found['forces_rms']:.3f} | "
            f"{found['hessian_rms']:.2f} | "
            f"{least:.0f}, {median:.0f}, {largest:.0f} | {by_modes} | {_pair(found['hvp_error'])} | "
            f"{_pair(found['hessian_error'])} | {found['suspect']} |"
        )
    lines += ["", "## Outcomes", "", "| stage | outcome | how often |", "|---|---|---|"]
    for stage, found in {**record["outcomes"], "left out": record["left_out"]}.items():
        lines += [f"| {stage} | {reason} | {count} |" for reason, count in found.items()]
    total = sum(record["seconds"].values())
    lines += ["", f"## Time ({record['workers']} workers; {record['machine']})", "", "| stage | minutes |", "|---|---|"]
    lines += [f"| {stage} | {spent / 60:.1f} |" for stage, spent in record["seconds"].items()]
    lines += [f"| all | {total / 60:.1f} |", ""]
    return "\n".join(lines)


def _pair(errors: list[float] | None) -> str:
    return "-" if errors is None else f"{errors[0]:.1e} / {errors[1]:.1e}"
