"""Index of a file that is streamed: the few values per structure that are kept in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from hesse.datasets.base_dataset import check_unique_ids
from hesse.datasets.formats.hdf5 import ChunkedReader
from hesse.datasets.formats.hdf5.schema import compact_numbers
from hesse.structures import Properties, label_names, quantity, rng_key

__all__ = ["FileIndex"]


@dataclass(frozen=True, eq=False)
class FileIndex:
    """Values of every structure of a file that are kept in memory.

    Attributes:
        ids: the ids, UTF-8.
        groups: the groups, UTF-8.
        rng_keys: seeds of the random draws of each structure.
        numbers: atomic numbers of all structures, end to end.
        charge_states: charge and multiplicity of each structure.
        energies: numbers of atoms, energies (eV), their mask and the weights of the structures.
        masks: which structures have a label, by its name.
        suspect: which structures are flagged suspect.
        bytes_per_structure: memory of each structure with all labels, when it is loaded.
        incomplete_hessians: true if some but not all structures have a Hessian.
    """

    ids: NDArray[np.bytes_]
    groups: NDArray[np.bytes_]
    rng_keys: Int[Tensor, "structures"]
    numbers: NDArray[np.integer]
    charge_states: Int[Tensor, "structures 2"]
    energies: Properties
    masks: dict[str, Bool[Tensor, "*structures"]]
    suspect: Bool[Tensor, "structures"]
    bytes_per_structure: NDArray[np.int64]
    incomplete_hessians: bool

    @classmethod
    def from_reader(cls, reader: ChunkedReader) -> FileIndex:
        """Read the index of a file.

        Args:
            reader: the file.

        Returns:
            The index.

        Raises:
            RequestError: an id occurs twice.
        """
        count = len(reader)
        ids = reader.read_array("structures/id")
        check_unique_ids(ids.tolist(), str(reader.path))
        n_atoms = torch.from_numpy(np.diff(reader.offsets))

        def column(name: str) -> Tensor | None:
            return torch.from_numpy(reader.read_array(f"labels/{name}")) if f"labels/{name}" in reader.names else None

        masks: dict[str, Tensor] = {}
        for name in label_names():
            if f"labels/{name}" in reader.names:
                probes = reader.shapes[f"labels/{name}"][:1] if quantity(name).mask_axes == "probe structure" else ()
                mask = column(f"{name}_mask") if name != "hessian" else None
                masks[name] = torch.ones((*probes, count), dtype=torch.bool) if mask is None else mask
        if reader.hessian_offsets is not None:
            masks["hessian"] = torch.from_numpy(np.diff(reader.hessian_offsets) > 0)
        energy = column("energy")
        suspect = column("suspect")
        has_groups = "structures/group" in reader.names
        array_names = [name for name in reader.names if not name.endswith("_mask")]
        neighbor_bytes = np.minimum(n_atoms.numpy() - 1, 64) * n_atoms.numpy() * 8
        charge_states = torch.tensor([0, 1]).repeat(count, 1)  # where absent
        for k, name in enumerate(("structures/charge", "structures/multiplicity")):
            if name in reader.names:
                charge_states[:, k] = torch.from_numpy(reader.read_array(name))
        return cls(
            ids=ids,
            groups=reader.read_array("structures/group") if has_groups else np.zeros(count, dtype="S1"),
            rng_keys=torch.tensor([rng_key(name.decode()) for name in ids.tolist()], dtype=torch.int64),
            numbers=compact_numbers(reader.read_array("structures/numbers")),
            charge_states=charge_states,
            energies=Properties(
                n_atoms=n_atoms,
                energy=None if energy is None else energy.to(torch.float64),
                energy_mask=column("energy_mask"),
                weight=column("weight"),
            ),
            masks=masks,
            suspect=torch.zeros(count, dtype=torch.bool) if suspect is None else suspect,
            bytes_per_structure=reader.bytes_per_structure(array_names) + neighbor_bytes,
            incomplete_hessians="hessian" in masks and not bool(masks["hessian"].all()),
        )
