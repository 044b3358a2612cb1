"""Validation during training: the loss on held-out structures, and root-mean-square errors in eV and Å."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from hesse.curvature import evaluate
from hesse.datasets import Dataset, DatasetLike
from hesse.losses import LOSS_TERMS, LossWeights, per_structure_loss
from hesse.potential import Potential
from hesse.structures import Properties, Request
from hesse.training.distributed import Communicator

__all__ = ["ValidationMetrics", "validate"]


@dataclass(frozen=True)
class ValidationMetrics:
    """Validation errors.

    Attributes:
        loss: the loss with weights as at the end of all ramps.
        rmse: root-mean-square errors by label: energy (eV, per structure), energy_per_atom (eV), forces (eV/Å), hvp and
            hessian (eV/Å²), over components.
    """

    loss: float
    rmse: dict[str, float]

    def as_row(self) -> dict[str, float]:
        """The row for the record of the run.

        Returns:
            Loss and errors by name, for example `forces_rmse`.
        """
        return {"loss": self.loss, **{f"{name}_rmse": value for name, value in self.rmse.items()}}

    def summary(self) -> str:
        """Short text for the progress line.

        Returns:
            Errors per atom in energy (eV), forces (eV/Å) and products (eV/Å²).
        """
        names = {"energy_per_atom": "E/atom", "forces": "F", "hvp": "Hv"}
        return "  ".join(f"{short} {self.rmse[name]:.3g}" for name, short in names.items() if name in self.rmse)


def validate(
    potential: Potential,
    data: DatasetLike,
    weights: LossWeights,
    *,
    dtype: torch.dtype,
    device: str,
    max_atoms: int,
    communicator: Communicator | None = None,
) -> ValidationMetrics:
    """Compute the validation loss and errors of a potential.

    Args:
        potential: the potential.
        data: validation data. Stored (probe, product) pairs are evaluated even if their weight is zero.
        weights: loss weights.
        dtype: floating-point type of the evaluation.
        device: its device.
        max_atoms: maximum number of atoms of a batch.
        communicator: processes that share the structures; None for a single process.

    Returns:
        The loss and errors, the same in all processes.
    """
    sums: dict[str, float] = defaultdict(float)
    n_values: dict[str, float] = defaultdict(float)
    losses: dict[str, float] = defaultdict(float)
    n_labeled: dict[str, float] = defaultdict(float)
    final_weights = weights.model_dump()
    communicator = communicator or Communicator()
    for part, indices in _local_batches(data, max_atoms, communicator):
        batch, labels = part.batch(indices, potential.cutoff, dtype=dtype, device=device)
        has_pairs = labels.hvp is not None and bool(labels.mask("hvp").any())
        has_hessians = (
            final_weights["hessian"] > 0 and labels.hessian is not None and bool(labels.mask("hessian").any())
        )
        request = Request(
            forces=labels.forces is not None,
            probes=torch.nan_to_num(labels.probes) if has_pairs and labels.probes is not None else None,
            hessian=has_hessians,
            atomic_energies=labels.atomic_energies is not None and potential.has_atomic_energies,
            stress=final_weights["stress"] > 0 and bool(labels.mask("stress").any()),
        )
        predictions = evaluate(potential, batch, request)
        for name in LOSS_TERMS:
            if getattr(labels, name) is None or getattr(predictions, name) is None:
                continue
            mask = labels.mask(name)
            present = mask.any(0) if name == "hvp" else mask
            errors = per_structure_loss(predictions, labels, name).to(torch.float64)
            losses[name] += float(errors.sum())
            n_labeled[name] += int(present.sum())
        _accumulate(predictions, labels, sums, n_values)
    # Sums over all processes are the same in each of them, and so are decisions that depend on them.
    sums, n_values = communicator.all_reduce_sum_dict(sums), communicator.all_reduce_sum_dict(n_values)
    losses, n_labeled = communicator.all_reduce_sum_dict(losses), communicator.all_reduce_sum_dict(n_labeled)
    loss = sum(final_weights[name] * losses[name] / n_labeled[name] for name in losses if n_labeled[name])
    rmse = {name: math.sqrt(sums[name] / n_values[name]) for name in sums if n_values[name]}
    return ValidationMetrics(float(loss), rmse)


def _local_batches(
    data: DatasetLike, max_atoms: int, communicator: Communicator
) -> Iterator[tuple[Dataset, list[int]]]:
    """Batches of the structures of this process: a part of the data in memory, and indices in it."""
    for _, part in data.iter_in_memory():
        local_indices = communicator.partition(range(len(part)), part.n_atoms.tolist())
        yield from ((part, indices) for indices in part.batch_indices(max_atoms, order=local_indices))


def _accumulate(
    predictions: Properties, labels: Properties, sums: dict[str, float], n_values: dict[str, float]
) -> None:
    """Add squared errors and the number of values, label by label."""
    n = labels.n_atoms
    if labels.energy is not None and predictions.energy is not None:
        mask = labels.mask("energy")
        squared = (predictions.energy - labels.energy)[mask].square()
        for name, values in (("energy", squared), ("energy_per_atom", squared / n[mask] ** 2)):
            sums[name] += float(values.sum())
            n_values[name] += len(values)
    for name in ("forces", "hvp"):
        value, target = getattr(predictions, name), getattr(labels, name)
        if value is not None and target is not None:
            mask = torch.repeat_interleave(labels.mask(name), n, dim=-1)
            squared = (value - target)[mask].to(torch.float64).square()
            sums[name] += float(squared.sum())
            n_values[name] += squared.numel()
