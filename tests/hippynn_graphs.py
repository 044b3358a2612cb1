"""Small hippynn graphs with random weights, for tests."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its import warns of missing compiled kernels and of old torch functions
    hippynn = pytest.importorskip("hippynn", reason="needs the extra hippynn")

SPECIES = (0, 8, 1, 6)
"""Not sorted: nothing may depend on it."""


def hippynn_graph(
    l_max: int,
    *,
    seed: int = 0,
    species: Sequence[int] = SPECIES,
    periodic: bool = False,
    first_is_interacting: bool = False,
    spread: float = 0.2,
    **options: Any,
) -> SimpleNamespace:
    """`graph` (GraphModule with energy, atomic energies, hierarchicality), its `energy` node and `network` module."""
    torch.manual_seed(seed)
    size = {"n_features": 7, "n_sensitivities": 6, "n_interaction_layers": 2, "n_atom_layers": 2}
    reach = {"dist_soft_min": 0.75, "dist_soft_max": 3.2, "dist_hard_max": 3.6}
    settings = {"possible_species": list(species), **size, **reach, **options}
    numbers, positions = hippynn.inputs.SpeciesNode(db_name="Z"), hippynn.inputs.PositionsNode(db_name="R")
    parents = [numbers, positions]
    if periodic:
        parents.append(hippynn.inputs.CellNode(db_name="C"))
    kinds = [hippynn.network_nodes.Hipnn, hippynn.network_nodes.HipnnVec, hippynn.network_nodes.HipnnQuad]
    network = kinds[l_max]("network", tuple(parents), module_kwargs=settings, periodic=periodic)
    energy = hippynn.targets.HEnergyNode("energy", network, first_is_interacting=first_is_interacting, db_name="T")
    graph = hippynn.GraphModule(parents, [energy.mol_energy, energy.atom_energies, energy.hierarchicality]).double()
    with torch.no_grad():
        for parameter in graph.parameters():
            if parameter.is_floating_point():
                parameter.add_(spread * torch.randn_like(parameter))
    return SimpleNamespace(graph=graph, energy=energy, network=network.torch_module, inputs=parents)
