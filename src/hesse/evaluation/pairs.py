"""Reference beside prediction, value by value, where both exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hesse.datasets import Dataset
from hesse.errors import LabelShapeError, LabelValueError, RequestError, nearest_name
from hesse.structures import Labels, offsets_of, owners_of

__all__ = ["PROPERTIES", "UNITS", "paired", "symmetrised_hessian"]

UNITS: Final[Mapping[str, str]] = {
    "energy": "eV",
    "energy_per_atom": "eV/atom",
    "forces": "eV/Å",
    "hvp": "eV/Å²",
    "hessian": "eV/Å²",
}
"""The properties that are judged, and the units of their errors."""

PROPERTIES: Final[tuple[str, ...]] = tuple(UNITS)


def paired(
    dataset: Dataset, predictions: Labels, property: str
) -> tuple[Float[Tensor, "values"], Float[Tensor, "values"], Int[Tensor, "values"]]:
    """Reference values, predicted values, and the structure each pair belongs to: what a parity plot shows.

    Energies per atom are total energies over the number of atoms. Hessian elements are those of the symmetrised
    reference (H + Hᵀ)/2. Probes are counted from the first; an unused place is skipped. Empty where either side lacks
    the property.

    Raises:
        RequestError: no such property.
        LabelShapeError: predictions of other structures.
        LabelValueError: a value that is not a finite number; the message names the structure.
    """
    if property not in PROPERTIES:
        raise RequestError(f'no property "{property}" is judged. {nearest_name(property, PROPERTIES)}')
    labels = dataset.labels
    if predictions.n_atoms.tolist() != labels.n_atoms.tolist():
        raise LabelShapeError(
            f"{dataset.source}: predictions for {len(predictions)} structures do not fit the {len(dataset)} of the "
            "data set; judge what predict() returned for this very data set"
        )
    view = {"energy": _energies, "energy_per_atom": _energies, "forces": _forces, "hvp": _hvp, "hessian": _hessian}
    reference, predicted, owner = view[property](labels, predictions)
    if property == "energy_per_atom":
        atoms = labels.n_atoms[owner]
        reference, predicted = reference / atoms, predicted / atoms
    for values, what in ((reference, "the label"), (predicted, "the prediction")):
        broken = ~torch.isfinite(values)
        if bool(broken.any()):
            name = dataset.structures[int(owner[broken][0])].id
            raise LabelValueError(
                f'{dataset.source}: structure "{name}": {what} of {property} is not a finite number. '
                "Remove the structure, or mask the label."
            )
    return reference, predicted, owner


_Pair = tuple[Tensor, Tensor, Tensor]


def _energies(labels: Labels, predictions: Labels) -> _Pair:
    index = (labels.mask("energy") & predictions.mask("energy")).nonzero()[:, 0]
    return _values(labels.energy, index), _values(predictions.energy, index), index


def _forces(labels: Labels, predictions: Labels) -> _Pair:
    owner = owners_of(labels.n_atoms)
    index = (labels.mask("forces") & predictions.mask("forces"))[owner].nonzero()[:, 0]
    return _values(labels.forces, index), _values(predictions.forces, index), owner[index].repeat_interleave(3)


def _hvp(labels: Labels, predictions: Labels) -> _Pair:
    shared = min(labels.mask("hvp").shape[0], predictions.mask("hvp").shape[0])
    owner = owners_of(labels.n_atoms)
    both = (labels.mask("hvp")[:shared] & predictions.mask("hvp")[:shared])[:, owner]
    reference, predicted = (s.hvp if s.hvp is None else s.hvp[:shared][both] for s in (labels, predictions))
    index = both.nonzero()[:, 1]
    every = torch.arange(len(index))
    return _values(reference, every), _values(predicted, every), owner[index].repeat_interleave(3)


def _hessian(labels: Labels, predictions: Labels) -> _Pair:
    both = labels.mask("hessian") & predictions.mask("hessian")
    reference = _hessian_elements(labels, symmetrised_hessian(labels), both)
    predicted = _hessian_elements(predictions, predictions.hessian, both)
    return reference, predicted, owners_of(9 * labels.n_atoms**2 * both)


def _values(values: Tensor | None, index: Int[Tensor, "chosen"]) -> Float[Tensor, "values"]:
    return torch.zeros(0, dtype=torch.float64) if values is None else values[index].double().reshape(-1)


def _hessian_elements(side: Labels, flat: Tensor | None, keep: Bool[Tensor, "structures"]) -> Float[Tensor, "elements"]:
    if flat is None:
        return torch.zeros(0, dtype=torch.float64)
    return flat[keep[owners_of(side.hessian_lengths())]].double()


def symmetrised_hessian(labels: Labels) -> Float[Tensor, "elements"] | None:
    """(H + Hᵀ)/2 of every stored Hessian, flat as `labels.hessian`: an exact Hessian is symmetric, so the part that is
    not is noise. None where there is no Hessian."""
    if labels.hessian is None:
        return None
    lengths = labels.hessian_lengths()
    owner = owners_of(lengths)
    start, size = offsets_of(lengths)[owner], 3 * labels.n_atoms[owner]
    inside = torch.arange(len(owner)) - start
    transposed = start + inside % size * size + inside // size
    return 0.5 * (labels.hessian + labels.hessian[transposed])
