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
from hesse.models.adapters.adapter import Adapter, check_not_path, check_trusted
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
    """A TorchANI 2 model: single networks, ensembles, and models with additional pair potentials.

    Pairs come from the neighbor matrix of the batch, so that molecules and crystals can share a batch. The model is
    switched to its PyTorch environment vectors, because the CUDA ones (cuAEV) omit terms of the second derivative.
    Energies per element (`self_energies`) are kept in float64, whatever the dtype of the networks.

    Args:
        original: a `torchani.arch.ANI` (or ANIq, whose charges are not used). Published models have frozen parameters:
            call `requires_grad_(True)` to train them.

    Raises:
        MissingExtraError: torchani is not installed.
        RequestError: not a model of TorchANI 2, a model converted for inference, or one without a finite cutoff.
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
        """Load a model from a file.

        Args:
            path: a file that `save` wrote, the state dict of a published model, or a pickled model.
            architecture: name of the published model whose state dict this is ("ani1x", "ani1ccx", "ani2x"); not needed
                for files that `save` wrote.
            trust_pickle: True if the file may run code; needed for a complete model written by `torch.save`.

        Returns:
            The potential.

        Raises:
            FileFormatError: missing, damaged, or tensors that do not fit the architecture.
            RequestError: a pickled model without `trust_pickle`, or a state dict of an unknown architecture.
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
        """See `Potential.forward`. Energies are in float64."""
        neighbors = import_torchani("torchani.neighbors")
        pairs = edge_list(batch, self.cutoff)
        unique = _unique_pair_mask(pairs.centers, pairs.neighbors, pairs.cell_shifts)
        indices = torch.stack([pairs.centers[unique], pairs.neighbors[unique]])
        vectors = -pairs.vectors[unique]  # TorchANI's vectors point from the second atom to the first
        neighbor_list = neighbors.Neighbors(indices, norm(vectors), vectors)
        # All atoms of the batch as one molecule: only the listed pairs interact.
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
        """See `Potential.shift_reference_energies`. Changes the model's `self_energies` too."""
        self.references.shift_reference_energies(shifts)
        self._restore_self_energies()

    def save(self, path: str | Path) -> None:
        """See `Adapter.save`. Writes a state dict, which TorchANI reads by
        `model.load_state_dict(torch.load(path, weights_only=True))`. For a model of standard parts it also holds the
        architecture, so that `from_file` can rebuild it."""
        state_dict = self.original.state_dict()
        embed_architecture(state_dict, self.original)
        with atomic_write(path) as temporary:
            torch.save(state_dict, temporary)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TorchAniPotential:
        super()._apply(fn, recurse)
        self._restore_self_energies()
        return self

    def _restore_self_energies(self) -> None:
        """Copy the float64 reference energies into the model, whose own may have been converted to another dtype."""
        order = [self.elements.index(int(z)) for z in self.original.atomic_numbers]
        self.original.energy_shifter.self_energies = self.references.energies[order] / HARTREE


def _checked_model(original: Any) -> Any:
    check_not_path(original, "TorchAniPotential")
    arch = import_torchani("torchani.arch")
    if not isinstance(original, arch._ANI):
        raise RequestError(
            f"expected a model of TorchANI 2 (torchani.arch.ANI), got a {type(original).__name__}. A model compiled to "
            "TorchScript or one of TorchANI 1 must be built again with TorchANI 2, from its weights."
        )
    if type(original.potentials["nnp"].neural_networks).__name__ in ("BmmEnsemble", "MNPNetworks"):
        raise RequestError(
            "this model was converted for inference (to_infer_model): give the model before the conversion"
        )
    if not math.isfinite(original.cutoff):
        raise RequestError(
            "this model holds a pair potential without a cutoff; build it with finite ones (simple_ani(..., "
            "repulsion_cutoff=True, dispersion_cutoff=8.0))"
        )
    return original


def _unique_pair_mask(centers: Tensor, neighbors: Tensor, cell_shifts: Tensor) -> Tensor:
    """Mask of directed pairs that keeps one of the two directions, also for pairs of an atom and its own image."""
    x, y, z = cell_shifts.unbind(-1)
    is_positive = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    return (centers < neighbors) | ((centers == neighbors) & is_positive)
