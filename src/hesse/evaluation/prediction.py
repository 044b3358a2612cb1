"""Predictions of a potential for a data set, in batches that fit in memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from ase.data import chemical_symbols
from torch import Tensor

from hesse.curvature import check_finite
from hesse.curvature import evaluate as evaluate_batch
from hesse.datasets import Dataset, DatasetSource, as_dataset
from hesse.engines import PotentialLike, as_potential
from hesse.errors import RequestError, UnknownElementError, check_whole_numbers
from hesse.potential import Potential, dtype_and_device, evaluation_mode
from hesse.runtime.progress import track
from hesse.structures import Batch, Properties, Request, segment_ids

__all__ = ["DEFAULT_MAX_ATOMS", "check_known_elements", "predict"]

DEFAULT_MAX_ATOMS = 1024
"""Atoms per batch."""


def predict(
    model: PotentialLike,
    data: DatasetSource,
    *,
    max_atoms: int = DEFAULT_MAX_ATOMS,
    hessian: bool = True,
    dtype: torch.dtype | None = None,
    quiet: bool = True,
) -> Properties:
    """Predict every label that a data set holds: energies and forces of all structures, Hessian-vector products along
    the stored probes, Hessians of the structures that have one.

    Args:
        model: a potential, the path or name of one (`mace:FILE`), or the result of training. It is not modified.
        data: a data set or the path of its file. Its labels determine the predictions that are made.
        max_atoms: atoms per batch; a larger structure runs alone.
        hessian: whether to predict Hessians.
        dtype: floating-point type of the calculation; by default that of the potential. Another one works on a copy.
        quiet: show no progress.

    Returns:
        Predictions in the order of the data set, float64, on the CPU, in eV, eV/Å and eV/Å²; masked where the data set
        has no Hessian-vector product or Hessian.

    Raises:
        RequestError: `model` is not a potential, `data` is not a data set, `max_atoms` is below one, or another dtype.
        UnknownElementError: the potential does not know an element; the message names the first structure.
        EngineError: a prediction that is not a finite number; the message names the structure.
    """
    potential, dataset = as_potential(model), as_dataset(data)
    check_whole_numbers(max_atoms=max_atoms)
    if dtype not in (None, torch.float32, torch.float64):
        raise RequestError(f"expected dtype torch.float64 or torch.float32, got {dtype!r}")
    if max_atoms < 1:
        raise RequestError(f"max_atoms must be at least 1, got {max_atoms}")
    check_known_elements(potential, dataset)
    own_dtype, device = dtype_and_device(potential)
    if dtype is None:
        dtype = own_dtype
    elif dtype != own_dtype:
        potential = copy.deepcopy(potential).to(dtype)

    predictions: list[Properties] = []
    order: list[int] = []
    with evaluation_mode(potential), track("predicting", len(dataset), quiet=quiet) as advance:
        for indices, with_hessian in _batches(dataset, max_atoms, hessian):
            batch, labels = dataset.batch(indices, potential.cutoff, dtype=dtype, device=device)
            predictions.append(_predict_batch(potential, batch, labels, with_hessian))
            order += indices
            advance(len(indices))
    return Properties.concatenate(predictions).select(torch.tensor(order).argsort())


def check_known_elements(potential: Potential, dataset: Dataset) -> None:
    """Check that a potential knows all elements of a data set.

    Args:
        potential: its `elements` are the ones it knows; empty means all.
        dataset: the structures.

    Raises:
        UnknownElementError: a structure contains another element; the message names the first such structure.
    """
    unknown = set(dataset.elements) - set(potential.elements)
    if not potential.elements or not unknown:
        return
    first = next(s for s in dataset.structures if unknown.intersection(s.numbers.tolist()))
    symbol = chemical_symbols[min(unknown.intersection(first.numbers.tolist()))]
    known = ", ".join(chemical_symbols[z] for z in sorted(potential.elements))
    n_unknown = sum(1 for s in dataset.structures if unknown.intersection(s.numbers.tolist()))
    raise UnknownElementError(
        f'{dataset.source}: structure "{first.id}" contains {symbol}, but the potential knows only {known} '
        f"({n_unknown} of {len(dataset)} structures contain an element it does not know). "
        "Leave them out, or train a model on data that contain the element."
    )


def _batches(dataset: Dataset, max_atoms: int, hessian: bool) -> Iterator[tuple[list[int], bool]]:
    """Indices of the structures of each batch, and whether it is predicted with Hessians. Small structures come first,
    so that the Hessians of a batch have similar numbers of columns."""
    has_hessian = dataset.labels.mask("hessian") & hessian
    sizes = dataset.labels.n_atoms
    for with_hessian in (False, True):
        members = (has_hessian == with_hessian).nonzero()[:, 0]
        ordered: Sequence[int] = members[sizes[members].argsort(stable=True)].tolist()
        for indices in dataset.batch_indices(max_atoms, order=ordered):
            yield indices, with_hessian


def _predict_batch(potential: Potential, batch: Batch, labels: Properties, hessian: bool) -> Properties:
    probes, probe_mask = None, labels.mask("hvp")
    if labels.probes is not None and bool(probe_mask.any()):
        # Unused slots hold NaN. A zero direction costs little, and its product is masked below.
        probes = torch.where(probe_mask[:, segment_ids(labels.n_atoms), None], labels.probes, 0.0)
    predictions = evaluate_batch(potential, batch, Request(energy=True, forces=True, probes=probes, hessian=hessian))
    check_finite(batch, predictions)
    predictions = predictions.replace(regularizer=None).map_tensors(Tensor.double).to("cpu")
    if predictions.hvp is None:
        return predictions
    probe_mask = probe_mask.cpu()
    hvp = torch.where(probe_mask[:, segment_ids(predictions.n_atoms), None], predictions.hvp, torch.nan)
    return predictions.replace(hvp=hvp, hvp_mask=probe_mask)
