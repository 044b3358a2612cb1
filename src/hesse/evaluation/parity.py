"""Reference and predicted values matched one to one, and their errors summed per structure.

The sums are kept per structure because a data set, a tag and a bootstrap sample differ only in the structures that are
added up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from hesse.datasets import Dataset
from hesse.errors import LabelShapeError, LabelValueError, RequestError, did_you_mean
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Properties, label_names, quantity, segment_ids
from hesse.structures.hessian_blocks import symmetrize_blocks

__all__ = ["ErrorSums", "matched_values", "property_names", "property_unit", "symmetrized_hessian"]


@dataclass(frozen=True, eq=False, repr=False)
class ErrorSums(ShortRepr):
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


def property_names() -> tuple[str, ...]:
    """Properties whose errors are evaluated: the labels of the table of quantities, and energies per atom.

    Returns:
        The names, in the order of reports.
    """
    names = [*label_names()]
    names.insert(1, "energy_per_atom")
    return tuple(names)


def property_unit(name: str) -> str:
    """Unit of the error of a property.

    Args:
        name: one of `property_names`.

    Returns:
        The unit, for example "eV/Å".
    """
    return "eV/atom" if name == "energy_per_atom" else quantity(name).unit


def matched_values(
    dataset: Dataset, predictions: Properties, property: str
) -> tuple[Float[Tensor, "values"], Float[Tensor, "values"], Int[Tensor, "values"]]:
    """Reference values and predicted values that exist on both sides: the points of a parity plot.

    Args:
        dataset: structures and reference labels.
        predictions: predictions for the same structures in the same order.
        property: one of `property_names`. Energies per atom are total energies divided by the number of atoms; Hessian
            elements are compared with the symmetrized reference (H + Hᵀ)/2; unused probe slots are skipped.

    Returns:
        Reference values, predicted values (both float64, in the unit of `property_unit`) and the index of the structure
        that each value belongs to; empty where either side lacks the property.

    Raises:
        RequestError: unknown property.
        LabelShapeError: the predictions are of other structures.
        LabelValueError: a value that is not a finite number; the message names the structure.
    """
    if property not in property_names():
        raise RequestError(f'unknown property "{property}". {did_you_mean(property, property_names())}')
    labels = dataset.labels
    if predictions.n_atoms.tolist() != labels.n_atoms.tolist():
        raise LabelShapeError(
            f"{dataset.source}: predictions for {len(predictions)} structures do not fit the {len(dataset)} of the "
            "data set; pass the result of predict() for this data set"
        )
    reference, predicted, structure_index = _matched(labels, predictions, property)
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


def _matched(labels: Properties, predictions: Properties, property: str) -> _MatchedValues:
    name = "energy" if property == "energy_per_atom" else property
    if quantity(name).per == "element":
        return _hessian(labels, predictions)
    if quantity(name).per == "probe atom":
        return _hvp(labels, predictions)
    rows = segment_ids(labels.n_atoms) if quantity(name).per == "atom" else torch.arange(len(labels))
    index = (labels.mask(name) & predictions.mask(name))[rows].nonzero()[:, 0]
    per_row = math.prod(quantity(name).components)
    reference, predicted = _values(labels[name], index), _values(predictions[name], index)
    return reference, predicted, rows[index].repeat_interleave(per_row)


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
