"""The contract of potentials: a PyTorch module that maps a batch of structures to atomic energies.

Potentials compute no derivatives: forces, Hessian-vector products and Hessians come from `hesse.curvature`.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray as Array
from torch import Tensor, nn

from hesse.errors import ChargeStateWarning, RequestError, UnknownElementError
from hesse.structures import Batch, Structure, TrainingEnvironments, describe_states, species_name, species_names

__all__ = [
    "Potential",
    "check_elements",
    "dtype_and_device",
    "evaluation_mode",
    "known_environments",
    "structure_at",
    "warn_of_charge_states",
]


class Potential(nn.Module, ABC):
    """Base class of all potentials: a differentiable energy.

    Attributes:
        cutoff: Å; the neighbor matrix of a batch must contain all pairs below it. Additional pairs are ignored.
        elements: supported atomic numbers; empty if all are supported.
        has_atomic_energies: whether atomic energies are meaningful; False if only their sum over a structure is.
        output_names: further quantities that `outputs` predicts, besides energies and the regularizer.
        supports_vmap: whether the gradient can be differentiated along several directions in one vectorized pass
            (`is_grads_batched` of `torch.autograd.grad`). If False, Hessian-vector products are computed one by one.
        training_charges: charges of the structures it was trained on, if no summary of them is kept; None if unknown.
        training_environments: a summary of the training data, by which structures outside of them are recognized; None
            if there is none. Model files keep it.
    """

    cutoff: float
    elements: tuple[int, ...] = ()
    has_atomic_energies: bool = True
    output_names: tuple[str, ...] = ()
    supports_vmap: bool = True
    training_charges: tuple[int, ...] | None = None
    training_environments: TrainingEnvironments | None = None

    @abstractmethod
    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """Compute atomic energies.

        Args:
            batch: structures with neighbors up to at least `cutoff`.

        Returns:
            Energy of each atom in eV, `[atoms]`, differentiable in `batch.positions` and `batch.cell`.
        """

    def precompute(self, batch: Batch) -> Batch:
        """Store index tables (of pairs, triples, ...) that `forward` needs in `batch.precomputed`.

        The tables are not differentiated and not part of the compiled computation. If they are missing, `forward`
        computes them itself.

        Args:
            batch: any batch of structures.

        Returns:
            The batch with `precomputed`; the batch unchanged if the potential needs no tables.
        """
        return batch

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """Compute atomic energies and all further outputs of the potential.

        A potential that predicts more than the energy overrides this method, and `forward` if it can be cheaper. Names
        other than these two are declared in `output_names` and registered (`hesse.structures.register_quantity`).

        Args:
            batch: structures with neighbors up to at least `cutoff`.

        Returns:
            By name: `atomic_energies` in eV, `[atoms]`; if the potential has one, `regularizer`, dimensionless,
            `[structures]`; further outputs.
        """
        return {"atomic_energies": self(batch)}

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """Add energies per atom to the reference energies of the elements, in place.

        Used when training continues on data of another level of theory, which has another zero of energy.

        Args:
            shifts: energy to add in eV, by atomic number.

        Raises:
            RequestError: the potential has no reference energies.
        """
        raise RequestError(
            f"{type(self).__name__} holds no energies per element that could be shifted. Keep its references as they "
            "are, or add some: SumPotential([ReferenceEnergies(elements), potential])"
        )


def known_environments(potential: Potential) -> TrainingEnvironments | None:
    """The summary of the training data of a potential.

    Args:
        potential: any potential; of a sum or an ensemble without its own summary, that of its first member counts.

    Returns:
        The summary, or None.
    """
    summaries = (part.training_environments for part in potential.modules() if isinstance(part, Potential))
    return next((summary for summary in summaries if summary is not None), None)


def warn_of_charge_states(potential: Potential, structures: Iterable[Structure]) -> None:
    """Warn, once for each charge and multiplicity, of structures with others than the training data of a potential.

    Args:
        potential: the potential; nothing is said if its training data are not known.
        structures: the structures.
    """
    summary = known_environments(potential)
    if summary is None or summary.charge_states is None:
        _warn_of_charges(potential, structures)
        return
    reported: set[tuple[int, int]] = potential.__dict__.setdefault("_charge_states_told", set())
    for structure in structures:
        state = summary.other_charge_state(structure)
        if state is None or state in reported:
            continue
        reported.add(state)
        warnings.warn(
            f'structure "{structure.id}" has {describe_states([state])}, and the model was trained on '
            f"{describe_states(summary.charge_states)} only. A potential knows elements and positions, no charge: its "
            "energies and forces are those of the states that it was trained on. Other structures of this state are "
            "not reported.",
            ChargeStateWarning,
            stacklevel=3,
        )


def _warn_of_charges(potential: Potential, structures: Iterable[Structure]) -> None:
    """Warn, once for each charge, of structures with others than `Potential.training_charges`."""
    if potential.training_charges is None:
        return
    reported: set[int] = potential.__dict__.setdefault("_charges_told", set(potential.training_charges))
    for structure in structures:
        if structure.charge not in reported:
            reported.add(structure.charge)
            known = ", ".join(str(charge) for charge in potential.training_charges)
            warnings.warn(
                f'structure "{structure.id}" has charge {structure.charge}, and the model was trained on structures of '
                f"charge {known} only. A potential knows elements and positions, no charge: its energies and forces "
                "are those of the states that it was trained on. Other structures of this charge are not reported.",
                ChargeStateWarning,
                stacklevel=4,
            )


@contextmanager
def evaluation_mode(potential: Potential) -> Iterator[None]:
    """Context in which the potential is in evaluation mode; its former mode is restored at the end.

    Args:
        potential: any potential.
    """
    training = potential.training
    potential.eval()
    try:
        yield
    finally:
        potential.train(training)


def dtype_and_device(potential: Potential) -> tuple[torch.dtype, torch.device]:
    """Floating-point type and device of a potential.

    Args:
        potential: any potential.

    Returns:
        Type and device of its first floating-point parameter, or of its first buffer if it has no parameters;
        float64 on the CPU if it has no tensors at all.
    """
    for tensor in chain(potential.parameters(), potential.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype, tensor.device
    return torch.float64, torch.device("cpu")


def check_elements(
    potential: Potential,
    numbers: Int[Tensor, "atoms"] | Int[Array, "atoms"] | Sequence[int],
    *,
    where: str | Callable[[int], str],
    name: str = "",
    advice: str = "Leave it out, or use a potential that was trained on this element.",
) -> None:
    """Check that a potential knows all elements.

    Args:
        potential: its `elements` are the ones it knows; empty means all.
        numbers: atomic numbers.
        where: what holds the numbers, or a function that tells it for the index of an atom, such as `structure_at`.
        name: name of the potential; its class by default.
        advice: what to do.

    Raises:
        UnknownElementError: an unknown element; the message names the first one and where it is.
    """
    if not potential.elements:
        return
    tensor = numbers if isinstance(numbers, Tensor) else torch.from_numpy(np.array(numbers))
    unknown = (~torch.isin(tensor, torch.tensor(potential.elements, device=tensor.device))).nonzero()[:, 0]
    if len(unknown):
        atom = int(unknown[0])
        known = ", ".join(species_names(sorted(potential.elements)))
        raise UnknownElementError(
            f"{where if isinstance(where, str) else where(atom)} holds {species_name(int(tensor[atom]))}; "
            f"{name or type(potential).__name__} knows {known} only. {advice}"
        )


def structure_at(
    ids: Sequence[str], n_atoms: Int[Tensor, "structures"] | Sequence[int], source: str = ""
) -> Callable[[int], str]:
    """Name the structure of an atom in a message.

    Args:
        ids: ids of structures.
        n_atoms: their numbers of atoms.
        source: file that they come from.

    Returns:
        A function from the index of an atom, all structures end to end, to `source: structure "id"`.
    """

    def describe(atom: int) -> str:
        ends = torch.as_tensor(n_atoms).cumsum(0).cpu().numpy()
        return f'{source}{": " if source else ""}structure "{ids[int(np.searchsorted(ends, atom, side="right"))]}"'

    return describe
