"""Models of hippynn (Los Alamos) as potentials: HIP-NN, HIP-NN-TS, HIP-HOP-NN and what its graphs add to them."""

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
from hesse.errors import LabelShapeError, RequestError, UnknownElementError, check_choice
from hesse.models.adapters.adapter import Adapter
from hesse.models.adapters.hippynn.hippynn_graph import (
    PAIR_OUTPUTS,
    ExecutionPlan,
    find_energy_node,
    import_hippynn,
    load_graph,
    make_plan,
)
from hesse.models.adapters.layouts import edge_list, pad_structures
from hesse.runtime.filesystem import atomic_write
from hesse.smooth import norm
from hesse.structures import Batch

__all__ = ["HippynnPotential", "sum_messages", "use_matmul_kernels"]


def sum_messages(
    sensitivities: Float[Tensor, "pairs s"],
    features: Float[Tensor, "atoms f"],
    first: Int[Tensor, "pairs"],
    second: Int[Tensor, "pairs"],
) -> Float[Tensor, "atoms s f"]:
    """`Σ_j s_ij z_j` for every atom i: what hippynn calls `envsum`, for pairs sorted by their first atom.

    Pairs are spread over places of a matrix `[atoms, k]` first, so that the sum is a matrix product per atom. hippynn's
    own operations in plain torch hold an array `[pairs, s, f]`, and its compiled ones cannot be differentiated along
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
    """hippynn's networks use `environments` while a graph is evaluated; afterwards what the user chose."""
    import_hippynn()
    kernels: Any = sys.modules["hippynn.custom_kernels"]
    saved = kernels.envsum
    kernels.envsum = sum_messages
    try:
        yield
    finally:
        kernels.envsum = saved


class HippynnPotential(Adapter):
    """A hippynn graph as a potential. Its pair finder is replaced by Hesse's neighbors, so that molecules and crystals
    go through the same batch whichever of hippynn's finders the graph was built with.

    hippynn's compiled kernels cannot be differentiated along several directions at once, and compile for tens of
    seconds first. Its messages are therefore summed by matrix products here, which give the same numbers, unless
    `kernels="own"`; derivatives along several directions are then taken one at a time.

    Args:
        model: a `GraphModule`, a `Predictor`, or an energy node; it is trained in place.
        energy_unit: what its energies are in (hippynn does not record it; its examples use kcal/mol).
        length_unit: what its coordinates are in.
        energy: name of the node that is the energy, where the graph has several.
        kernels: "matrix", or "own" for those that `hippynn.set_custom_kernels` has chosen (it has fused ones for GPUs).

    Raises:
        RequestError: no graph, no energy, or one that needs inputs other than species, positions and cell.
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
            raise RequestError(f'"{target.name}" is no energy of atoms of known elements and their neighbors')
        self._species = [int(z) for z in encoders[0].species_set]
        self.elements = tuple(sorted(z for z in self._species if z != 0))
        # torch cannot vectorize the second derivative of group norms, which HIP-HOP-NN has.
        modules = [part for node, _ in self._plan.steps for part in self.original.get_module(node).modules()]
        self.supports_vmap = not (self._native_kernels or any(isinstance(part, nn.GroupNorm) for part in modules))
        self.cutoff = max(reach for _, reach in self._plan.pairs.values()) * self._length_unit
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
        """From a file that `save` or hippynn wrote: a whole graph, or `best_model.pt` of an experiment's folder.

        Raises:
            RequestError: no unit, or the file was not declared trusted; see the class for others.
            FileFormatError: missing or damaged.
        """
        graph = load_graph(path, trust_pickle=trust_pickle)
        if energy_unit is None:
            raise RequestError(
                f'{path}: files of hippynn do not say what their energies are in. Say it: energy_unit="kcal/mol" (on '
                f"the command line hippynn:{Path(path).name}?trust=pickle,energy_unit=kcal/mol)"
            )
        return cls(graph, energy_unit=energy_unit, length_unit=length_unit, energy=energy)

    def save(self, path: str | Path) -> None:
        """Write the graph whole, on the CPU: `torch.load(path, weights_only=False)` gives the `GraphModule` that
        hippynn's `Predictor`, ASE and LAMMPS interfaces take. (A run of hippynn's own continues from the parameters:
        `torch.save(potential.original.state_dict(), "best_model.pt")`.)"""
        graph = copy.deepcopy(self.original).cpu()
        with atomic_write(path) as aside:
            torch.save(graph, aside)

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """Energies of the atoms, eV; equal shares of their structure's energy where the graph does not split it."""
        return self.forward_with_regularizer(batch)[0]

    def forward_with_regularizer(
        self, batch: Batch
    ) -> tuple[Float[Tensor, "atoms"], Float[Tensor, "structures"] | None]:
        """Energies of the atoms, and hippynn's hierarchicality per atom, where the graph has one.

        Raises:
            LabelShapeError: the graph gives several energies at once.
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
        # In double precision from here on: sums of total energies need the digits.
        energies = output[:, 0].to(torch.float64) * self._energy_unit
        if not self.has_atomic_energies:
            energies = (energies / batch.n_atoms).index_select(0, batch.structure_index)
        energy_nodes = self._plan.nodes(import_hippynn().nodes.targets.HEnergyNode)
        if len(energy_nodes) != 1:
            return energies, None
        return energies, values[energy_nodes[0]][3][:, 0] / batch.n_atoms

    def _graph_inputs(self, batch: Batch) -> dict[Any, Tensor]:
        """What the graph would read and find, from the batch: lengths in its own unit, pairs below each cutoff."""
        padded_batch = pad_structures(batch, pad_number=0)
        sources = {"species": padded_batch.numbers, "positions": padded_batch.positions / self._length_unit}
        sources["cell"] = batch.cell / self._length_unit
        values = {node: sources[name] for node, name in self._plan.inputs.items()}
        for reach in {reach for _, reach in self._plan.pairs.values()}:
            pairs = edge_list(batch, reach * self._length_unit)
            vectors = pairs.vectors / self._length_unit
            pair_values = dict(zip(PAIR_OUTPUTS, (norm(vectors), pairs.centers, pairs.neighbors, vectors), strict=True))
            values.update(
                {node: pair_values[name] for node, (name, cutoff) in self._plan.pairs.items() if cutoff == reach}
            )
        return values

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """See `Potential.shift_reference_energies`: the term of the energy that looks at no neighbors is shifted.

        Raises:
            RequestError: the graph has no such term, or several.
            UnknownElementError: an element the graph does not know.
        """
        energy_nodes = self._plan.nodes(import_hippynn().nodes.targets.HEnergyNode)
        if len(energy_nodes) != 1 or energy_nodes[0].torch_module.first_is_interacting:
            super().shift_reference_energies(shifts)
        unknown = sorted(set(shifts) - set(self.elements))
        if unknown:
            raise UnknownElementError(f"no energy for element Z = {unknown[0]}; there are {list(self.elements)}")
        weight = self.original.get_module(energy_nodes[0]).layers[0].weight
        with torch.no_grad():
            for number, shift in shifts.items():
                weight[0, self._species.index(number) - 1] += shift / self._energy_unit


def _drop_settings(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """hippynn puts ε among the state of its layers, as a dictionary. Weights are tensors only: settings stay with the
    graph (and its own `state_dict` has them)."""
    for name in [name for name, value in state.items() if name.startswith(prefix) and not torch.is_tensor(value)]:
        del state[name]


def _restore_settings(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Weights without settings are loaded with those that the graph has."""
    for name, value in module.original.state_dict(prefix=f"{prefix}original.").items():  # type: ignore[union-attr]
        if not torch.is_tensor(value):
            state.setdefault(name, value)


# MERGED DOCSTRING (fold into the module docstring): """hippynn's message passing as batched matrix products on a neighbor matrix."""
