"""The noise floor of labels: errors below it contain no information about the model.

For forces, Hessian-vector products and Hessians, symmetry fixes the exact value of some combinations of a structure's
labels (no net force, no torque, `H t = 0`, `H (e x r) = e x g`; see `hesse.datasets.quality.sum_rules`). The deviation
of the stored labels from these values is noise, measured without a second calculation. Hessians are compared after
symmetrization, so their noise is measured there as well: by the sum rules of (H + Hᵀ)/2, and by the antisymmetric part
(H − Hᵀ)/2, which for independent errors of the elements is as large as the error that remains.

Labels with error estimates (`forces_error`, `hvp_error`, `hessian_error`, `energy_error`) give one more estimate, the
root mean square of these. The largest estimate is reported. Each of them contains only a part of the errors (a reader
that removed the net force has also removed the trace of its noise), so the noise floor is a lower bound.

Energies have no sum rule. Without `energy_error`, the floor is the resolution at which they were stored, if that can be
recognized: when every energy is a single-precision number (in eV, Hartree or kcal/mol), rounding left an error of one
unit in the last place over √12. Otherwise no floor is given.

Errors that all labels have in common, such as those of the level of theory, are not contained in any of these
estimates.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from hesse.datasets import Dataset
from hesse.datasets.quality.sum_rules import sum_rule_errors
from hesse.evaluation.parity import ErrorSums, symmetrized_hessian
from hesse.structures import QUANTITIES, Properties, component_counts, label_names, segment_ids
from hesse.units import ENERGY_UNITS

__all__ = ["float32_resolution", "noise_estimates"]

STORED_UNITS = ("ev", "hartree", "kcal/mol")
"""Energy units in which data sets store single-precision numbers."""


def noise_estimates(dataset: Dataset) -> Mapping[str, tuple[ErrorSums, ...]]:
    """Independent estimates of the label noise of each property; the noise floor is the largest of their root mean
    squares.

    Args:
        dataset: structures and labels.

    Returns:
        By property (one of `property_names`), the estimates as sums per structure, in the unit of the property. The
        counts are the numbers of label values (components, elements) with an estimate.
    """
    labels, n = dataset.labels, dataset.labels.n_atoms.numpy()
    counts = {
        "energy": np.ones_like(n),
        "energy_per_atom": np.ones_like(n),
        "forces": 3 * n,
        "hvp": 3 * n * labels.mask("hvp").sum(0).numpy(),
        "hessian": 9 * n * n,
    }
    symmetric = symmetrized_hessian(labels)
    defects = sum_rule_errors(dataset.structures, labels.replace(hessian=symmetric))
    estimates = {name: [defects.noise(name).numpy()] for name in ("forces", "hvp", "hessian")}
    if labels.hessian is not None and symmetric is not None:
        estimates["hessian"].append(_antisymmetric_part(labels, labels.hessian - symmetric))
    for name in estimates:
        estimates[name].append(_stored_error(labels, name))
    energy = float32_resolution(dataset) if labels.energy_error is None else _stored_error(labels, "energy")
    estimates |= {"energy": [energy], "energy_per_atom": [energy / n]}
    for name in label_names():
        if name not in estimates and QUANTITIES[name].has_error:
            estimates[name] = [_stored_error(labels, name)]
            counts[name] = component_counts(QUANTITIES[name], labels.n_atoms).numpy()
    return {
        name: tuple(ErrorSums.from_repeated(part, counts[name]) for part in parts) for name, parts in estimates.items()
    }


def float32_resolution(dataset: Dataset) -> Float[ndarray, "structures"]:
    """Error left by rounding energies to single precision: one unit in the last place over √12.

    Args:
        dataset: structures and labels.

    Returns:
        The error of each structure's energy, eV; NaN for structures without an energy, and for all structures if the
        energies were not rounded to single precision.
    """
    labels = dataset.labels
    unknown = np.full(len(dataset), np.nan)
    has_energy = labels.mask("energy").numpy()
    if labels.energy is None or not has_energy.any():
        return unknown
    energies = np.where(has_energy, labels.energy.numpy(), 0.0)
    for unit in STORED_UNITS:
        stored = energies / ENERGY_UNITS[unit]
        with np.errstate(over="ignore"):
            rounded = stored.astype(np.float32)
        # The conversion of units rounds a few times in double precision: far below single precision.
        if (np.abs(stored - rounded.astype(np.float64)) <= 8 * np.finfo(np.float64).eps * np.abs(stored)).all():
            step = np.spacing(np.abs(rounded)).astype(np.float64) * ENERGY_UNITS[unit]
            return np.where(has_energy, step / np.sqrt(12.0), np.nan)
    return unknown


def _antisymmetric_part(labels: Properties, antisymmetric: Float[Tensor, "elements"]) -> Float[ndarray, "structures"]:
    """Root mean square of (H − Hᵀ)/2 over the elements off the diagonal."""
    squared = ErrorSums.from_values(antisymmetric, segment_ids(labels.hessian_lengths()), len(labels)).squared
    rows = 3 * labels.n_atoms.numpy()
    return np.where(labels.mask("hessian").numpy(), np.sqrt(squared / (rows * (rows - 1))), np.nan)


def _stored_error(labels: Properties, name: str) -> Float[ndarray, "structures"]:
    """The stored error estimate of each structure's label (root mean square over probes), NaN where there is none."""
    stored: Tensor | None = getattr(labels, f"{name}_error")
    if stored is None:
        return np.full(len(labels), np.nan)
    errors = torch.where(labels.mask(name), stored.double(), torch.nan)
    return (errors.square().nanmean(0).sqrt() if errors.ndim == 2 else errors).numpy()
