"""Any energy function as a potential."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from hesse import units
from hesse.errors import LabelShapeError, RequestError
from hesse.potential import Potential
from hesse.structures import Batch, is_species

__all__ = ["CallablePotential"]

EnergyFunction = Callable[..., Tensor]


class CallablePotential(Potential):
    """A function `energy(positions, numbers, cell, pbc)` of one structure as a potential.

    The function receives `positions` `[n, 3]`, atomic `numbers` `[n]`, `cell` `[3, 3]` (lattice vectors as rows; zeros
    without a lattice) and `pbc` `[3]`. It returns a scalar, or with `atomic` one energy per atom `[n]`. It must consist
    of torch operations that can be differentiated three times (`hesse check` tests this). It is called once per
    structure; a model that handles many structures at once is faster as a subclass of `Potential`.

    Args:
        energy: the function. If it is a `torch.nn.Module`, its parameters are those of the potential.
        elements: supported atomic numbers; empty for all.
        length_unit: unit of the positions and the cell that the function expects.
        energy_unit: unit of the energies that it returns.
        atomic: True if it returns one energy per atom.

    Raises:
        UnitError: an unknown unit.
        RequestError: `energy` cannot be called, or elements that are not atomic numbers.
    """

    cutoff = 0.0  # the function finds its own pairs

    def __init__(
        self,
        energy: EnergyFunction,
        *,
        elements: tuple[int, ...] = (),
        length_unit: str = "angstrom",
        energy_unit: str = "eV",
        atomic: bool = False,
    ) -> None:
        super().__init__()
        if not callable(energy):
            raise RequestError(
                f"expected a function energy(positions, numbers, cell, pbc) or a torch.nn.Module, got "
                f"{type(energy).__name__}"
            )
        self.energy = energy  # a module registers itself here
        if not all(isinstance(z, int) and is_species(z) for z in elements):
            raise RequestError(f"elements must be atomic numbers, such as (1, 8); got {elements}")
        self.elements = tuple(sorted(elements))
        self.has_atomic_energies = atomic
        self._length_unit, self._energy_unit = units.length_unit(length_unit), units.energy_unit(energy_unit)

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """See `Potential.forward`. Without `atomic`, every atom gets an equal share of the energy of its structure.

        Raises:
            LabelShapeError: the function returned another shape, or something other than a tensor.
        """
        sizes = batch.n_atoms.tolist()
        inputs = zip(batch.positions.split(sizes), batch.numbers.split(sizes), batch.cell, batch.pbc, strict=True)
        energies = []
        for size, (positions, numbers, cell, pbc) in zip(sizes, inputs, strict=True):
            energy = self.energy(positions / self._length_unit, numbers, cell / self._length_unit, pbc)
            if not isinstance(energy, Tensor):
                raise LabelShapeError(f"the function returned a {type(energy).__name__}, expected a tensor")
            if self.has_atomic_energies and tuple(energy.shape) != (size,):
                raise LabelShapeError(
                    f"the function returned shape {tuple(energy.shape)}, expected ({size},): one per atom"
                )
            if not self.has_atomic_energies:
                if energy.numel() != 1:
                    raise LabelShapeError(
                        f"the function returned shape {tuple(energy.shape)}, expected a scalar: the energy of one "
                        "structure (for one energy per atom pass atomic=True)"
                    )
                energy = (energy.reshape(1) / size).expand(size)
            energies.append(energy * self._energy_unit)
        return torch.cat(energies)
