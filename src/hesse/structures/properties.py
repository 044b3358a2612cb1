"""Properties of structures: energies, forces, Hessian-vector products, Hessians, stress.

Reference values (labels), predictions, results of engines and outputs of teacher models are the same record. Axes:
structures; atoms of all structures, concatenated; probes (directions per structure). A missing value is False in the
mask and NaN in the array, never zero, so that a forgotten mask is noticed. Units: eV and Å.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from torch import Tensor

from hesse.errors import LabelShapeError
from hesse.structures.batch import segment_ids, segment_indices, segment_offsets

__all__ = ["Properties"]

_PER_STRUCTURE = ("energy", "stress", "energy_error", "forces_error", "hessian_error", "regularizer")
_PER_ATOM = ("forces", "atomic_energies")
_PER_PROBE_AND_ATOM = ("probes", "hvp")
_MASKED = ("energy", "forces", "hvp", "hessian", "atomic_energies", "stress")


@dataclass(frozen=True, eq=False, kw_only=True)
class Properties:
    """Properties of a batch of structures. Every field except `n_atoms` may be None.

    Attributes:
        n_atoms: number of atoms of each structure.
        energy: eV.
        forces: eV/Å, minus the gradient.
        probes: directions of the Hessian-vector products, dimensionless.
        hvp: Hessian-vector products `H v` along the probes, eV/Å² (times the unit of the probe).
        hessian: eV/Å²; the `(n, 3, n, 3)` blocks of the structures that have one (`hessian_mask`), flattened and
            concatenated. See `hessian_of`.
        atomic_energies: eV; their sum is the energy.
        stress: eV/Å³, derivative of the energy with respect to strain, divided by the volume.
        *_mask: which structures have the property; None means all.
        *_error: estimated root-mean-square error per component, in the unit of the property.
        regularizer: regularizer of a potential, dimensionless (predictions only).
        suspect: structures whose labels failed a check (symmetry, error estimate). They stay in the data, but are not
            used for training and evaluation by default. None means no structure.
    """

    n_atoms: Int[Tensor, "structures"]
    energy: Float[Tensor, "structures"] | None = None
    forces: Float[Tensor, "atoms 3"] | None = None
    probes: Float[Tensor, "probes atoms 3"] | None = None
    hvp: Float[Tensor, "probes atoms 3"] | None = None
    hessian: Float[Tensor, "elements"] | None = None
    atomic_energies: Float[Tensor, "atoms"] | None = None
    stress: Float[Tensor, "structures 3 3"] | None = None
    energy_mask: Bool[Tensor, "structures"] | None = None
    forces_mask: Bool[Tensor, "structures"] | None = None
    hvp_mask: Bool[Tensor, "probes structures"] | None = None
    hessian_mask: Bool[Tensor, "structures"] | None = None
    atomic_energies_mask: Bool[Tensor, "structures"] | None = None
    stress_mask: Bool[Tensor, "structures"] | None = None
    energy_error: Float[Tensor, "structures"] | None = None
    forces_error: Float[Tensor, "structures"] | None = None
    hvp_error: Float[Tensor, "probes structures"] | None = None
    hessian_error: Float[Tensor, "structures"] | None = None
    regularizer: Float[Tensor, "structures"] | None = None
    suspect: Bool[Tensor, "structures"] | None = None

    def __post_init__(self) -> None:
        s, a = len(self.n_atoms), self._total_atoms()
        for name in _PER_STRUCTURE:
            self._check_shape(name, (s, 3, 3) if name == "stress" else (s,))
        for name in _PER_ATOM:
            self._check_shape(name, (a, 3) if name == "forces" else (a,))
        if (self.hvp is None) != (self.probes is None) and self.probes is None:
            raise LabelShapeError("Hessian-vector products need the probes they were taken along: give both")
        probes = 0 if self.probes is None else self.probes.shape[0]
        for name in _PER_PROBE_AND_ATOM:
            self._check_shape(name, (probes, a, 3))
        for name in ("energy", "forces", "hessian", "atomic_energies", "stress"):
            self._check_shape(f"{name}_mask", (s,))
        self._check_shape("hvp_mask", (probes, s))
        self._check_shape("hvp_error", (probes, s))
        self._check_shape("suspect", (s,))
        if self.hessian is not None and self.n_atoms.device.type == "cpu":
            self._check_shape("hessian", (int(self.hessian_lengths().sum()),))

    def _total_atoms(self) -> int:
        """Total number of atoms. On an accelerator the sum over `n_atoms` would force a synchronization, so the length
        of an array over atoms is used instead."""
        if self.n_atoms.device.type == "cpu":
            return int(self.n_atoms.sum())
        per_atom = [v.shape[0] for name in _PER_ATOM if (v := getattr(self, name)) is not None]
        per_probe = [v.shape[1] for name in _PER_PROBE_AND_ATOM if (v := getattr(self, name)) is not None]
        return next(iter([*per_atom, *per_probe]), 0)

    def _check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        value = getattr(self, name)
        if value is not None and tuple(value.shape) != shape:
            raise LabelShapeError(f"labels: {name} has shape {tuple(value.shape)}, expected {shape}")

    def __repr__(self) -> str:
        names = ("energy", "forces", "hvp", "hessian", "atomic_energies", "stress")
        counts = [f"{name} {int(self.mask(name).sum())}" for name in names if getattr(self, name) is not None]
        flagged = f", {int(self.suspect_mask().sum())} suspect" if bool(self.suspect_mask().any()) else ""
        content = f"{', '.join(counts) or 'none'}{flagged}"
        return f"Properties({len(self)} structures, {int(self.n_atoms.sum())} atoms: {content})"

    # --- one structure -------------------------------------------------------------------------------------------

    @classmethod
    def single(
        cls,
        n_atoms: int,
        *,
        energy: float | None = None,
        forces: ArrayLike | None = None,
        probes: ArrayLike | None = None,
        hvp: ArrayLike | None = None,
        hessian: ArrayLike | None = None,
        atomic_energies: ArrayLike | None = None,
        stress: ArrayLike | None = None,
        energy_error: float | None = None,
        forces_error: float | None = None,
        hvp_error: ArrayLike | None = None,
        hessian_error: float | None = None,
        suspect: bool = False,
        structure_id: str = "?",
    ) -> Properties:
        """Properties of one structure from arrays or numbers, in float64.

        Args:
            n_atoms: number of atoms n.
            energy: eV.
            forces: eV/Å, `[n, 3]`.
            probes: directions, `[k, n, 3]`.
            hvp: Hessian-vector products along the probes, eV/Å², `[k, n, 3]`.
            hessian: eV/Å², `(n, 3, n, 3)`.
            atomic_energies: eV, `[n]`.
            stress: eV/Å³, `[3, 3]`.
            energy_error: estimated error, eV.
            forces_error: estimated error per component, eV/Å.
            hvp_error: estimated error per component, eV/Å², `[k]`.
            hessian_error: estimated error per element, eV/Å².
            suspect: whether the labels failed a check.
            structure_id: id for error messages.

        Returns:
            A record with one structure.

        Raises:
            LabelShapeError: a shape that does not fit `n_atoms`; the message names `structure_id`.
        """

        def to_tensor(
            name: str, value: ArrayLike | None, shape: tuple[int | None, ...], hint: str = ""
        ) -> Tensor | None:
            if value is None:
                return None
            array = np.array(value, dtype=np.float64)
            fits = len(array.shape) == len(shape) and all(
                want is None or got == want for got, want in zip(array.shape, shape, strict=True)
            )
            if not fits:
                expected = tuple("any" if want is None else want for want in shape)
                raise LabelShapeError(
                    f'structure "{structure_id}": {name} of shape {array.shape}, expected {expected}.{hint}'
                )
            return torch.from_numpy(array)

        n = n_atoms
        flat_hint = f" A flat one of {9 * n * n} numbers: .reshape({n}, 3, {n}, 3)."
        hessian_tensor = to_tensor("hessian", hessian, (n, 3, n, 3), flat_hint)
        hvp_error_tensor = to_tensor("hvp_error", hvp_error, (None,))
        scalars = {
            name: None if value is None else torch.tensor([float(value)], dtype=torch.float64)
            for name, value in {
                "energy": energy,
                "energy_error": energy_error,
                "forces_error": forces_error,
                "hessian_error": hessian_error,
            }.items()
        }
        stress_tensor = to_tensor("stress", stress, (3, 3))
        return cls(
            n_atoms=torch.tensor([n]),
            forces=to_tensor("forces", forces, (n, 3)),
            probes=to_tensor("probes", probes, (None, n, 3)),
            hvp=to_tensor("hvp", hvp, (None, n, 3)),
            hessian=None if hessian_tensor is None else hessian_tensor.reshape(-1),
            atomic_energies=to_tensor("atomic_energies", atomic_energies, (n,)),
            stress=None if stress_tensor is None else stress_tensor[None],
            hvp_error=None if hvp_error_tensor is None else hvp_error_tensor[:, None],
            suspect=torch.tensor([True]) if suspect else None,
            **scalars,
        )

    # --- masks and positions -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.n_atoms)

    def mask(self, name: str) -> Bool[Tensor, "*structures"]:
        """Which structures have a property.

        Args:
            name: "energy", "forces", "hvp", "hessian", "atomic_energies" or "stress".

        Returns:
            `[structures]`; for "hvp" `[probes, structures]`.
        """
        value, mask = getattr(self, name), getattr(self, f"{name}_mask")
        if name == "hvp":
            shape: tuple[int, ...] = (0 if self.probes is None else self.probes.shape[0], len(self))
        else:
            shape = (len(self),)
        if value is None:
            return torch.zeros(shape, dtype=torch.bool, device=self.n_atoms.device)
        if mask is None:
            return torch.ones(shape, dtype=torch.bool, device=self.n_atoms.device)
        return mask

    def suspect_mask(self) -> Bool[Tensor, "structures"]:
        """Which structures are suspect.

        Returns:
            `suspect`, or all False if it is None.
        """
        if self.suspect is None:
            return torch.zeros(len(self), dtype=torch.bool, device=self.n_atoms.device)
        return self.suspect

    def hessian_lengths(self) -> Int[Tensor, "structures"]:
        """Number of elements of each structure in the flat `hessian`.

        Returns:
            9n², or 0 for structures without a Hessian.
        """
        full = 9 * self.n_atoms**2
        return full if self.hessian_mask is None else full * self.hessian_mask

    def hessian_of(self, index: int) -> Float[Tensor, "n 3 n 3"]:
        """The Hessian of one structure.

        Args:
            index: index of the structure.

        Returns:
            eV/Å², `(n, 3, n, 3)`.

        Raises:
            LabelShapeError: this structure has no Hessian.
        """
        if self.hessian is None or not bool(self.mask("hessian")[index]):
            raise LabelShapeError(f"structure {index} of these labels has no Hessian")
        n = int(self.n_atoms[index])
        start = int(segment_offsets(self.hessian_lengths())[index])
        return self.hessian[start : start + 9 * n * n].reshape(n, 3, n, 3)

    def atom_slice(self, index: int) -> slice:
        """Range of the atoms of one structure in arrays over atoms.

        Args:
            index: index of the structure.

        Returns:
            A slice; `forces[atom_slice(i)]` are the forces of structure i.
        """
        start = int(self.n_atoms[:index].sum())
        return slice(start, start + int(self.n_atoms[index]))

    # --- whole records -------------------------------------------------------------------------------------------

    def map_tensors(self, function: Any) -> Properties:
        """Apply a function to every floating-point tensor.

        Args:
            function: from tensor to tensor of the same shape.

        Returns:
            The new record.
        """
        changed = {
            f.name: function(value)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor) and value.is_floating_point()
        }
        return replace(self, **changed)

    def detach(self) -> Properties:
        """Copy detached from the autograd graph.

        Returns:
            The same values.
        """
        return self.map_tensors(lambda t: t.detach())

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Properties:
        """Copy on another device or in another floating-point type.

        Energies keep their type: a total energy of 10⁴ eV in float32 has an error of 0.5 meV.

        Args:
            device: target device; None for unchanged.
            dtype: floating-point type of all values except energies; None for unchanged.

        Returns:
            The new record.
        """
        converted: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                keep_dtype = not value.is_floating_point() or f.name in ("energy", "atomic_energies")
                converted[f.name] = value.to(device=device, dtype=None if keep_dtype else dtype)
        return replace(self, **converted)

    def select(self, indices: Int[Tensor, "chosen"]) -> Properties:
        """Properties of selected structures.

        Args:
            indices: structures in the order of the result; an index may occur repeatedly.

        Returns:
            The new record.
        """
        n = self.n_atoms[indices]
        elements = None
        if self.hessian is not None:
            lengths = self.hessian_lengths()
            elements = segment_indices(segment_offsets(lengths)[indices], lengths[indices])
        return self.index_select(
            indices, segment_indices(segment_offsets(self.n_atoms)[indices], n), elements, n_atoms=n
        )

    def index_select(
        self,
        structure_indices: Int[Tensor, "chosen"],
        atom_indices: Int[Tensor, "chosen_atoms"],
        element_indices: Int[Tensor, "chosen_elements"] | None,
        *,
        n_atoms: Int[Tensor, "chosen"],
    ) -> Properties:
        """Like `select`, with precomputed indices of structures, atoms and Hessian elements.

        Args:
            structure_indices: indices of the structures.
            atom_indices: indices of their atoms in arrays over atoms.
            element_indices: indices of their elements in the flat Hessian; None without Hessians.
            n_atoms: numbers of atoms of the selected structures.

        Returns:
            The new record.
        """
        selected: dict[str, Any] = {"n_atoms": n_atoms}
        for f in fields(self):
            value = getattr(self, f.name)
            if value is None or f.name == "n_atoms":
                continue
            if f.name == "hessian":
                assert element_indices is not None
                selected[f.name] = value.index_select(0, element_indices)
            elif f.name in _PER_ATOM:
                selected[f.name] = value.index_select(0, atom_indices)
            elif f.name in _PER_PROBE_AND_ATOM:
                selected[f.name] = value.index_select(1, atom_indices)
            elif f.name in ("hvp_mask", "hvp_error"):
                selected[f.name] = value.index_select(1, structure_indices)
            else:
                selected[f.name] = value.index_select(0, structure_indices)
        return Properties(**selected)

    def pick(self, names: Collection[str]) -> Properties:
        """Record with selected properties only, without error estimates and flags.

        Args:
            names: properties to keep ("energy", "hvp", ...). Masks are kept too, and the probes of "hvp".

        Returns:
            The new record.
        """
        field_names = {"n_atoms", *names, *(f"{name}_mask" for name in names), *(["probes"] if "hvp" in names else [])}
        return Properties(**{f.name: getattr(self, f.name) for f in fields(self) if f.name in field_names})

    @classmethod
    def concatenate(cls, records: Sequence[Properties]) -> Properties:
        """Concatenate records. Values missing in some of them are masked and NaN.

        Args:
            records: at least one.

        Returns:
            One record with the structures of all records.
        """
        n_atoms = torch.cat([part.n_atoms for part in records])
        merged: dict[str, Any] = {"n_atoms": n_atoms}
        n_probes = max((0 if p.probes is None else p.probes.shape[0] for p in records), default=0)
        for f in fields(cls):
            name = f.name
            values = [getattr(part, name) for part in records]
            if name == "n_atoms" or name.endswith("_mask") or all(value is None for value in values):
                continue
            if name == "hessian":
                merged[name] = torch.cat([value for value in values if value is not None])
                continue
            if name == "suspect":
                merged[name] = torch.cat([part.suspect_mask() for part in records])
                continue
            template = next(value for value in values if value is not None)
            filled = [
                _pad_probes(name, value, part, n_probes, template) for value, part in zip(values, records, strict=True)
            ]
            merged[name] = torch.cat(filled, dim=1 if name in (*_PER_PROBE_AND_ATOM, "hvp_error") else 0)
        for name in _MASKED:
            if name in merged:
                masks = [part.mask(name) for part in records]
                if name == "hvp":
                    masks = [torch.cat([m, m.new_zeros(n_probes - m.shape[0], m.shape[1])]) for m in masks]
                mask = torch.cat(masks, dim=-1)
                if not bool(mask.all()):
                    merged[f"{name}_mask"] = mask
        return cls(**merged)

    def hessian_matvec(self, vectors: Float[Tensor, "probes atoms 3"]) -> Float[Tensor, "probes atoms 3"]:
        """Hessian-vector products from the stored Hessians.

        Args:
            vectors: directions, `[probes, atoms, 3]`.

        Returns:
            eV/Å² times the unit of the vectors, `[probes, atoms, 3]`; NaN for structures without a Hessian.

        Raises:
            LabelShapeError: no structure has a Hessian.
        """
        if self.hessian is None:
            raise LabelShapeError("these labels hold no Hessians to multiply with")
        mask = self.mask("hessian")
        flat = vectors.reshape(vectors.shape[0], -1)
        rows, columns = self.hessian_coordinates()
        product = flat.new_zeros(flat.shape).index_add(1, rows, self.hessian.to(flat.dtype) * flat[:, columns])
        present = mask[segment_ids(self.n_atoms, vectors.shape[1])]
        return torch.where(present[:, None], product.reshape(vectors.shape), torch.nan)

    def hessian_coordinates(self) -> tuple[Int[Tensor, "elements"], Int[Tensor, "elements"]]:
        """Row and column of each element of the flat `hessian`.

        Returns:
            Row and column indices among the 3 x atoms coordinates of the batch.
        """
        lengths = self.hessian_lengths()
        structure_index = segment_ids(lengths, None if self.hessian is None else len(self.hessian))
        size = 3 * self.n_atoms[structure_index]
        index_in_block = (
            torch.arange(len(structure_index), device=structure_index.device)
            - segment_offsets(lengths)[structure_index]
        )
        start = 3 * segment_offsets(self.n_atoms)[structure_index]
        return start + index_in_block // size, start + index_in_block % size


def _pad_probes(name: str, value: Tensor | None, record: Properties, n_probes: int, template: Tensor) -> Tensor:
    """`value` (NaN if missing) with its probe axis padded by NaN to `n_probes`."""
    s, a = len(record), int(record.n_atoms.sum())
    if name in _PER_PROBE_AND_ATOM or name == "hvp_error":
        tail = (a, 3) if name in _PER_PROBE_AND_ATOM else (s,)
        n_present = 0 if value is None else value.shape[0]
        padding = template.new_full((n_probes - n_present, *tail), torch.nan)
        return padding if value is None else torch.cat([value, padding])
    if value is not None:
        return value
    return template.new_full((a if name in _PER_ATOM else s, *template.shape[1:]), torch.nan)
