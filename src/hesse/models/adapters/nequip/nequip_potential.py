"""NequIP and Allegro models as potentials, trained in place and saved as packages that NequIP's tools read.

    from hesse.models.adapters.nequip import NequipPotential
    potential = NequipPotential.from_file("best.ckpt", trust_pickle=True)

Source of the architecture: Batzner et al., Nature Communications 13 (2022) 2453; of Allegro: Musaelian et al.,
Nature Communications 14 (2023) 579.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from ase.data import atomic_numbers
from jaxtyping import Float, Int
from torch import Tensor, nn

from hesse import units
from hesse.errors import RequestError
from hesse.models.adapters.adapter import Adapter, check_not_path, check_trusted
from hesse.models.adapters.layouts import edge_list
from hesse.models.adapters.nequip.nequip_files import SUFFIX, import_nequip, load_eager_model, write_package
from hesse.potential import check_elements
from hesse.structures import Batch

__all__ = ["NequipPotential"]

DTYPE_ATTRIBUTES = ("_output_dtype", "model_dtype")
"""Attributes of NequIP's modules that hold the dtype of their computations."""

CONSTANTS = ("_rmax_recip", "bessel_weights", "scales", "shifts")
"""Constants that NequIP keeps in float64, whatever the dtype of the network."""


class NequipPotential(Adapter):
    """A model of the NequIP framework (NequIP, Allegro, and all other models that its builders make).

    Only its energies are used: outside its own training, NequIP's forces cannot be differentiated further. Pairs come
    from the neighbor matrix of the batch, so that molecules and crystals can share a batch.

    Args:
        original: a `GraphModel` in eager mode, from NequIP's builders or loaders.
        energy_unit: unit of its energies (NequIP does not store it).
        length_unit: unit of its lengths.
        types: type name by chemical symbol, needed if the model's type names are not symbols themselves.

    Raises:
        MissingExtraError: nequip is not installed.
        RequestError: another kind of model, a compiled model, or type names that are not elements.
        UnitError: an unknown unit.
    """

    suffix = SUFFIX
    _type_index: Int[Tensor, "numbers"]

    def __init__(
        self,
        original: nn.Module,
        *,
        energy_unit: str = "eV",
        length_unit: str = "angstrom",
        types: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        import_nequip()
        self._energy_unit, self._length_unit = units.energy_unit(energy_unit), units.length_unit(length_unit)
        self.original: Any = _checked_model(original)
        self.cutoff = float(self.original.metadata["r_max"]) * self._length_unit
        self._type_names = list(self.original.type_names)
        self._symbols = _symbols(self._type_names, types)
        type_of_element = {atomic_numbers[symbol]: k for k, symbol in enumerate(self._symbols)}
        self.elements = tuple(sorted(type_of_element))
        # Unknown elements get an out-of-range type, so that they raise instead of taking another element's energy.
        type_index = torch.full((119,), len(self._type_names))
        for number, index in type_of_element.items():
            type_index[number] = index
        self.register_buffer("_type_index", type_index, persistent=False)
        self.has_atomic_energies = _is_sum_of_atoms(self.original)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        energy_unit: str = "eV",
        length_unit: str = "angstrom",
        types: Mapping[str, str] | None = None,
        trust_pickle: bool = False,
    ) -> NequipPotential:
        """Load a checkpoint of NequIP's training (`.ckpt`) or a package (`.nequip.zip`).

        Args:
            path: the file. A checkpoint of a run that started from a package needs that package at the same path.
            energy_unit: unit of its energies.
            length_unit: unit of its lengths.
            types: type name by chemical symbol, as for the class.
            trust_pickle: True if the file may run code: both formats hold pickles, packages also Python modules.

        Returns:
            The potential, with trainable parameters.

        Raises:
            FileFormatError: the file is missing, or not a file of NequIP.
            RequestError: `trust_pickle` is False, or the class refuses the model.
            MissingExtraError: nequip is not installed.
        """
        check_trusted(path, trust_pickle, "NequIP")
        return cls(load_eager_model(Path(path)), energy_unit=energy_unit, length_unit=length_unit, types=types)

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """See `Potential.forward`. Energies are in float64. If the total energy is not the sum of atomic energies,
        every atom gets an equal share of the energy of its structure."""
        pairs = edge_list(batch, self.cutoff)
        inputs = {
            "pos": batch.positions.to(torch.float64) / self._length_unit,
            "edge_index": torch.stack([pairs.centers, pairs.neighbors]),
            "edge_vectors": pairs.vectors.to(torch.float64) / self._length_unit,
            "atom_types": self._type_index.index_select(0, batch.numbers),
            "batch": batch.structure_index,
            "num_atoms": batch.n_atoms,
        }
        with _without_derivatives(self.original):
            outputs = self.original(inputs)
        if self.has_atomic_energies:
            return self._energy_unit * outputs["atomic_energy"][:, 0].to(torch.float64)
        shares = outputs["total_energy"][:, 0].to(torch.float64) / batch.n_atoms
        return self._energy_unit * shares.index_select(0, batch.structure_index)

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """See `Potential.shift_reference_energies`. Changes the model's `per_type_energy_shifts`.

        Raises:
            RequestError: the model was built without them, or with one value for all types.
            UnknownElementError: an element that the model does not support.
        """
        check_elements(self, list(shifts), where="the table of energies", advice="Leave it out.")
        shift_tables = [
            module.shifts for name, module in self.original.named_modules() if name.endswith("energy_scale_shift")
        ]
        if len(shift_tables) != 1 or shift_tables[0].numel() != len(self._type_names):
            raise RequestError(
                "this NequIP model has no energy per type that could be shifted: build it with per_type_energy_shifts, "
                'one for each type, or keep the references as they are (reference_energies: "keep")'
            )
        with torch.no_grad():
            for number, shift in shifts.items():
                shift_tables[0][int(self._type_index[number])] += shift / self._energy_unit

    def save(self, path: str | Path) -> None:
        """See `Adapter.save`. Writes a package (`.nequip.zip`) with the eager model, which is read by NequIP's
        calculator, `nequip-compile` (LAMMPS, ASE) and a training with `ModelFromPackage`.

        Raises:
            WriteError: another suffix, or the file cannot be written.
        """
        original = copy.deepcopy(self.original).cpu()
        original.zero_grad(set_to_none=True)
        write_package(Path(path), original, self._symbols, self._length_unit)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> NequipPotential:
        """Convert the weights, but keep NequIP's constants in float64, and set the dtype attributes of its modules."""
        constants = {
            name: tensor.detach().clone() for name, tensor in self._named_tensors() if _is_constant(name, tensor)
        }
        super()._apply(fn, recurse)
        for name, tensor in self._named_tensors():
            if name in constants:
                tensor.data = constants[name].to(tensor.device)
        dtype = self._weight_dtype()
        for module in self.original.modules():
            for attribute in DTYPE_ATTRIBUTES:
                if hasattr(module, attribute):
                    setattr(module, attribute, dtype)
        return self

    def _named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.original.named_parameters()
        yield from self.original.named_buffers()

    def _weight_dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        weights = (
            p for name, p in self.original.named_parameters() if not name.endswith(CONSTANTS) and p.is_floating_point()
        )
        return next(weights).dtype


def _is_constant(name: str, tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype == torch.float64 and name.rpartition(".")[2] in CONSTANTS


@contextmanager
def _without_derivatives(original: nn.Module) -> Iterator[None]:
    """Switch the model's force modules off during an evaluation."""
    modules = [module for module in original.modules() if getattr(module, "do_derivatives", False)]
    for module in modules:
        module.do_derivatives = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in modules:
            module.do_derivatives = True  # type: ignore[assignment]


def _is_sum_of_atoms(original: Any) -> bool:
    """True if the total energy is the sum of the atomic energies, without additional terms (charges, for example)."""
    energy_model = getattr(original.model, "func", original.model)
    last = list(energy_model.children())[-1]
    return getattr(last, "field", "") == "atomic_energy" and getattr(last, "out_field", "") == "total_energy"


def _checked_model(original: Any) -> Any:
    check_not_path(original, "NequipPotential")
    # The class of a model from a package comes with the package: NequIP also recognizes models by these attributes.
    if isinstance(original, nn.ModuleDict) and len(original) == 1:
        original = next(iter(original.values()))
    if not isinstance(original, nn.Module) or not getattr(original, "is_graph_model", False):
        raise RequestError(
            f"expected a model of NequIP (GraphModel, in eager mode), got a {type(original).__name__}. A compiled file "
            "(.nequip.pt2, .nequip.pth) cannot be trained: give the checkpoint or package it was made from."
        )
    if getattr(original, "is_compile_graph_model", False):
        raise RequestError(
            'this NequIP model was built with compile_mode="compile"; compiled modules have no second derivatives: '
            'build or load it with compile_mode="eager"'
        )
    outputs: Mapping[str, Any] = original.irreps_out  # type: ignore[assignment]
    if "total_energy" not in outputs:
        raise RequestError("this NequIP model gives no total energy")
    if not list(original.parameters()):
        raise RequestError("this NequIP model has no parameters")
    return original


def _symbols(names: list[str], types: Mapping[str, str] | None) -> list[str]:
    """Chemical symbol of each type."""
    symbols = dict(zip(names, names, strict=True)) if types is None else {name: s for s, name in types.items()}
    for name in names:
        if symbols.get(name) not in atomic_numbers:
            raise RequestError(
                f'the model\'s type "{name}" is not a chemical symbol: pass the type of each element, types={{"O": '
                f'"{name}", ...}}. One element can have one type only.'
            )
    return [symbols[name] for name in names]
