"""Reference and predicted values matched one to one, and their errors summed per structure.

The sums are kept per structure because a data set, a tag and a bootstrap sample differ only in the structures that are
added up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from hesse.datasets import Dataset
from hesse.errors import LabelShapeError, LabelValueError, RequestError, did_you_mean
from hesse.structures import Properties, segment_ids
from hesse.structures.hessian_blocks import symmetrize_blocks

__all__ = ["PROPERTIES", "UNITS", "ErrorSums", "matched_values", "symmetrized_hessian"]


@dataclass(frozen=True, eq=False)
class ErrorSums:
    """Sums of squared and absolute values of each structure, and the number of values.

    Attributes:
        squared: sums of squares, in the squared unit of the values.
        absolute: sums of absolute values, in the unit of the values.
        counts: number of values of each structure, 0 where it has none.
    """

    squared: Float[ndarray, "structures"]
    absolute: Float[ndarray, "structures"]
    counts: Int[ndarray, "structures"]

    @classmethod
    def from_values(
        cls, values: Float[Tensor, "values"], structure_index: Int[Tensor, "values"], n_structures: int
    ) -> ErrorSums:
        """Sums of values that belong to structures.

        Args:
            values: the values, in any order.
            structure_index: index of the structure that each value belongs to.
            n_structures: number of structures.

        Returns:
            The sums of all structures, in float64.
        """
        array, index = values.detach().double().cpu().numpy(), structure_index.cpu().numpy()
        return cls(
            np.bincount(index, array * array, n_structures),
            np.bincount(index, np.abs(array), n_structures),
            np.bincount(index, minlength=n_structures),
        )

    @classmethod
    def from_repeated(cls, values: Float[ndarray, "structures"], counts: Int[ndarray, "structures"]) -> ErrorSums:
        """Sums of a constant value per structure.

        Args:
            values: the value of each structure; NaN for a structure without values.
            counts: how often each value is counted.

        Returns:
            The sums of all structures; counts are zero where the value is NaN.
        """
        finite = np.isfinite(values) & (counts > 0)
        counts, magnitudes = np.where(finite, counts, 0), np.where(finite, np.abs(values), 0.0)
        return cls(magnitudes * magnitudes * counts, magnitudes * counts, counts)

    def select(self, selection: Bool[ndarray, "structures"] | Int[ndarray, "chosen"]) -> ErrorSums:
        """Sums of a subset of the structures.

        Args:
            selection: a mask, or indices (which may repeat).

        Returns:
            The sums of the selected structures.
        """
        return ErrorSums(self.squared[selection], self.absolute[selection], self.counts[selection])

    def n_values(self) -> int:
        """Number of values.

        Returns:
            The number of values of all structures.
        """
        return int(self.counts.sum())

    def rms(self) -> float:
        """Root mean square.

        Returns:
            The root mean square over all values, NaN if there is none.
        """
        return float(np.sqrt(self.squared.sum() / n)) if (n := self.n_values()) else float("nan")

    def mean_absolute(self) -> float:
        """Mean absolute value.

        Returns:
            The mean absolute value over all values, NaN if there is none.
        """
        return float(self.absolute.sum() / n) if (n := self.n_values()) else float("nan")

    def rms_per_structure(self) -> Float[ndarray, "structures"]:
        """Root mean square of each structure's values.

        Returns:
            One number per structure, NaN where it has no values.
        """
        return np.sqrt(self.squared / np.where(self.counts, self.counts, np.nan))


UNITS: Final[Mapping[str, str]] = {
    "energy": "eV",
    "energy_per_atom": "eV/atom",
    "forces": "eV/Å",
    "hvp": "eV/Å²",
    "hessian": "eV/Å²",
}
"""Properties with an error, and the units of these errors."""

PROPERTIES: Final[tuple[str, ...]] = tuple(UNITS)


def matched_values(
    dataset: Dataset, predictions: Properties, property: str
) -> tuple[Float[Tensor, "values"], Float[Tensor, "values"], Int[Tensor, "values"]]:
    """Reference values and predicted values that exist on both sides: the points of a parity plot.

    Args:
        dataset: structures and reference labels.
        predictions: predictions for the same structures in the same order.
        property: one of `PROPERTIES`. Energies per atom are total energies divided by the number of atoms; Hessian
            elements are compared with the symmetrized reference (H + Hᵀ)/2; unused probe slots are skipped.

    Returns:
        Reference values, predicted values (both float64, in the unit of `UNITS`) and the index of the structure that
        each value belongs to; empty where either side lacks the property.

    Raises:
        RequestError: unknown property.
        LabelShapeError: the predictions are of other structures.
        LabelValueError: a value that is not a finite number; the message names the structure.
    """
    if property not in PROPERTIES:
        raise RequestError(f'unknown property "{property}". {did_you_mean(property, PROPERTIES)}')
    labels = dataset.labels
    if predictions.n_atoms.tolist() != labels.n_atoms.tolist():
        raise LabelShapeError(
            f"{dataset.source}: predictions for {len(predictions)} structures do not fit the {len(dataset)} of the "
            "data set; pass the result of predict() for this data set"
        )
    getters = {"energy": _energies, "energy_per_atom": _energies, "forces": _forces, "hvp": _hvp, "hessian": _hessian}
    reference, predicted, structure_index = getters[property](labels, predictions)
    if property == "energy_per_atom":
        n_atoms = labels.n_atoms[structure_index]
        reference, predicted = reference / n_atoms, predicted / n_atoms
    for values, kind in ((reference, "the label"), (predicted, "the prediction")):
        invalid = ~torch.isfinite(values)
        if bool(invalid.any()):
            name = dataset.structures[int(structure_index[invalid][0])].id
            raise LabelValueError(
                f'{dataset.source}: structure "{name}": {kind} of {property} is not a finite number. '
                "Remove the structure, or mask the label."
            )
    return reference, predicted, structure_index


_MatchedValues = tuple[Tensor, Tensor, Tensor]


def _energies(labels: Properties, predictions: Properties) -> _MatchedValues:
    index = (labels.mask("energy") & predictions.mask("energy")).nonzero()[:, 0]
    return _values(labels.energy, index), _values(predictions.energy, index), index


def _forces(labels: Properties, predictions: Properties) -> _MatchedValues:
    structure_index = segment_ids(labels.n_atoms)
    index = (labels.mask("forces") & predictions.mask("forces"))[structure_index].nonzero()[:, 0]
    return (
        _values(labels.forces, index),
        _values(predictions.forces, index),
        structure_index[index].repeat_interleave(3),
    )


def _hvp(labels: Properties, predictions: Properties) -> _MatchedValues:
    n_probes = min(labels.mask("hvp").shape[0], predictions.mask("hvp").shape[0])
    structure_index = segment_ids(labels.n_atoms)
    mask = (labels.mask("hvp")[:n_probes] & predictions.mask("hvp")[:n_probes])[:, structure_index]
    reference, predicted = (s.hvp if s.hvp is None else s.hvp[:n_probes][mask] for s in (labels, predictions))
    atom_index = mask.nonzero()[:, 1]
    all_indices = torch.arange(len(atom_index))
    return (
        _values(reference, all_indices),
        _values(predicted, all_indices),
        structure_index[atom_index].repeat_interleave(3),
    )


def _hessian(labels: Properties, predictions: Properties) -> _MatchedValues:
    mask = labels.mask("hessian") & predictions.mask("hessian")
    reference = _hessian_elements(labels, symmetrized_hessian(labels), mask)
    predicted = _hessian_elements(predictions, predictions.hessian, mask)
    return reference, predicted, segment_ids(9 * labels.n_atoms**2 * mask)


def _values(values: Tensor | None, index: Int[Tensor, "chosen"]) -> Float[Tensor, "values"]:
    return torch.zeros(0, dtype=torch.float64) if values is None else values[index].double().reshape(-1)


def _hessian_elements(
    labels: Properties, flat: Tensor | None, mask: Bool[Tensor, "structures"]
) -> Float[Tensor, "elements"]:
    if flat is None:
        return torch.zeros(0, dtype=torch.float64)
    return flat[mask[segment_ids(labels.hessian_lengths())]].double()


def symmetrized_hessian(labels: Properties) -> Float[Tensor, "elements"] | None:
    """(H + Hᵀ)/2 of every stored Hessian. An exact Hessian is symmetric, so the antisymmetric part is noise.

    Args:
        labels: properties with or without Hessians.

    Returns:
        The elements in the flat layout of `labels.hessian`, eV/Å²; None if there is no Hessian.
    """
    if labels.hessian is None:
        return None
    return symmetrize_blocks(labels.hessian, labels.n_atoms, labels.mask("hessian"))
