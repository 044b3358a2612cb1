"""TorchANI's models as potentials, trained in place and saved as TorchANI reads them.

    from hesse.models.adapters.torchani import TorchAniPotential
    potential = TorchAniPotential(torchani.models.ANI1x().requires_grad_(True))

Hesse's own networks of the same kind train faster: `ani_from_torchani` copies a model into `hesse.models.Ani`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hesse.errors import FileFormatError, RequestError
from hesse.models.adapters.adapter import Adapter, check_trusted
from hesse.models.adapters.layouts import edge_list
from hesse.models.adapters.torchani.torchani_files import (
    embed_architecture,
    import_torchani,
    model_from_state_dict,
    read_state_dict,
)
from hesse.models.reference_energies import ReferenceEnergies
from hesse.runtime.filesystem import atomic_write, check_input_file
from hesse.smooth import norm
from hesse.structures import Batch
from hesse.units import energy_unit

__all__ = ["TorchAniPotential"]

HARTREE = energy_unit("hartree")


class TorchAniPotential(Adapter):
    """A TorchANI 2 model: single networks, ensembles, models with pair potentials beside the networks.

    Pairs come from the batch's neighbor matrix, so that open and periodic structures go together, each with its own
    cell. The pure PyTorch environment vectors are switched on: the CUDA ones (cuAEV) leave out terms of the second
    derivative. Energies per element (`self_energies`) are kept in float64, whatever type the networks have.

    Args:
        original: a `torchani.arch.ANI` (or ANIq, whose charges are not used). Published models come with frozen
            parameters: call `requires_grad_(True)` to train them.

    Raises:
        MissingExtraError: torchani is not installed.
        RequestError: not a model of TorchANI 2, one converted for inference, or one without a finite cutoff.
    """

    suffix = ".pt"

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original: Any = _checked_model(original)
        self.original.set_strategy("pyaev")
        self.cutoff = float(self.original.cutoff)
        numbers, energies = self.original.atomic_numbers, self.original.energy_shifter.self_energies.detach()
        self.references = ReferenceEnergies(tuple(numbers.tolist()), HARTREE * energies.to("cpu", torch.float64))
        self.references.to(numbers.device)
        self.elements = self.references.elements

    @classmethod
    def from_file(
        cls, path: str | Path, *, architecture: str | None = None, trust_pickle: bool = False
    ) -> TorchAniPotential:
        """The model in a file: one that `save` wrote, a state dict of a published model, or a pickled model.

        Args:
            path: the file.
            architecture: which published model the tensors of a state dict belong to ("ani1x", "ani1ccx", "ani2x");
                files that `save` wrote know it themselves.
            trust_pickle: whether the file may run code (a whole model written by `torch.save`).

        Raises:
            FileFormatError: missing, damaged, or tensors that do not fit the architecture.
            RequestError: a pickled model without `trust_pickle`, a state dict of an unknown architecture.
            MissingExtraError: torchani is not installed.
        """
        import_torchani("torchani")
        path = Path(path)
        check_input_file(path, "TorchANI model file")
        state_dict = read_state_dict(path)
        if state_dict is not None:
            return cls(model_from_state_dict(path, state_dict, architecture).requires_grad_(True))
        check_trusted(path, trust_pickle, "TorchANI (whole models)")
        try:
            original = torch.load(path, map_location="cpu", weights_only=False)
        except Exception as error:
            raise FileFormatError(f"{path}: not a readable TorchANI file ({type(error).__name__}: {error})") from error
        return cls(original)

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """Energies of the atoms, eV, float64."""
        neighbors = import_torchani("torchani.neighbors")
        pairs = edge_list(batch, self.cutoff)
        unique = _unique_pair_mask(pairs.centers, pairs.neighbors, pairs.cell_shifts)
        indices = torch.stack([pairs.centers[unique], pairs.neighbors[unique]])
        vectors = -pairs.vectors[unique]  # TorchANI's point from the second atom to the first
        neighbor_list = neighbors.Neighbors(indices, norm(vectors), vectors)
        # All atoms as one molecule: who interacts with whom is said by the pairs alone.
        species = self.original.species_converter(batch.numbers[None])
        shifter = self.original.energy_shifter
        was_enabled, shifter._enabled = shifter._enabled, False
        try:
            outputs = self.original.compute_from_neighbors(species, batch.positions[None], neighbor_list, 0, True)
        finally:
            shifter._enabled = was_enabled
        energies = HARTREE * outputs.energies[0].to(torch.float64)
        return energies + self.references(batch) if was_enabled else energies

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """See `Potential.shift_reference_energies`: the model's `self_energies` are shifted too."""
        self.references.shift_reference_energies(shifts)
        self._restore_self_energies()

    def save(self, path: str | Path) -> None:
        """Write the model's state dict: `model.load_state_dict(torch.load(path, weights_only=True))` reads it in
        TorchANI. Where the model is of a usual make, the file also tells how to build it, for `from_file`.

        Raises:
            WriteError: the file cannot be written; what stood there is unharmed.
        """
        state_dict = self.original.state_dict()
        embed_architecture(state_dict, self.original)
        with atomic_write(path) as aside:
            torch.save(state_dict, aside)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TorchAniPotential:
        super()._apply(fn, recurse)
        self._restore_self_energies()
        return self

    def _restore_self_energies(self) -> None:
        """Put the float64 references into the model, whose own have perhaps been through another type."""
        order = [self.elements.index(int(z)) for z in self.original.atomic_numbers]
        self.original.energy_shifter.self_energies = self.references.energies[order] / HARTREE


def _checked_model(original: Any) -> Any:
    arch = import_torchani("torchani.arch")
    if not isinstance(original, arch._ANI):
        raise RequestError(
            f"expected a model of TorchANI 2 (torchani.arch.ANI), got a {type(original).__name__}. A model compiled to "
            "TorchScript or one of TorchANI 1 must be built again with TorchANI 2, from its weights."
        )
    if type(original.potentials["nnp"].neural_networks).__name__ in ("BmmEnsemble", "MNPNetworks"):
        raise RequestError("this model was converted for inference (to_infer_model): give the model as it was before")
    if not math.isfinite(original.cutoff):
        raise RequestError(
            "this model holds a pair potential without a cutoff; build it with finite ones (simple_ani(..., "
            "repulsion_cutoff=True, dispersion_cutoff=8.0))"
        )
    return original


def _unique_pair_mask(centers: Tensor, neighbors: Tensor, cell_shifts: Tensor) -> Tensor:
    """Which of the directed pairs to keep so that each pair is there once; an atom meets its own images too."""
    x, y, z = cell_shifts.unbind(-1)
    is_positive = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    return (centers < neighbors) | ((centers == neighbors) & is_positive)
