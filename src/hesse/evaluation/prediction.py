"""Predictions of a potential for a data set, in batches that fit in memory."""

from __future__ import annotations

import copy

import torch

from hesse.curvature import evaluate_structures
from hesse.curvature.energy_derivatives import further_output_names
from hesse.datasets import Dataset, DatasetSource, as_dataset
from hesse.engines import PotentialLike, as_potential
from hesse.errors import check_numbers
from hesse.potential import Potential, check_elements, dtype_and_device
from hesse.runtime.dtypes import as_dtype
from hesse.structures import Properties, Request, segment_ids

__all__ = ["check_known_elements", "predict"]


def predict(
    model: PotentialLike,
    data: DatasetSource,
    *,
    memory_mib: float | None = None,
    hessian: bool = True,
    dtype: torch.dtype | None = None,
    quiet: bool = True,
) -> Properties:
    """Predict every label that a data set holds: energies and forces of all structures, Hessian-vector products along
    the stored probes, Hessians of the structures that have one.

    Args:
        model: a potential, the path or name of one (`mace:FILE`), or the result of training. It is not modified.
        data: a data set or the path of its file. Its labels determine the predictions that are made.
        memory_mib: memory limit of one batch; None for a default by device. A structure that exceeds it runs alone.
        hessian: whether to predict Hessians.
        dtype: floating-point type of the calculation; by default that of the potential. Another one works on a copy.
        quiet: show no progress.

    Returns:
        Predictions in the order of the data set, float64, on the CPU, in eV, eV/Å and eV/Å²; masked where the data set
        has no Hessian-vector product or Hessian.

    Raises:
        RequestError: `model` is not a potential, `data` is not a data set, or another dtype.
        ConfigError: a memory limit that is not a positive number.
        UnknownElementError: the potential does not know an element; the message names the first structure.
        EngineError: a prediction that is not a finite number; the message names the structure.
    """
    potential, dataset = as_potential(model), as_dataset(data)
    if memory_mib is not None:
        check_numbers(memory_mib=memory_mib)
    dtype = None if dtype is None else as_dtype(dtype)
    check_known_elements(potential, dataset)
    if dtype not in (None, dtype_and_device(potential)[0]):
        potential = copy.deepcopy(potential).to(dtype)
    has_hessian = dataset.labels.mask("hessian") & hessian
    predictions, order = [], []
    for with_hessian in (False, True):
        members = (has_hessian == with_hessian).nonzero()[:, 0]
        if len(members):
            part = dataset.select(members)
            predictions.append(_predict_part(potential, part, hessian=with_hessian, memory_mib=memory_mib, quiet=quiet))
            order.append(members)
    return Properties.concatenate(predictions).select(torch.cat(order).argsort())


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
    holders = [s for s in dataset.structures if unknown.intersection(s.numbers.tolist())]
    count = f"{len(holders)} of {len(dataset)} structures hold unknown elements"
    where = f'{dataset.source}: {count}; structure "{holders[0].id}"'
    check_elements(potential, holders[0].numbers, where=where)


def _predict_part(
    potential: Potential, dataset: Dataset, *, hessian: bool, memory_mib: float | None, quiet: bool
) -> Properties:
    """Predictions for structures all or none of which have a Hessian."""
    labels, probes, probe_mask = dataset.labels, None, dataset.labels.mask("hvp")
    unused = ~probe_mask[:, segment_ids(labels.n_atoms), None]
    if labels.probes is not None and bool(probe_mask.any()):
        # Unused slots hold NaN. A zero direction costs little, and its product is masked below.
        probes = labels.probes.masked_fill(unused, 0.0)
    request = Request(
        energy=True,
        forces=True,
        probes=probes,
        hessian=hessian,
        atomic_energies=potential.has_atomic_energies and labels.atomic_energies is not None,
        stress=bool(labels.mask("stress").any()) and any(all(s.pbc) for s in dataset.structures),
        **{name: labels[name] is not None for name in further_output_names(potential)},
    )
    predictions = evaluate_structures(potential, dataset.structures, request, memory_mib=memory_mib, quiet=quiet)
    if predictions.hvp is None:
        return predictions
    return predictions.replace(hvp=predictions.hvp.masked_fill(unused, torch.nan), hvp_mask=probe_mask)
