"""Labels as bytes for the ledger, and from the ledger to the labels of a data set.

Each quantity of a structure is stored separately, in the safetensors format, which holds numbers and cannot run code.
`assemble_labels` allocates the arrays of the data set once, in their final size, and fills them structure by structure,
so that a campaign of many Hessians is held in memory only once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hesse.errors import FileFormatError, LabelShapeError, RequestError
from hesse.labelling.ledger_records import Record
from hesse.labelling.spec import FORCES, HESSIAN, STRESS, LabelSpec, hvp_quantities
from hesse.structures import QUANTITIES, Properties, Structure, segment_offsets

__all__ = ["DamagedRecordError", "assemble_labels", "labels_from_bytes", "labels_to_bytes", "split_by_quantity"]


class DamagedRecordError(FileFormatError):
    """A record of the ledger cannot be used.

    Attributes:
        index: index of its structure.
    """

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index


def split_by_quantity(labels: Properties, quantities: Sequence[str]) -> dict[str, Properties]:
    """Split the labels of one structure into quantities.

    Args:
        labels: labels of one structure.
        quantities: names of the quantities to take. Their Hessian-vector products are in the order of the probes in
            `labels`.

    Returns:
        The labels of each quantity, by name.
    """
    n_atoms = labels.n_atoms
    by_quantity = {
        FORCES: Properties(
            n_atoms=n_atoms,
            energy=labels.energy,
            forces=labels.forces,
            energy_error=labels.energy_error,
            forces_error=labels.forces_error,
        ),
        HESSIAN: Properties(n_atoms=n_atoms, hessian=labels.hessian, hessian_error=labels.hessian_error),
        STRESS: Properties(n_atoms=n_atoms, stress=labels.stress),
    }
    result = {name: part for name, part in by_quantity.items() if name in quantities}
    for name in set(quantities) & set(QUANTITIES) - by_quantity.keys():
        result[name] = Properties(n_atoms=n_atoms, **{name: labels[name]})
    for k, quantity in enumerate(hvp_quantities(quantities)):
        row = slice(k, k + 1)
        assert labels.probes is not None
        assert labels.hvp is not None
        error = None if labels.hvp_error is None else labels.hvp_error[row]
        result[quantity] = Properties(n_atoms=n_atoms, probes=labels.probes[row], hvp=labels.hvp[row], hvp_error=error)
    return result


def labels_to_bytes(labels: Properties) -> bytes:
    """Serialize labels.

    Args:
        labels: any labels.

    Returns:
        All their tensors in the safetensors format.
    """
    arrays = {column.name: value.contiguous() for column, value in labels.items()}
    return save({"n_atoms": labels.n_atoms.contiguous(), **arrays})


def labels_from_bytes(payload: bytes) -> Properties:
    """Read labels that `labels_to_bytes` wrote.

    Args:
        payload: the bytes.

    Returns:
        The labels.

    Raises:
        FileFormatError: the bytes are damaged.
    """
    try:
        tensors: dict[str, torch.Tensor] = load(payload)
        return Properties(**tensors)
    except (SafetensorError, TypeError, ValueError, LabelShapeError, RequestError) as error:
        raise FileFormatError(f"damaged record of labels ({error})") from error


def assemble_labels(
    structures: Sequence[Structure], spec: LabelSpec, records: Iterable[Mapping[str, Record]]
) -> Properties:
    """Join the records of many structures to the labels of a data set.

    Args:
        structures: the structures.
        spec: the properties that were computed.
        records: for each structure, a record of every quantity of `spec`, by name.

    Returns:
        The labels of all structures, in eV and Å. Errors that no structure has are left out.

    Raises:
        DamagedRecordError: a record is missing, damaged, or of another structure.
    """
    sizes = torch.tensor([len(s) for s in structures])
    n_structures, n_atoms = len(structures), int(sizes.sum())
    atom_offsets, hessian_offsets = segment_offsets(sizes).tolist(), segment_offsets(9 * sizes**2).tolist()
    requested = [spec.quantities_of(structure) for structure in structures]
    products = max(map(hvp_quantities, requested), key=len)  # those of others are the first of them
    arrays: dict[str, Tensor] = {"energy": _nan_tensor(n_structures), "forces": _nan_tensor(n_atoms, 3)}
    arrays |= {"energy_error": _nan_tensor(n_structures), "forces_error": _nan_tensor(n_structures)}
    if products:
        arrays |= {name: _nan_tensor(len(products), n_atoms, 3) for name in ("probes", "hvp")}
        arrays["hvp_error"] = _nan_tensor(len(products), n_structures)
    if spec.hessian:
        arrays |= {"hessian": _nan_tensor(int((9 * sizes**2).sum())), "hessian_error": _nan_tensor(n_structures)}
    if any(STRESS in quantities for quantities in requested):
        arrays["stress"] = _nan_tensor(n_structures, 3, 3)
    rows = {"structure": n_structures, "atom": n_atoms}
    for name in spec.outputs:
        arrays[name] = _nan_tensor(rows[QUANTITIES[name].per], *QUANTITIES[name].components)
    suspect = torch.zeros(n_structures, dtype=torch.bool)
    for i, structure_records in enumerate(records):
        atom_slice = slice(atom_offsets[i], atom_offsets[i + 1])
        targets: dict[str, dict[str, Any]] = {
            FORCES: {"energy": (i,), "forces": (atom_slice,), "energy_error": (i,), "forces_error": (i,)},
            HESSIAN: {"hessian": (slice(hessian_offsets[i], hessian_offsets[i + 1]),), "hessian_error": (i,)},
            STRESS: {"stress": (i,)},
            **{name: {name: (i if QUANTITIES[name].per == "structure" else atom_slice,)} for name in spec.outputs},
        }
        for k, quantity in enumerate(products):
            targets[quantity] = {"probes": (k, atom_slice), "hvp": (k, atom_slice), "hvp_error": (k, i)}
        try:
            for quantity, names in targets.items():
                if quantity in requested[i]:
                    _fill(arrays, names, structure_records[quantity].payload, len(structures[i]))
        except (FileFormatError, KeyError, RuntimeError, AttributeError, TypeError) as error:
            raise DamagedRecordError(f'structure "{structures[i].id}": {error}', i) from error
        suspect[i] = any(bool(record.suspect_reason) for record in structure_records.values())
    if any(STRESS in quantities for quantities in requested):
        arrays["stress_mask"] = torch.tensor([STRESS in quantities for quantities in requested])
        arrays["stress"] = arrays["stress"].nan_to_num(0.0)
    counts = torch.tensor([len(hvp_quantities(quantities)) for quantities in requested])
    if products and int(counts.min()) < len(products):
        arrays["hvp_mask"] = torch.arange(len(products))[:, None] < counts
    optional = [name for name in arrays if name.endswith("_error")]
    present = {name: value for name, value in arrays.items() if name not in optional or not bool(value.isnan().all())}
    return Properties(n_atoms=sizes, suspect=suspect if bool(suspect.any()) else None, **present)


def _fill(arrays: Mapping[str, Tensor], targets: Mapping[str, Any], payload: bytes, n_atoms: int) -> None:
    """Copy the labels of one record to their places. Raises FileFormatError if they do not fit there."""
    labels = labels_from_bytes(payload)
    if labels.n_atoms.tolist() != [n_atoms]:
        raise FileFormatError(f"damaged record of labels (of {labels.n_atoms.tolist()} atoms instead of {n_atoms})")
    for name, index in targets.items():
        value, view = getattr(labels, name), arrays[name][index]
        if value is None and name.endswith("_error"):
            continue
        if value is None or value.numel() != view.numel():
            raise FileFormatError(f"damaged record of labels ({name} is missing or has another shape)")
        view.copy_(value.reshape(view.shape))


def _nan_tensor(*shape: int) -> Tensor:
    return torch.full(shape, torch.nan, dtype=torch.float64)
