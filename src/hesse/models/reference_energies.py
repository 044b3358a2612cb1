"""Reference energies of the elements: the part of a total energy that depends on the composition only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral

import torch
from ase import Atoms
from jaxtyping import Float, Int
from torch import Tensor

from hesse.errors import ConfigError, MissingLabelError
from hesse.potential import Potential, check_elements
from hesse.structures import LAST_ELEMENT, Batch, Properties, Structure, is_species, segment_ids, to_structure

__all__ = ["ReferenceEnergies", "fit_reference_energies", "undetermined_elements"]


class ReferenceEnergies(Potential):
    """`E = Σ_i E0[element of i]`: a constant per composition that a network need not learn.

    It stays float64 in any network (a total energy of 10⁴ eV in float32 has no digits left for chemistry) and is not
    trained: fit it with `fit_reference_energies`. Hesse's own networks contain one, and use its index of elements.

    Args:
        elements: atomic numbers or numbers of bead types, in any order, each once.
        energies: eV per element, in the order of `elements`; zero if None.

    Raises:
        ConfigError: a number that is repeated or neither of an element nor of a bead type; another number of energies.
    """

    cutoff = 0.0
    energies: Float[Tensor, "elements"]
    _numbers: Int[Tensor, "elements"]
    _index_of_number: Int[Tensor, "numbers"]

    def __init__(self, elements: tuple[int, ...], energies: Float[Tensor, "elements"] | None = None) -> None:
        super().__init__()
        if not elements or len(set(elements)) != len(elements):
            raise ConfigError(f"expected one or more different elements, got {elements}")
        if not all(isinstance(z, Integral) and is_species(int(z)) for z in elements):
            raise ConfigError(f"expected atomic numbers from 1 to 118, or numbers of bead types, got {elements}")
        order = sorted(range(len(elements)), key=lambda k: elements[k])
        self.elements = tuple(int(elements[k]) for k in order)
        self.register_buffer("_numbers", torch.tensor(self.elements), persistent=False)
        # Unknown elements get an out-of-range index, so that they raise instead of taking another element's energy.
        index_of_number = torch.full((LAST_ELEMENT + 1,), len(elements))
        is_element = [k for k, z in enumerate(self.elements) if z <= LAST_ELEMENT]
        index_of_number[self._numbers[is_element]] = torch.tensor(is_element, dtype=torch.int64)
        self._has_beads = len(is_element) < len(elements)
        self.register_buffer("_index_of_number", index_of_number, persistent=False)
        self.register_buffer("energies", torch.zeros(len(elements), dtype=torch.float64))
        if energies is not None:
            if tuple(energies.shape) != (len(elements),):
                raise ConfigError(f"expected {len(elements)} reference energies, got shape {tuple(energies.shape)}")
            self.energies.copy_(energies[order])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ReferenceEnergies:
        reference_energies = self.energies
        super()._apply(fn, recurse)
        self.energies = reference_energies.to(device=self.energies.device, dtype=torch.float64)
        return self

    def element_index(self, numbers: Int[Tensor, "atoms"]) -> Int[Tensor, "atoms"]:
        """Index of each atom's element.

        Args:
            numbers: atomic numbers.

        Returns:
            Indices into `elements`; `len(elements)` for an unknown element.
        """
        if not self._has_beads:
            return self._index_of_number.index_select(0, numbers)
        # Numbers of bead types are too large for a table.
        matches = numbers[:, None] == self._numbers
        return torch.where(matches.any(1), matches.to(torch.int64).argmax(1), len(self.elements))

    def one_hot(self, numbers: Int[Tensor, "atoms"], dtype: torch.dtype) -> Float[Tensor, "atoms elements"]:
        """One-hot encoding of the elements.

        Args:
            numbers: atomic numbers.
            dtype: dtype of the result.

        Returns:
            1 where an atom is of an element, 0 elsewhere.
        """
        return (numbers[:, None] == self._numbers).to(dtype)

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """Reference energies of the atoms.

        Args:
            batch: structures; positions and neighbors are not used.

        Returns:
            eV, float64.
        """
        return self.energies.index_select(0, self.element_index(batch.numbers))

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """See `Potential.shift_reference_energies`. Raises UnknownElementError for an unknown element."""
        check_elements(self, list(shifts), where="the table of energies", advice="Leave it out.")
        for number, energy in shifts.items():
            self.energies[self.elements.index(number)] += energy


def fit_reference_energies(
    numbers: Int[Tensor, "atoms"] | Sequence[Structure | Atoms], labels: Properties, elements: tuple[int, ...]
) -> Float[Tensor, "elements"]:
    """Energies E0 that minimize `Σ (E − Σ_z n_z E0_z)²` over the structures that have an energy and no weight of zero.

    If the compositions do not determine all of them, the solution of smallest norm is taken.

    Args:
        numbers: atomic numbers of all atoms, or the structures themselves.
        labels: energies (eV) and sizes of the structures, and their weights, if any.
        elements: atomic numbers to fit.

    Returns:
        eV per element, float64, in the order of `elements`.

    Raises:
        MissingLabelError: no structure that counts has an energy.
    """
    if not isinstance(numbers, Tensor):
        numbers = torch.cat([torch.tensor(to_structure(s).numbers) for s in numbers])
    composition, energies = _compositions_and_energies(numbers, labels, elements)
    solution = torch.linalg.lstsq(composition, energies[:, None], driver="gelsd").solution
    return solution[:, 0].to(numbers.device)


def undetermined_elements(
    numbers: Int[Tensor, "atoms"], labels: Properties, elements: tuple[int, ...]
) -> tuple[int, ...]:
    """Elements whose energy the compositions of labeled structures do not determine.

    If all structures are water, any shift of E0(O) by minus twice that of E0(H) gives the same total energies.

    Args:
        numbers: atomic numbers of all atoms.
        labels: energies (eV) and sizes of the structures, and their weights, if any.
        elements: atomic numbers that are fitted.

    Returns:
        Their atomic numbers; none if `fit_reference_energies` has a unique solution.

    Raises:
        MissingLabelError: no structure that counts has an energy.
    """
    composition = _compositions_and_energies(numbers, labels, elements)[0].unique(dim=0)
    # Rows of equal length, so that large molecules do not decide what counts as zero.
    composition = composition / composition.norm(dim=1, keepdim=True).clamp(min=1.0)
    values, directions = torch.linalg.eigh(composition.T @ composition)
    null = directions[:, values <= 1e-12 * values.max()]
    free = (null.abs() > 1e-6).any(dim=1)
    return tuple(z for z, is_free in zip(elements, free.tolist(), strict=True) if is_free)


def _compositions_and_energies(
    numbers: Int[Tensor, "atoms"], labels: Properties, elements: tuple[int, ...]
) -> tuple[Float[Tensor, "structures elements"], Float[Tensor, "structures"]]:
    """Numbers of atoms of each element, and energies, of the structures that count; on the host."""
    mask = labels.mask("energy")
    if labels.weight is not None:
        mask = mask & (labels.weight > 0)
    if labels.energy is None or not bool(mask.any()):
        raise MissingLabelError("element references need energies, and no structure of a weight above zero has one")
    element_numbers = torch.tensor(elements, device=numbers.device)
    compositions = []
    for sizes, atoms in _in_chunks(labels.n_atoms, numbers):
        one_hot = (atoms[:, None] == element_numbers).to(torch.float64)
        compositions.append(one_hot.new_zeros(len(sizes), len(elements)).index_add(0, segment_ids(sizes), one_hot))
    return torch.cat(compositions)[mask].cpu(), labels.energy[mask].to(torch.float64).cpu()


def _in_chunks(n_atoms: Int[Tensor, "structures"], numbers: Int[Tensor, "atoms"]) -> Iterator[tuple[Tensor, Tensor]]:
    """Sizes and atomic numbers of 4096 structures at a time: there may be millions."""
    start = 0
    for sizes in n_atoms.split(1 << 12):
        stop = start + int(sizes.sum())
        yield sizes, numbers[start:stop]
        start = stop
