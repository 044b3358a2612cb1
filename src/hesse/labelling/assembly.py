"""From the ledger to a data set. Arrays are made once, in their final size, and filled structure by structure: a
campaign of many Hessians is held in memory once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hesse.labelling.ledger import Record
from hesse.labelling.payload import labels_from_bytes
from hesse.labelling.request import FORCES, HESSIAN, STRESS, LabelSpec, hvp_quantities
from hesse.structures import Properties, Structure, segment_offsets

__all__ = ["assemble_labels"]


def assemble_labels(
    structures: Sequence[Structure], spec: LabelSpec, records: Iterable[Mapping[str, Record]]
) -> Properties:
    """The labels of `structures`, each of which has a record of every quantity of `request`.

    Raises:
        FileFormatError: a damaged record.
    """
    sizes = torch.tensor([len(s) for s in structures])
    n_structures, n_atoms = len(structures), int(sizes.sum())
    atom_offsets, hessian_offsets = segment_offsets(sizes).tolist(), segment_offsets(9 * sizes**2).tolist()
    products = hvp_quantities(spec.quantities())
    arrays: dict[str, Tensor] = {"energy": _nan_tensor(n_structures), "forces": _nan_tensor(n_atoms, 3)}
    arrays |= {"energy_error": _nan_tensor(n_structures), "forces_error": _nan_tensor(n_structures)}
    if products:
        arrays |= {name: _nan_tensor(len(products), n_atoms, 3) for name in ("probes", "hvp")}
        arrays["hvp_error"] = _nan_tensor(len(products), n_structures)
    if spec.hessian:
        arrays |= {"hessian": _nan_tensor(int((9 * sizes**2).sum())), "hessian_error": _nan_tensor(n_structures)}
    if spec.stress:
        arrays["stress"] = _nan_tensor(n_structures, 3, 3)
    suspect = torch.zeros(n_structures, dtype=torch.bool)
    for i, structure_records in enumerate(records):
        atom_slice = slice(atom_offsets[i], atom_offsets[i + 1])
        targets: dict[str, dict[str, Any]] = {
            FORCES: {"energy": (i,), "forces": (atom_slice,), "energy_error": (i,), "forces_error": (i,)},
            HESSIAN: {"hessian": (slice(hessian_offsets[i], hessian_offsets[i + 1]),), "hessian_error": (i,)},
            STRESS: {"stress": (i,)},
        }
        for k, quantity in enumerate(products):
            targets[quantity] = {"probes": (k, atom_slice), "hvp": (k, atom_slice), "hvp_error": (k, i)}
        for quantity, record in structure_records.items():
            labels = labels_from_bytes(record.payload)
            for name, index in targets[quantity].items():
                value = getattr(labels, name)
                if value is not None:
                    view = arrays[name][index]
                    view.copy_(value.reshape(view.shape))
            suspect[i] |= bool(record.suspect_reason)
    present = {name: value for name, value in arrays.items() if not (name.endswith("_error") and bool(value.isnan().all()))}
    return Properties(n_atoms=sizes, suspect=suspect if bool(suspect.any()) else None, **present)


def _nan_tensor(*shape: int) -> Tensor:
    return torch.full(shape, torch.nan, dtype=torch.float64)
