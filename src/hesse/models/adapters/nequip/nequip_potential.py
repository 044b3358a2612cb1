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
from hesse.errors import RequestError, UnknownElementError
from hesse.models.adapters.adapter import Adapter, check_trusted
from hesse.models.adapters.layouts import edge_list
from hesse.models.adapters.nequip.nequip_files import SUFFIX, import_nequip, load_eager_model, write_package
from hesse.structures import Batch

__all__ = ["NequipPotential"]

DTYPE_ATTRIBUTES = ("_output_dtype", "model_dtype")
"""Where modules of NequIP remember the type they compute in."""

CONSTANTS = ("_rmax_recip", "bessel_weights", "scales", "shifts")
"""Constants that NequIP keeps in float64 whatever type the network has."""


class NequipPotential(Adapter):
    """A model of the NequIP framework (NequIP, Allegro, and what else its model builders make).

    Only its energies are asked for: the derivatives that NequIP would take itself have no graph outside its own
    training. Pairs come from the batch's neighbor matrix, so that open and periodic structures go together.

    Args:
        original: a `GraphModel` in eager mode, as NequIP's builders and loaders give it.
        energy_unit: what its energies are in (NequIP does not record it).
        length_unit: what its lengths are in.
        types: type name of each chemical symbol, where the names of the model's types are not symbols themselves.

    Raises:
        MissingExtraError: nequip is not installed.
        RequestError: not such a model, one that was compiled, or type names that are no elements.
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
        # An element that is not there gets a type that cannot be: an error, not another element's energy.
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
        """The model in a checkpoint of NequIP's training (`.ckpt`) or in a package (`.nequip.zip`).

        Args:
            path: the file. A checkpoint of a run that began at a package needs that package at its old place.
            energy_unit: see the class, as for the other settings.
            length_unit: see the class.
            types: see the class.
            trust_pickle: whether the file may run code: both kinds hold pickles, and packages also programs.

        Raises:
            FileFormatError: missing, or no file of NequIP.
            RequestError: not trusted, and what the class raises.
            MissingExtraError: nequip is not installed.
        """
        check_trusted(path, trust_pickle, "NequIP")
        return cls(load_eager_model(Path(path)), energy_unit=energy_unit, length_unit=length_unit, types=types)

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """Energies of the atoms, eV, float64; equal shares of their structure's energy where the model gives no
        energies of atoms whose sum it is."""
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
        """See `Potential.shift_reference_energies`: the model's `per_type_energy_shifts` are shifted.

        Raises:
            RequestError: the model was built without them, or with one for all types.
            UnknownElementError: an element that the model does not know.
        """
        unknown = sorted(set(shifts) - set(self.elements))
        if unknown:
            raise UnknownElementError(f"no energy for element Z = {unknown[0]}; there are {list(self.elements)}")
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
        """Write a package (`.nequip.zip`) that NequIP's calculator, `nequip-compile` (LAMMPS, ASE) and a training
        with `ModelFromPackage` read. It holds the eager model, not the one for compiled training.

        Raises:
            WriteError: another suffix, or the file cannot be written; what stood there is unharmed.
        """
        original = copy.deepcopy(self.original).cpu()
        original.zero_grad(set_to_none=True)
        write_package(Path(path), original, self._symbols, self._length_unit)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> NequipPotential:
        """Of another type become the weights, not NequIP's tables; its modules are told which type they have."""
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
        """The type of the weights."""
        weights = (
            p for name, p in self.original.named_parameters() if not name.endswith(CONSTANTS) and p.is_floating_point()
        )
        return next(weights).dtype


def _is_constant(name: str, tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype == torch.float64 and name.rpartition(".")[2] in CONSTANTS


@contextmanager
def _without_derivatives(original: nn.Module) -> Iterator[None]:
    """The model while it gives energies only; then as it was."""
    modules = [module for module in original.modules() if getattr(module, "do_derivatives", False)]
    for module in modules:
        module.do_derivatives = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in modules:
            module.do_derivatives = True  # type: ignore[assignment]


def _is_sum_of_atoms(original: Any) -> bool:
    """Whether the total energy is the sum of the atomic ones, and nothing (such as charges) comes on top."""
    energy_model = getattr(original.model, "func", original.model)
    last = list(energy_model.children())[-1]
    return getattr(last, "field", "") == "atomic_energy" and getattr(last, "out_field", "") == "total_energy"


def _checked_model(original: Any) -> Any:
    # Models from packages are of classes that came with them: NequIP itself knows them by these marks.
    if isinstance(original, nn.ModuleDict) and len(original) == 1:
        original = next(iter(original.values()))
    if not isinstance(original, nn.Module) or not getattr(original, "is_graph_model", False):
        raise RequestError(
            f"expected a model of NequIP (GraphModel, in eager mode), got a {type(original).__name__}. A compiled file "
            "(.nequip.pt2, .nequip.pth) holds no trainable network: give the checkpoint or package it was made from."
        )
    if getattr(original, "is_compile_graph_model", False):
        raise RequestError(
            'this NequIP model was built with compile_mode="compile", and compiled modules refuse second derivatives: '
            'build or load it with compile_mode="eager"'
        )
    outputs: Mapping[str, Any] = original.irreps_out  # type: ignore[assignment]
    if "total_energy" not in outputs:
        raise RequestError("this NequIP model gives no total energy")
    if not list(original.parameters()):
        raise RequestError("this NequIP model has no parameters")
    return original


def _symbols(names: list[str], types: Mapping[str, str] | None) -> list[str]:
    """The chemical symbol of each type."""
    symbols = dict(zip(names, names, strict=True)) if types is None else {name: s for s, name in types.items()}
    for name in names:
        if symbols.get(name) not in atomic_numbers:
            raise RequestError(
                f'the model\'s type "{name}" is no chemical symbol: say what each type stands for, types={{"O": '
                f'"{name}", ...}}. One element can have one type only.'
            )
    return [symbols[name] for name in names]
