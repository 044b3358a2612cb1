"""Models of hippynn (Los Alamos) as potentials: HIP-NN, HIP-NN-TS, HIP-HOP-NN and terms that its graphs add to them.

Messages are summed by batched matrix products on a neighbor matrix instead of hippynn's own kernels.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hesse import units
from hesse.errors import LabelShapeError, RequestError, check_choice
from hesse.models.adapters.adapter import Adapter, check_not_path
from hesse.models.adapters.hippynn.hippynn_graph import (
    PAIR_OUTPUTS,
    ExecutionPlan,
    find_energy_node,
    import_hippynn,
    load_graph,
    make_plan,
)
from hesse.models.adapters.layouts import edge_list, pad_structures
from hesse.potential import check_elements
from hesse.runtime.filesystem import atomic_write
from hesse.smooth import norm
from hesse.structures import Batch

__all__ = ["HippynnPotential"]


def sum_messages(
    sensitivities: Float[Tensor, "pairs s"],
    features: Float[Tensor, "atoms f"],
    first: Int[Tensor, "pairs"],
    second: Int[Tensor, "pairs"],
) -> Float[Tensor, "atoms s f"]:
    """`Σ_j s_ij z_j` for every atom i (hippynn's `envsum`), for pairs sorted by their first atom.

    Pairs are first scattered into a matrix `[atoms, max_neighbors]`, so that the sum is one matrix product per atom.
    hippynn's kernels in plain torch need an array `[pairs, s, f]`, and its compiled ones cannot be differentiated along
    several directions at once.
    """
    n_atoms, n_pairs = len(features), len(first)
    counts = torch.bincount(first, minlength=n_atoms)
    max_neighbors = int(counts.max()) if n_pairs else 1
    slots = torch.arange(n_pairs, device=first.device) - (counts.cumsum(0) - counts).index_select(0, first)
    slots = slots + first * max_neighbors
    padded_sensitivities = sensitivities.new_zeros(n_atoms * max_neighbors, sensitivities.shape[1]).index_copy(
        0, slots, sensitivities
    )
    senders = second.new_zeros(n_atoms * max_neighbors).index_copy(0, slots, second)
    received = features.index_select(0, senders).reshape(n_atoms, max_neighbors, -1)
    return torch.bmm(padded_sensitivities.reshape(n_atoms, max_neighbors, -1).transpose(1, 2), received)


@contextmanager
def use_matmul_kernels() -> Iterator[None]:
    """Replace hippynn's `envsum` by `sum_messages` while a graph is evaluated, then restore the user's choice."""
    import_hippynn()
    kernels: Any = sys.modules["hippynn.custom_kernels"]
    saved = kernels.envsum
    kernels.envsum = sum_messages
    try:
        yield
    finally:
        kernels.envsum = saved


class HippynnPotential(Adapter):
    """A hippynn graph as a potential. Its pair finder is replaced by Hesse's neighbor matrix, so that molecules and
    crystals can share a batch, whichever pair finder the graph was built with.

    hippynn's compiled kernels cannot be differentiated along several directions at once, and their compilation takes
    tens of seconds. By default messages are therefore summed by matrix products, which give the same numbers. With
    `kernels="own"` hippynn's kernels are used, and derivatives along several directions are computed one at a time.

    Args:
        model: a `GraphModule`, a `Predictor`, or an energy node; it is trained in place.
        energy_unit: unit of its energies (hippynn does not store it; its examples use kcal/mol).
        length_unit: unit of its coordinates.
        energy: name of the energy node, needed if the graph has several energies.
        kernels: "matrix", or "own" for the kernels set by `hippynn.set_custom_kernels` (fused ones exist for GPUs).

    Raises:
        RequestError: not a graph, no energy, or an energy that needs inputs other than species, positions and cell.
        UnitError: an unknown unit.
        MissingExtraError: hippynn is not installed.
    """

    suffix: ClassVar[str] = ".pt"

    def __init__(
        self,
        model: Any,
        *,
        energy_unit: str,
        length_unit: str = "angstrom",
        energy: str | None = None,
        kernels: Literal["matrix", "own"] = "matrix",
    ) -> None:
        super().__init__()
        self._energy_unit, self._length_unit = units.energy_unit(energy_unit), units.length_unit(length_unit)
        self._native_kernels = check_choice(kernels, ("matrix", "own"), "choice of kernels") == "own"
        check_not_path(model, "HippynnPotential")
        hippynn = import_hippynn()
        self.original: Any
        self.original, target = find_energy_node(model, energy)
        self._plan: ExecutionPlan = make_plan(self.original, target)
        states = hippynn.IdxType
        if target._index_state not in (states.Atoms, states.Molecules):
            raise RequestError(f'"{target.name}" is neither an energy per molecule nor one per atom')
        self.has_atomic_energies = target._index_state is states.Atoms
        encoders = self._plan.nodes(hippynn.graphs.nodes.tags.Encoder)
        if len(encoders) != 1 or not self._plan.pairs:
            raise RequestError(f'"{target.name}" is not an energy that depends on elements and pairs of neighbors')
        self._species = [int(z) for z in encoders[0].species_set]
        self.elements = tuple(sorted(z for z in self._species if z != 0))
        # torch cannot vectorize second derivatives of group norms, which HIP-HOP-NN uses.
        modules = [module for node, _ in self._plan.steps for module in self.original.get_module(node).modules()]
        self.supports_vmap = not (self._native_kernels or any(isinstance(m, nn.GroupNorm) for m in modules))
        self.cutoff = max(cutoff for _, cutoff in self._plan.pairs.values()) * self._length_unit
        self.register_state_dict_post_hook(_drop_settings)
        self.register_load_state_dict_pre_hook(_restore_settings)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        trust_pickle: bool = False,
        energy_unit: str | None = None,
        length_unit: str = "angstrom",
        energy: str | None = None,
    ) -> HippynnPotential:
        """Load a file that `save` or hippynn wrote.

        Args:
            path: a complete graph, or `best_model.pt` in the folder of an experiment.
            trust_pickle: True if the file may run code; hippynn's files are pickles.
            energy_unit: unit of its energies; required, since the files do not state it.
            length_unit: unit of its coordinates.
            energy: name of the energy node, needed if the graph has several energies.

        Returns:
            The potential.

        Raises:
            RequestError: no unit of energy, `trust_pickle` is False, or the class refuses the graph.
            FileFormatError: missing or damaged.
            MissingExtraError: hippynn is not installed.
        """
        graph = load_graph(path, trust_pickle=trust_pickle)
        if energy_unit is None:
            raise RequestError(
                f'{path}: files of hippynn do not state their unit of energy: pass it, energy_unit="kcal/mol" (on '
                f"the command line hippynn:{Path(path).name}?trust=pickle,energy_unit=kcal/mol)"
            )
        return cls(graph, energy_unit=energy_unit, length_unit=length_unit, energy=energy)

    def save(self, path: str | Path) -> None:
        """See `Adapter.save`. `torch.load(path, weights_only=False)` gives the `GraphModule`, on the CPU, for hippynn's
        `Predictor`, ASE and LAMMPS interfaces. To continue one of hippynn's own runs, save the parameters only:
        `torch.save(potential.original.state_dict(), "best_model.pt")`."""
        graph = copy.deepcopy(self.original).cpu()
        with atomic_write(path) as temporary:
            torch.save(graph, temporary)

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """See `Potential.forward`. If the graph has no atomic energies, every atom gets an equal share of the energy of
        its structure."""
        return self.outputs(batch)["atomic_energies"]

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """See `Potential.outputs`. The regularizer is hippynn's hierarchicality, divided by the number
        of atoms; missing if the graph has none.

        Raises:
            LabelShapeError: the graph computes several energies at once.
        """
        values = self._graph_inputs(batch)
        with nullcontext() if self._native_kernels else use_matmul_kernels():
            for node, parents in self._plan.steps:
                values[node] = self.original.get_module(node)(*(values[parent] for parent in parents))
        target = self._plan.target
        output = values[target]
        expected = (len(batch.numbers) if self.has_atomic_energies else len(batch), 1)
        if tuple(output.shape) != expected:
            raise LabelShapeError(f'"{target.name}" has shape {tuple(output.shape)}, expected {expected}')
        # float64 from here on: sums of total energies need the digits.
        energies = output[:, 0].to(torch.float64) * self._energy_unit
        if not self.has_atomic_energies:
            energies = (energies / batch.n_atoms).index_select(0, batch.structure_index)
        energy_nodes = self._plan.nodes(import_hippynn().nodes.targets.HEnergyNode)
        if len(energy_nodes) != 1:
            return {"atomic_energies": energies}
        return {"atomic_energies": energies, "regularizer": values[energy_nodes[0]][3][:, 0] / batch.n_atoms}

    def _graph_inputs(self, batch: Batch) -> dict[Any, Tensor]:
        """Inputs and pairs of the graph, from the batch: lengths in its own unit, pairs below each cutoff."""
        padded_batch = pad_structures(batch, pad_number=0)
        sources = {"species": padded_batch.numbers, "positions": padded_batch.positions / self._length_unit}
        sources["cell"] = batch.cell / self._length_unit
        values = {node: sources[name] for node, name in self._plan.inputs.items()}
        for cutoff in {cutoff for _, cutoff in self._plan.pairs.values()}:
            pairs = edge_list(batch, cutoff * self._length_unit)
            vectors = pairs.vectors / self._length_unit
            pair_values = dict(zip(PAIR_OUTPUTS, (norm(vectors), pairs.centers, pairs.neighbors, vectors), strict=True))
            values.update({node: pair_values[name] for node, (name, c) in self._plan.pairs.items() if c == cutoff})
        return values

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """See `Potential.shift_reference_energies`. Changes the term of the energy that depends on elements only.

        Raises:
            RequestError: the graph has no such term, or several.
            UnknownElementError: an element that the graph does not support.
        """
        energy_nodes = self._plan.nodes(import_hippynn().nodes.targets.HEnergyNode)
        if len(energy_nodes) != 1 or energy_nodes[0].torch_module.first_is_interacting:
            super().shift_reference_energies(shifts)
        check_elements(self, list(shifts), where="the table of energies", advice="Leave it out.")
        weight = self.original.get_module(energy_nodes[0]).layers[0].weight
        with torch.no_grad():
            for number, shift in shifts.items():
                weight[0, self._species.index(number) - 1] += shift / self._energy_unit


def _drop_settings(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Remove settings from a state dict. hippynn puts ε (`cusp_reg`) into it, as a dictionary, but weight files hold
    tensors only."""
    for name in [name for name, value in state.items() if name.startswith(prefix) and not torch.is_tensor(value)]:
        del state[name]


def _restore_settings(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Add the settings of the graph to a state dict that is loaded without them."""
    for name, value in module.original.state_dict(prefix=f"{prefix}original.").items():  # type: ignore[union-attr]
        if not torch.is_tensor(value):
            state.setdefault(name, value)
