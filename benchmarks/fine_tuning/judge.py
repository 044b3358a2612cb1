"""Errors of a potential: energies, forces, Hessians, frequencies, and the median structure beside the mean square."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import hesse
from hesse.evaluation.curvature_errors import BANDS, compare_hessians

__all__ = ["judge"]

BAND_LIMITS = {name: (low, high) for name, low, high in BANDS}


def judge(potential: hesse.Potential, data: hesse.Dataset) -> Mapping[str, Any]:
    """Errors on labeled structures.

    Frequencies are those of mass-weighted, projected Hessians at the stored geometries, which are no stationary points,
    compared in ascending order; a range of frequencies is one of the reference.

    Args:
        potential: what is judged.
        data: structures with energies, forces and Hessians.

    Returns:
        energy (eV, of the energies less their mean error), forces (eV/Å) and hessian (eV/Å²): root mean squares; median
        hessian: median of those of the structures; frequencies, all and by range (cm⁻¹): mean absolute errors; negative
        modes: share of structures with the right number; hessians: that of each structure by id.
    """
    predicted, labels = hesse.predict(potential, data), data.labels
    assert predicted.energy is not None
    assert predicted.forces is not None
    assert labels.energy is not None
    assert labels.forces is not None
    squared = [
        np.square((predicted.hessian_of(i) - labels.hessian_of(i)).numpy()).reshape(-1) for i in range(len(data))
    ]
    by_structure = [float(np.sqrt(values.mean())) for values in squared]
    result: dict[str, Any] = {
        "energy": float(np.std((predicted.energy - labels.energy).numpy())),
        "forces": float(np.sqrt(np.square((predicted.forces - labels.forces).numpy()).mean())),
        "hessian": float(np.sqrt(np.concatenate(squared).mean())),
        "median hessian": float(np.median(by_structure)),
        "hessians": dict(zip(data.ids, by_structure, strict=True)),
    }
    compared = compare_hessians(data, predicted)
    reference = np.concatenate([c.reference.frequencies for c in compared])
    errors = np.abs(np.concatenate([c.predicted.frequencies for c in compared]) - reference)
    result["frequencies"] = float(errors.mean())
    for name, (low, high) in BAND_LIMITS.items():
        chosen = errors[(reference >= low) & (reference < high)]
        result[f"frequencies {name}"] = float(chosen.mean()) if len(chosen) else None
    result["negative modes"] = float(np.mean([c.predicted.n_imaginary == c.reference.n_imaginary for c in compared]))
    return result
