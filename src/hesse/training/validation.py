"""Errors on held-out structures during training: the same loss, without its graph, and plain errors in eV and Å."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from hesse.curvature import evaluate
from hesse.datasets import Dataset, TrainingData
from hesse.losses import TERMS, Weights, per_structure_errors
from hesse.potential import Potential
from hesse.structures import Labels, Request
from hesse.training.processes import Processes

__all__ = ["Scores", "validate"]


@dataclass(frozen=True)
class Scores:
    """Validation errors.

    Attributes:
        loss: the weighted loss with the final weights.
        rmse: root-mean-square errors by label: energy (eV, per structure), energy_per_atom (eV), forces (eV/Å), hvp and
            hessian (eV/Å²), over components.
    """

    loss: float
    rmse: dict[str, float]

    def as_row(self) -> dict[str, float]:
        """For the record of the run."""
        return {"loss": self.loss, **{f"{name}_rmse": value for name, value in self.rmse.items()}}

    def summary(self) -> str:
        """A few words for the progress line."""
        names = {"energy_per_atom": "E/atom", "forces": "F", "hvp": "Hv"}
        return "  ".join(f"{short} {self.rmse[name]:.3g}" for name, short in names.items() if name in self.rmse)


def validate(
    potential: Potential,
    data: TrainingData,
    weights: Weights,
    *,
    dtype: torch.dtype,
    device: str,
    max_atoms: int,
    processes: Processes | None = None,
) -> Scores:
    """Errors of `potential` on `data`. Stored HVP pairs are judged whether or not they are weighted. Several
    `processes` share the structures."""
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, float] = defaultdict(float)
    losses: dict[str, float] = defaultdict(float)
    holders: dict[str, float] = defaultdict(float)
    final = weights.model_dump()
    processes = processes or Processes()
    for part, run in _runs(data, max_atoms, processes):
        batch, labels = part.batch(run, potential.cutoff, dtype=dtype, device=device)
        has_pairs = labels.hvp is not None and bool(labels.mask("hvp").any())
        full = final["hessian"] > 0 and labels.hessian is not None and bool(labels.mask("hessian").any())
        request = Request(
            forces=labels.forces is not None,
            probes=torch.nan_to_num(labels.probes) if has_pairs and labels.probes is not None else None,
            hessian=full,
            atomic_energies=labels.atomic_energies is not None and potential.splits_energy,
            stress=final["stress"] > 0 and bool(labels.mask("stress").any()),
        )
        predictions = evaluate(potential, batch, request)
        for name in TERMS:
            if getattr(labels, name) is None or getattr(predictions, name) is None:
                continue
            mask = labels.mask(name)
            present = mask.any(0) if name == "hvp" else mask
            errors = per_structure_errors(predictions, labels, name).to(torch.float64)
            losses[name] += float(errors.sum())
            holders[name] += int(present.sum())
        _accumulate(predictions, labels, sums, counts)
    # Sums over all processes, the same on each: what follows from them is decided alike.
    sums, counts = processes.sum_named(sums), processes.sum_named(counts)
    losses, holders = processes.sum_named(losses), processes.sum_named(holders)
    loss = sum(final[name] * losses[name] / holders[name] for name in losses if holders[name])
    rmse = {name: math.sqrt(sums[name] / counts[name]) for name in sums if counts[name]}
    return Scores(float(loss), rmse)


def _runs(data: TrainingData, max_atoms: int, processes: Processes) -> Iterator[tuple[Dataset, list[int]]]:
    """The structures of this process: a part of the data that is in memory, and which of it are looked at together."""
    for _, part in data.parts():
        mine = processes.share(range(len(part)), part.n_atoms.tolist())
        yield from ((part, run) for run in part.batches(max_atoms, order=mine))


def _accumulate(predictions: Labels, labels: Labels, sums: dict[str, float], counts: dict[str, float]) -> None:
    """Add squared errors and the number of values, label by label."""
    n = labels.n_atoms
    if labels.energy is not None and predictions.energy is not None:
        mask = labels.mask("energy")
        squared = (predictions.energy - labels.energy)[mask].square()
        for name, values in (("energy", squared), ("energy_per_atom", squared / n[mask] ** 2)):
            sums[name] += float(values.sum())
            counts[name] += len(values)
    for name in ("forces", "hvp"):
        value, target = getattr(predictions, name), getattr(labels, name)
        if value is not None and target is not None:
            mask = torch.repeat_interleave(labels.mask(name), n, dim=-1)
            squared = (value - target)[mask].to(torch.float64).square()
            sums[name] += float(squared.sum())
            counts[name] += squared.numel()
