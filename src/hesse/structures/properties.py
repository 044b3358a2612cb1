"""Properties of structures: energies, forces, Hessian-vector products, Hessians, stress.

Reference values (labels), predictions, results of engines and outputs of teacher models are the same record. Its arrays
follow from the table in `hesse.structures.quantities`. Axes: structures; atoms of all structures, concatenated; probes
(directions per structure). A missing value is False in the mask and NaN in the array, never zero, so that a forgotten
mask is noticed. Units: eV and Å.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NoReturn

import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from torch import Tensor

from hesse.errors import LabelShapeError, RequestError, check_whole_numbers, did_you_mean
from hesse.structures.batch import segment_indices, segment_offsets
from hesse.structures.hessian_blocks import block_lengths, multiply_blocks
from hesse.structures.property_arrays import padded_array, single_array
from hesse.structures.quantities import COLUMNS, Column, label_names, quantity

__all__ = ["Properties"]


class Properties:
    """Properties of a batch of structures. Every array except `n_atoms` may be None. A record is not changed in place:
    `replace` makes a new one.

    Args:
        n_atoms: number of atoms of each structure, `[structures]`.
        **arrays: arrays by name, see the attributes. None is the same as leaving an array out.

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
        weight: weight of each structure in the loss (labels only). None means one.

    Raises:
        LabelShapeError: an array whose shape does not fit `n_atoms`, or products without probes.
        RequestError: there is no array of this name.
    """

    n_atoms: Int[Tensor, "structures"]
    energy: Float[Tensor, "structures"] | None
    forces: Float[Tensor, "atoms 3"] | None
    probes: Float[Tensor, "probes atoms 3"] | None
    hvp: Float[Tensor, "probes atoms 3"] | None
    hessian: Float[Tensor, "elements"] | None
    atomic_energies: Float[Tensor, "atoms"] | None
    stress: Float[Tensor, "structures 3 3"] | None
    energy_mask: Bool[Tensor, "structures"] | None
    forces_mask: Bool[Tensor, "structures"] | None
    hvp_mask: Bool[Tensor, "probes structures"] | None
    hessian_mask: Bool[Tensor, "structures"] | None
    atomic_energies_mask: Bool[Tensor, "structures"] | None
    stress_mask: Bool[Tensor, "structures"] | None
    energy_error: Float[Tensor, "structures"] | None
    forces_error: Float[Tensor, "structures"] | None
    hvp_error: Float[Tensor, "probes structures"] | None
    hessian_error: Float[Tensor, "structures"] | None
    regularizer: Float[Tensor, "structures"] | None
    suspect: Bool[Tensor, "structures"] | None
    weight: Float[Tensor, "structures"] | None

    def __init__(self, *, n_atoms: Int[Tensor, "structures"], **arrays: Tensor | None) -> None:
        unknown = arrays.keys() - COLUMNS.keys()
        if unknown:
            raise RequestError(f"Properties has no {min(unknown)!r}. {did_you_mean(min(unknown), list(COLUMNS))}")
        for name, value in {"n_atoms": n_atoms, **arrays}.items():
            if not isinstance(value, Tensor) and (value is not None or name == "n_atoms"):
                raise LabelShapeError(
                    f"Properties holds torch tensors, got {name} of type {type(value).__name__}: "
                    "torch.as_tensor(...), or Properties.single(n, ...) for arrays and numbers of one structure"
                )
        # The order of the table, whatever the order of the arguments: digests depend on it.
        present = {name: value for name in COLUMNS if (value := arrays.get(name)) is not None}
        self.__dict__.update(n_atoms=n_atoms, **present)
        if self.hvp is not None and self.probes is None:
            raise LabelShapeError("Hessian-vector products need the probes they were taken along: give both")
        for name, value in present.items():
            shape = self._shape_of(COLUMNS[name])
            if shape is not None and tuple(value.shape) != shape:
                raise LabelShapeError(f"labels: {name} has shape {tuple(value.shape)}, expected {shape}")

    def __getattr__(self, name: str) -> Tensor | None:
        if name in COLUMNS:
            return None
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"Properties has no {name!r}. {did_you_mean(name, ['n_atoms', *COLUMNS])}")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"Properties cannot be changed; make a new record: properties.replace({name}=...)")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"Properties cannot be changed; make a new record: properties.replace({name}=None)")

    def __len__(self) -> int:
        return len(self.n_atoms)

    def __contains__(self, name: object) -> bool:
        return name in self.__dict__

    def __repr__(self) -> str:
        counts = [f"{name} {int(self.mask(name).sum())}" for name in label_names() if self[name] is not None]
        flagged = f", {int(self.suspect_mask().sum())} suspect" if bool(self.suspect_mask().any()) else ""
        content = f"{', '.join(counts) or 'none'}{flagged}"
        return f"Properties({len(self)} structures, {int(self.n_atoms.sum())} atoms: {content})"

    def __getitem__(self, name: str) -> Tensor | None:
        """An array by its name, for code that works for all quantities; None if the record has none."""
        if not isinstance(name, str):
            raise RequestError(
                f"expected the name of an array, such as 'energy', got {name!r}; single structures: select([0, 1])"
            )
        if name not in COLUMNS and name != "n_atoms":
            raise RequestError(f"Properties has no {name!r}. {did_you_mean(name, ['n_atoms', *COLUMNS])}")
        value: Tensor | None = self.__dict__.get(name)
        return value

    def _shape_of(self, column: Column) -> tuple[int, ...] | None:
        """Expected shape of an array; None if it is not known without waiting for an accelerator."""
        n_probes = 0 if self.probes is None else self.probes.shape[0]
        if column.axes == "structure":
            return (len(self), *column.components)
        if column.axes == "probe structure":
            return (n_probes, len(self))
        on_cpu = self.n_atoms.device.type == "cpu"
        if column.axes == "element":
            return (int(self.hessian_lengths().sum()),) if on_cpu else None
        n_atoms = self._total_atoms()
        return (n_atoms, *column.components) if column.axes == "atom" else (n_probes, n_atoms, *column.components)

    def _total_atoms(self) -> int:
        """Total number of atoms. On an accelerator the sum over `n_atoms` would force a synchronization, so the length
        of an array over atoms is used instead."""
        if self.n_atoms.device.type == "cpu":
            return int(self.n_atoms.sum())
        arrays = ((column, value) for column, value in self.items() if "atom" in column.axes)
        return next((value.shape[1 if column.probe_axis else 0] for column, value in arrays), 0)

    # --- one structure -------------------------------------------------------------------------------------------

    @classmethod
    def single(
        cls,
        n_atoms: int,
        *,
        structure_id: str = "?",
        suspect: bool = False,
        **values: ArrayLike | None,
    ) -> Properties:
        """Properties of one structure from arrays or numbers, in float64.

        Args:
            n_atoms: number of atoms n.
            structure_id: id for error messages.
            suspect: whether the labels failed a check.
            **values: properties and their estimated errors by name: energy (eV), forces (eV/Å, `[n, 3]`), probes and
                hvp (eV/Å², `[k, n, 3]`), hessian (eV/Å², `(n, 3, n, 3)`), atomic_energies (eV, `[n]`), stress (eV/Å³,
                `[3, 3]`), weight; energy_error, forces_error, hessian_error (numbers), hvp_error (`[k]`).

        Returns:
            A record with one structure.

        Raises:
            LabelShapeError: a shape that does not fit `n_atoms`; the message names `structure_id`.
            LabelValueError: a value that is not a number or a regular array of numbers.
            RequestError: there is no property of this name, or `n_atoms` is not a number of atoms.
        """
        check_whole_numbers(n_atoms=n_atoms)
        if n_atoms < 0:
            raise RequestError(f"n_atoms: expected the number of atoms of the structure, got {n_atoms}")
        allowed = {name: column for name, column in COLUMNS.items() if column.kind != "mask"}
        arrays: dict[str, Tensor] = {}
        for name, value in values.items():
            if name not in allowed:
                raise RequestError(f"there is no property {name!r}. {did_you_mean(name, list(allowed))}")
            if value is not None:
                arrays[name] = single_array(allowed[name], value, n_atoms, structure_id)
        return cls(n_atoms=torch.tensor([n_atoms]), suspect=torch.tensor([True]) if suspect else None, **arrays)

    # --- masks and positions -------------------------------------------------------------------------------------

    def items(self) -> Iterator[tuple[Column, Tensor]]:
        """The arrays of the record, without `n_atoms`.

        Yields:
            Entry in the table of arrays, and the array.
        """
        yield from ((COLUMNS[name], value) for name, value in self.__dict__.items() if name != "n_atoms")

    def mask(self, name: str) -> Bool[Tensor, "*structures"]:
        """Which structures have a property.

        Args:
            name: "energy", "forces", "hvp", "hessian", "atomic_energies", "stress", ...

        Returns:
            `[structures]`; for "hvp" `[probes, structures]`.

        Raises:
            RequestError: there is no such property.
        """
        value, mask = self.__dict__.get(name), self.__dict__.get(f"{name}_mask")
        if value is not None and mask is not None:
            return mask
        column = COLUMNS.get(f"{name}_mask")
        if column is None:
            quantity(name)  # raises for unknown names
            raise RequestError(f"{name} has no mask: it is not a label")
        if column.probe_axis:
            shape: tuple[int, ...] = (0 if self.probes is None else self.probes.shape[0], len(self))
        else:
            shape = (len(self),)
        return torch.full(shape, value is not None, dtype=torch.bool, device=self.n_atoms.device)

    def has(self, name: str) -> Bool[Tensor, "structures"]:
        """Which structures have a property at all; for "hvp", at least one product.

        Args:
            name: see `mask`.

        Returns:
            `[structures]`.
        """
        mask = self.mask(name)
        return mask.any(0) if mask.dim() == 2 else mask

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
        return block_lengths(self.n_atoms, self.hessian_mask)

    def hessian_of(self, index: int) -> Float[Tensor, "n 3 n 3"]:
        """The Hessian of one structure.

        Args:
            index: index of the structure.

        Returns:
            eV/Å², `(n, 3, n, 3)`.

        Raises:
            LabelShapeError: this structure has no Hessian, or there is no such structure.
        """
        if not -len(self) <= index < len(self):
            raise LabelShapeError(f"there is no structure {index}: these labels are of {len(self)} structures")
        index %= len(self)
        if self.hessian is None or not bool(self.mask("hessian")[index]):
            raise LabelShapeError(f"structure {index} of these labels has no Hessian")
        n = int(self.n_atoms[index])
        start = int(segment_offsets(self.hessian_lengths())[index])
        return self.hessian[start : start + 9 * n * n].reshape(n, 3, n, 3)

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
        return multiply_blocks(self.hessian, self.n_atoms, self.mask("hessian"), vectors)

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

    def replace(self, **arrays: Tensor | None) -> Properties:
        """Copy with other arrays.

        Args:
            **arrays: new arrays by name; None removes an array.

        Returns:
            The new record.
        """
        return Properties(**{**self.__dict__, **arrays})

    __replace__ = replace  # for copy.replace of Python 3.13

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> Properties:
        """Apply a function to every floating-point tensor.

        Args:
            function: from tensor to tensor of the same shape.

        Returns:
            The new record.
        """
        return self.replace(**{c.name: function(value) for c, value in self.items() if value.is_floating_point()})

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
        converted: dict[str, Tensor] = {"n_atoms": self.n_atoms.to(device=device)}
        for column, value in self.items():
            in_double = column.kind == "value" and column.quantity.in_double
            keep_dtype = in_double or not value.is_floating_point()
            converted[column.name] = value.to(device=device, dtype=None if keep_dtype else dtype)
        return Properties(**converted)

    def select(self, indices: Int[Tensor, "chosen"] | Bool[Tensor, "structures"] | Sequence[int]) -> Properties:
        """Properties of selected structures.

        Args:
            indices: structures in the order of the result; an index may occur repeatedly. A list, or a mask of all
                structures, will do too.

        Returns:
            The new record.

        Raises:
            LabelShapeError: a mask of another number of structures.
        """
        indices = torch.as_tensor(indices, device=self.n_atoms.device).reshape(-1)
        if indices.dtype == torch.bool:
            if len(indices) != len(self):
                raise LabelShapeError(f"a mask of {len(indices)} structures for a record of {len(self)}")
            indices = indices.nonzero()[:, 0]
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
        indices = {"structure": structure_indices, "atom": atom_indices, "element": element_indices}
        selected: dict[str, Tensor] = {}
        for column, value in self.items():
            index = indices[column.rows]
            assert index is not None
            selected[column.name] = value.index_select(1 if column.probe_axis else 0, index)
        return Properties(n_atoms=n_atoms, **selected)

    def pick(self, names: Collection[str]) -> Properties:
        """Record with selected properties only, without error estimates and flags.

        Args:
            names: properties to keep ("energy", "hvp", ...). Masks are kept too, and the probes of "hvp".

        Returns:
            The new record.

        Raises:
            RequestError: there is no such property.
        """
        names = [names] if isinstance(names, str) else names
        for name in names:
            if name not in COLUMNS:
                quantity(name)  # raises
        selected = {*names, *(f"{name}_mask" for name in names), *(["probes"] if "hvp" in names else [])}
        return Properties(n_atoms=self.n_atoms, **{c.name: value for c, value in self.items() if c.name in selected})

    @classmethod
    def concatenate(cls, records: Sequence[Properties]) -> Properties:
        """Concatenate records. Values missing in some of them are masked and NaN.

        Args:
            records: at least one.

        Returns:
            One record with the structures of all records.
        """
        n_probes = max((0 if p.probes is None else p.probes.shape[0] for p in records), default=0)
        merged: dict[str, Tensor] = {"n_atoms": torch.cat([part.n_atoms for part in records])}
        for name, column in COLUMNS.items():
            values = [part[name] for part in records]
            present = [value for value in values if value is not None]
            if column.kind == "mask" or not present:
                continue
            if column.axes == "element":
                merged[name] = torch.cat(present)
                continue
            filled = [
                padded_array(column, value, part.n_atoms, n_probes, present[0])
                for value, part in zip(values, records, strict=True)
            ]
            merged[name] = torch.cat(filled, dim=1 if column.probe_axis else 0)
        for name in label_names():
            if name in merged:
                masks = [part.mask(name) for part in records]
                if masks[0].dim() == 2:
                    masks = [torch.cat([m, m.new_zeros(n_probes - m.shape[0], m.shape[1])]) for m in masks]
                mask = torch.cat(masks, dim=-1)
                if not bool(mask.all()):
                    merged[f"{name}_mask"] = mask
        return cls(**merged)
