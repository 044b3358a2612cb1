"""Arrays of `Properties` records: sizes, values of one structure, filling for concatenation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from hesse.errors import LabelShapeError, LabelValueError
from hesse.structures.quantities import Column, Quantity

__all__ = ["component_counts", "padded_array", "single_array"]


def component_counts(entry: Quantity, n_atoms: Int[Tensor, "structures"]) -> Int[Tensor, "structures"]:
    """Number of values of each structure (of each product, for products).

    Args:
        entry: a quantity.
        n_atoms: numbers of atoms.

    Returns:
        The numbers, `[structures]`.
    """
    if entry.per == "element":
        return 9 * n_atoms * n_atoms
    components = math.prod(entry.components)
    return n_atoms * components if "atom" in entry.per else torch.full_like(n_atoms, components)


_EXAMPLES: Mapping[str, str] = {"element": " A flat one of {size} numbers: .reshape({n}, 3, {n}, 3)."}


def single_array(column: Column, value: Any, n: int, structure_id: str) -> Tensor:
    """Convert a value of one structure to an array of a record.

    Args:
        column: the array.
        value: numbers, in the shape that `Properties.single` describes.
        n: number of atoms of the structure.
        structure_id: id of the structure, for the message.

    Returns:
        The array of a record with this structure only.

    Raises:
        LabelShapeError: another shape.
        LabelValueError: not numbers, or a weight below zero.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise LabelValueError(
            f'structure "{structure_id}": {column.name} = {str(value)[:60]}: expected numbers in a regular array'
        ) from None
    shape: tuple[int | None, ...] = {
        "structure": column.components,
        "atom": (n, *column.components),
        "probe atom": (None, n, *column.components),
        "probe structure": (None,),
        "element": (n, 3, n, 3),
    }[column.axes]
    fits = array.ndim == len(shape) and all(w is None or g == w for g, w in zip(array.shape, shape, strict=True))
    if not fits:
        expected = tuple("any" if want is None else want for want in shape)
        hint = _EXAMPLES.get(column.axes, "").format(size=9 * n * n, n=n)
        raise LabelShapeError(
            f'structure "{structure_id}": {column.name} of shape {array.shape}, expected {expected}.{hint}'
        )
    if column.name == "weight" and not array >= 0:
        raise LabelValueError(f'structure "{structure_id}": weight = {array}: expected 0 or more')
    tensor = torch.from_numpy(array)
    if column.is_flag:
        tensor = tensor.to(torch.bool)
    if column.axes == "structure":
        return tensor[None]
    if column.axes == "probe structure":
        return tensor[:, None]
    return tensor.reshape(-1) if column.axes == "element" else tensor


def padded_array(
    column: Column, value: Tensor | None, n_atoms: Int[Tensor, "structures"], n_probes: int, template: Tensor
) -> Tensor:
    """Fill an array of one record up for the concatenation with others.

    Missing values (also of further probes) are NaN, flags are False, and weights are one.

    Args:
        column: the array.
        value: its values; None if the record has none.
        n_atoms: numbers of atoms of the record.
        n_probes: number of probes after the concatenation.
        template: an array of the same kind, for type and device.

    Returns:
        The array.
    """
    missing = 0.0 if column.is_flag else {"weight": 1.0}.get(column.name, torch.nan)
    n_rows = len(n_atoms) if column.rows == "structure" else int(n_atoms.sum())
    if column.probe_axis:
        n_present = 0 if value is None else value.shape[0]
        padding = template.new_full((n_probes - n_present, n_rows, *column.components), missing)
        return padding if value is None else torch.cat([value, padding])
    return template.new_full((n_rows, *column.components), missing) if value is None else value
