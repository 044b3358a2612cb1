"""From the ledger to a data set. Arrays are made once, in their final size, and filled structure by structure: a
campaign of many Hessians is held in memory once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hesse.labelling.ledger import Record
from hesse.labelling.payload import labels_from_bytes
from hesse.labelling.request import FORCES, HESSIAN, STRESS, LabelRequest, products_of
from hesse.structures import Labels, Structure, offsets_of

__all__ = ["assemble_labels"]


def assemble_labels(
    structures: Sequence[Structure], request: LabelRequest, records: Iterable[Mapping[str, Record]]
) -> Labels:
    """The labels of `structures`, each of which has a record of every quantity of `request`.

    Raises:
        FileFormatError: a damaged record.
    """
    sizes = torch.tensor([len(s) for s in structures])
    count, atoms = len(structures), int(sizes.sum())
    starts, blocks = offsets_of(sizes).tolist(), offsets_of(9 * sizes**2).tolist()
    products = products_of(request.quantities())
    made: dict[str, Tensor] = {"energy": _empty(count), "forces": _empty(atoms, 3)}
    made |= {"energy_error": _empty(count), "forces_error": _empty(count)}
    if products:
        made |= {name: _empty(len(products), atoms, 3) for name in ("probes", "hvp")}
        made["hvp_error"] = _empty(len(products), count)
    if request.hessian:
        made |= {"hessian": _empty(int((9 * sizes**2).sum())), "hessian_error": _empty(count)}
    if request.stress:
        made["stress"] = _empty(count, 3, 3)
    suspect = torch.zeros(count, dtype=torch.bool)
    for i, found in enumerate(records):
        here = slice(starts[i], starts[i + 1])
        places: dict[str, dict[str, Any]] = {
            FORCES: {"energy": (i,), "forces": (here,), "energy_error": (i,), "forces_error": (i,)},
            HESSIAN: {"hessian": (slice(blocks[i], blocks[i + 1]),), "hessian_error": (i,)},
            STRESS: {"stress": (i,)},
        }
        for k, quantity in enumerate(products):
            places[quantity] = {"probes": (k, here), "hvp": (k, here), "hvp_error": (k, i)}
        for quantity, record in found.items():
            part = labels_from_bytes(record.payload)
            for name, place in places[quantity].items():
                value = getattr(part, name)
                if value is not None:
                    there = made[name][place]
                    there.copy_(value.reshape(there.shape))
            suspect[i] |= bool(record.suspect)
    kept = {name: value for name, value in made.items() if not (name.endswith("_error") and bool(value.isnan().all()))}
    return Labels(n_atoms=sizes, suspect=suspect if bool(suspect.any()) else None, **kept)


def _empty(*shape: int) -> Tensor:
    return torch.full(shape, torch.nan, dtype=torch.float64)
