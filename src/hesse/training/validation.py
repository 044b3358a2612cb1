"""Validation during training: the loss on held-out structures, root-mean-square errors in eV and Å, the best model.

The curvature error of a structure is estimated from K probes that are the same at every validation: the full Hessian of
an N-atom structure costs 3N products, the estimate K. With `E[v vᵀ] = I`, the mean of `|ΔH v_k|²/(9N²)` over the probes
is an unbiased estimate of `‖ΔH‖²/(9N²)`. The errors of the full Hessians are computed before the first and after the
last step of a run (`hessian_errors`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hesse.curvature import evaluate
from hesse.curvature.energy_derivatives import further_output_names
from hesse.datasets import Dataset, DatasetLike
from hesse.errors import MissingLabelError, NonFiniteLossError
from hesse.losses import Loss, LossTerm, matched_predictions, per_structure_loss
from hesse.potential import Potential
from hesse.structures import QUANTITIES, Batch, Properties, Request, label_names, segment_ids
from hesse.training.checkpoint import TrainState
from hesse.training.config import TrainConfig
from hesse.training.distributed import Communicator
from hesse.training.error_sums import SquaredErrors, StructureName, reduce_errors, structure_names
from hesse.training.model_writer import ModelWriter
from hesse.training.validation_probes import with_validation_probes

__all__ = ["ValidationMetrics", "Validator", "hessian_errors", "validate"]


@dataclass(frozen=True)
class ValidationMetrics:
    """Validation errors.

    Attributes:
        loss: the loss with weights as at the end of all ramps; curvature terms are estimated from probes.
        rmse: root-mean-square errors by label: energy (eV, per structure), energy_per_atom (eV), forces (eV/Å), hvp
            (eV/Å², of the products of the probes), hessian (eV/Å², of the elements, estimated from the probes), over
            components.
        standard_errors: standard error of an RMSE from the spread over groups of structures (over structures, if there
            is one group only; jackknife), by label: hvp, hessian. It contains the uncertainty from the probes.
    """

    loss: float
    rmse: dict[str, float]
    standard_errors: dict[str, float] = field(default_factory=dict)

    def as_row(self) -> dict[str, float]:
        """The row for the record of the run.

        Returns:
            Loss and errors by name, for example `forces_rmse`, `hvp_rmse` and `hvp_rmse_standard_error`.
        """
        row = {"loss": self.loss, **{f"{name}_rmse": value for name, value in self.rmse.items()}}
        return row | {f"{name}_rmse_standard_error": value for name, value in self.standard_errors.items()}

    def summary(self) -> str:
        """Short text for the progress line.

        Returns:
            Errors per atom in energy (eV), forces (eV/Å) and products (eV/Å²), the last with its standard error.
        """
        names = {"energy_per_atom": "E/atom", "forces": "F", "hvp": "Hv"}
        texts = []
        for name, short in names.items():
            if name in self.rmse:
                error = self.standard_errors.get(name)
                texts.append(f"{short} {self.rmse[name]:.3g}" + ("" if error is None else f" ± {error:.1g}"))
        return "  ".join(texts)


def validate(
    potential: Potential,
    data: DatasetLike,
    loss: Loss,
    weights: Mapping[str, float] | None = None,
    *,
    dtype: torch.dtype,
    device: str,
    max_atoms: int,
    n_probes: int = 4,
    seed: int = 0,
    communicator: Communicator | None = None,
) -> ValidationMetrics:
    """Compute the validation loss and errors of a potential.

    Args:
        potential: the potential.
        data: validation data. Curvature is evaluated wherever it is labeled, even if its weight is zero.
        loss: the loss. Terms of products and of Hessians are both estimated from the probes: those of products over
            all structures with pairs or Hessians, those of Hessians over structures with Hessians. For squares the
            estimate is unbiased; a mae or huber term of Hessians has another value than that of their products.
        weights: weight of each term by name; None: those of the terms.
        dtype: floating-point type of the evaluation.
        device: its device.
        max_atoms: maximum number of atoms of a batch.
        n_probes: probes per structure, see `with_validation_probes`.
        seed: seed of the probes.
        communicator: processes that share the structures; None for a single process.

    Returns:
        The loss and errors, the same in all processes.

    Raises:
        MissingLabelError: no structure counts in the loss: none has a label, or the weights of all of them are zero.
    """
    communicator = communicator or Communicator()
    weights = loss.weights() if weights is None else weights
    totals: dict[str, SquaredErrors] = defaultdict(SquaredErrors)
    means: dict[str, float] = defaultdict(float)
    counts: dict[str, float] = defaultdict(float)
    for part, indices in _local_batches(data, max_atoms, communicator):
        batch, labels = part.batch(indices, potential.cutoff, dtype=dtype, device=device)
        has_hessian, stored = labels.mask("hessian"), labels
        labels = with_validation_probes(batch, labels, n_probes, seed=seed)
        has_pairs = labels.mask("hvp").any(0)
        outputs = [name for name in further_output_names(potential) if labels[name] is not None]
        request = Request(
            forces=labels.forces is not None,
            probes=torch.nan_to_num(labels.probes) if labels.probes is not None and bool(has_pairs.any()) else None,
            atomic_energies=labels.atomic_energies is not None and potential.has_atomic_energies,
            stress="stress" in loss.quantities() and bool(labels.mask("stress").any()),
            **dict.fromkeys(outputs, True),
        )
        predictions = evaluate(potential, batch, request)
        labels_of_hessians = labels
        if labels.hvp is not None:
            labels_of_hessians = labels.replace(hvp_mask=labels.mask("hvp") & has_hessian)
        for term in loss:
            if term.quantity == "hessian":
                # A term of products has the same sum of squares, but is not divided by the same number of values.
                products = term.model_copy(update={"quantity": "hvp"})
                mean, _ = _term_sum(products, predictions, labels_of_hessians, batch)
                count = float(loss.counts(stored, {term.name: 1.0}).get(term.name, 0.0))
            else:
                mean, count = _term_sum(term, predictions, labels, batch)
            means[term.name] += mean
            counts[term.name] += count
        _accumulate(totals, predictions, labels, has_hessian, structure_names(part, indices))
    # Sums over all processes are the same in each of them, and so are decisions that depend on them.
    means, counts = communicator.all_reduce_sum_dict(means), communicator.all_reduce_sum_dict(counts)
    values = loss.values({n: torch.tensor(means[n] / counts[n], dtype=torch.float64) for n in means if counts[n]})
    if not values:
        raise MissingLabelError(
            f"{data.source}: no validation structure counts in the loss ({', '.join(loss.quantities())}): none has "
            "these labels, or all have the weight zero"
        )
    total = sum(weights[name] * float(value) for name, value in values.items())
    rmse, standard_errors = reduce_errors(totals, communicator)
    return ValidationMetrics(float(total), rmse, {n: e for n, e in standard_errors.items() if n in ("hvp", "hessian")})


def _term_sum(term: LossTerm, predictions: Properties, references: Properties, batch: Batch) -> tuple[float, float]:
    """Sum of a term over structures, and what it is to be divided by."""
    alone, one = Loss([term]), {term.name: 1.0}
    if term.entry.role != "label" or references[term.quantity] is None or predictions[term.quantity] is None:
        return 0.0, 0.0
    count = alone.counts(references, one)
    unit = {term.name: torch.ones_like(count[term.name])}
    factors = alone.factors(references, one, unit, batch)
    matched = matched_predictions(predictions, references, [term.entry])
    return float(alone.means(matched, alone.targets(references, one, batch), factors)[term.name]), float(
        count[term.name]
    )


def hessian_errors(
    potential: Potential,
    data: DatasetLike,
    *,
    dtype: torch.dtype,
    device: str,
    max_atoms: int,
    communicator: Communicator | None = None,
) -> dict[str, float]:
    """Compute the errors of the full Hessians of a potential: 3N products for a structure of N atoms.

    Args:
        potential: the potential.
        data: validation data; structures without a Hessian are left out.
        dtype: floating-point type of the evaluation.
        device: its device.
        max_atoms: maximum number of atoms of a batch.
        communicator: processes that share the structures; None for a single process.

    Returns:
        By name, the same in all processes: `hessian`, the loss term (mean over structures of `‖ΔH‖²/(9N²)`);
        `hessian_rmse`, over elements, eV/Å²; `hessian_rmse_standard_error`, see `ValidationMetrics`;
        `structures`, their number. Empty if there is no Hessian.
    """
    communicator = communicator or Communicator()
    totals = {"hessian": SquaredErrors()}
    sums = {"loss": 0.0, "structures": 0.0}
    for part, indices in _local_batches(data, max_atoms, communicator, label="hessian"):
        batch, labels = part.batch(indices, potential.cutoff, dtype=dtype, device=device)
        predictions = evaluate(potential, batch, Request(energy=False, hessian=True))
        errors = per_structure_loss(predictions, labels, "hessian").to(torch.float64)
        sums["loss"] += float(errors.sum())
        sums["structures"] += len(indices)
        n_elements = 9 * labels.n_atoms**2
        totals["hessian"].add(structure_names(part, indices), errors * n_elements, n_elements)
    sums = communicator.all_reduce_sum_dict(sums)
    if not sums["structures"]:
        return {}
    rmse, standard_errors = reduce_errors(totals, communicator)
    return {
        "hessian": sums["loss"] / sums["structures"],
        "hessian_rmse": rmse["hessian"],
        **{f"{name}_rmse_standard_error": value for name, value in standard_errors.items()},
        "structures": int(sums["structures"]),
    }


class Validator:
    """Validation of a run: computes the errors of a model, decides which model is the best, and when to stop.

    Args:
        data: validation data.
        config: settings of the run.
        device: device of this process.
        communicator: the processes that train together.
        writer: writes the best model.
    """

    def __init__(
        self, data: DatasetLike, config: TrainConfig, device: str, communicator: Communicator, writer: ModelWriter
    ) -> None:
        self.data, self.config, self.device, self.communicator = data, config, device, communicator
        self.dtype: torch.dtype = getattr(torch, config.dtype)
        self.loss, self.writer = config.make_loss(), writer

    def errors(self, model: Potential, weights: Mapping[str, float]) -> ValidationMetrics:
        """Compute the validation loss and errors of a model.

        Args:
            model: the model.
            weights: weight of each loss term by name.

        Returns:
            The errors, the same in all processes.
        """
        self.communicator.broadcast(model.buffers())  # running statistics differ between processes
        return validate(
            model, self.data, self.loss, weights, dtype=self.dtype, device=self.device,
            max_atoms=self.config.batch.atoms, n_probes=self.config.validation_probes, seed=self.config.seed,
            communicator=self.communicator,
        )  # fmt: skip

    def hessian_errors(self, model: Potential) -> dict[str, float]:
        """Compute the errors of the full Hessians of a model.

        Args:
            model: the model.

        Returns:
            See `hessian_errors`; empty if `validate_hessians` is off or there are no Hessians.
        """
        if not self.config.validate_hessians or not self.data.has("hessian"):
            return {}
        self.communicator.broadcast(model.buffers())
        return hessian_errors(
            model, self.data, dtype=self.dtype, device=self.device, max_atoms=self.config.batch.atoms,
            communicator=self.communicator,
        )  # fmt: skip

    def validate(self, model: Potential, weights: Mapping[str, float], state: TrainState) -> ValidationMetrics:
        """Compute the errors of a model, update the state of the run, and write the model if it is the best so far.

        Args:
            model: the model.
            weights: weight of each loss term by name.
            state: progress of the run; changed here.

        Returns:
            The errors.

        Raises:
            NonFiniteLossError: the loss is not finite.
        """
        scores = self.errors(model, weights)
        if not math.isfinite(scores.loss):
            raise NonFiniteLossError(
                f"step {state.step}: the validation loss is not a finite number. The last good state is in "
                f"{self.writer.folder / 'checkpoint.safetensors'}; lower optimizer.learning_rate, or look at the "
                "validation labels with `hesse info`."
            )
        # The validation after the last step may be an additional one: if the run goes on with more steps, schedules and
        # early stopping are as if it had not been.
        is_regular = state.step % self.config.validate_every == 0
        if is_regular:
            state.plateau.update(scores.loss, self.config.schedule)
        if scores.loss < state.best_loss:
            state.best_loss, state.best_step, state.n_without_improvement = scores.loss, state.step, 0
            self.writer.write("model", state.step, scores.as_row())
        elif is_regular:
            state.n_without_improvement += 1
        return scores

    def should_stop(self, state: TrainState) -> bool:
        """True if early stopping or the plateau schedule ends the run.

        Args:
            state: progress of the run.

        Returns:
            Whether to stop.
        """
        config = self.config
        if config.early_stopping is not None and state.n_without_improvement >= config.early_stopping:
            return True
        rate = config.optimizer.learning_rate * state.plateau.factor
        return config.schedule.kind == "plateau" and rate < config.schedule.stop_below


def _accumulate(
    totals: Mapping[str, SquaredErrors],
    predictions: Properties,
    labels: Properties,
    has_hessian: Tensor,
    names: list[StructureName],
) -> None:
    """Add squared errors and the number of components, label by label."""
    n, index = labels.n_atoms, segment_ids(labels.n_atoms)
    if labels.energy is not None and predictions.energy is not None:
        mask = labels.mask("energy")
        squared = torch.where(mask, predictions.energy - labels.energy, 0.0).to(torch.float64).square()
        totals["energy"].add(names, squared, mask)
        totals["energy_per_atom"].add(names, squared / n**2, mask)
    for name in label_names():
        value, target = predictions[name], labels[name]
        if value is None or target is None or name in ("energy", "hessian"):
            continue
        if QUANTITIES[name].per == "structure":
            mask = labels.mask(name)
            difference = torch.where(mask, (value - target).reshape(len(n), -1).to(torch.float64).T, 0.0)
            totals[name].add(names, difference.square().sum(0), len(difference) * mask)
            continue
        mask = torch.atleast_2d(labels.mask(name))
        difference = (value - target).reshape(len(mask), len(index), -1).to(torch.float64)
        of_atom = torch.where(mask[:, index, None], difference, 0.0).square().sum((0, 2))
        squared = of_atom.new_zeros(len(n)).index_add(0, index, of_atom)
        n_pairs = mask.sum(0)
        totals[name].add(names, squared, difference.shape[2] * n * n_pairs)
        if name == "hvp":  # E|ΔH v|² = ‖ΔH‖²
            totals["hessian"].add(names, squared / n_pairs.clamp(min=1), 9 * n * n * has_hessian)


def _local_batches(
    data: DatasetLike, max_atoms: int, communicator: Communicator, *, label: str | None = None
) -> Iterator[tuple[Dataset, list[int]]]:
    """Batches of the structures of this process, if given of those with a label: a part of the data in memory, and
    indices in it."""
    for _, part in data.iter_in_memory():
        chosen = range(len(part)) if label is None else torch.nonzero(part.mask(label))[:, 0].tolist()
        local_indices = communicator.partition(chosen, part.n_atoms.tolist())
        yield from ((part, indices) for indices in part.batch_indices(max_atoms, order=local_indices))
