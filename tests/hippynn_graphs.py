"""Small hippynn graphs with random weights, for tests."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from hesse.models.adapters.layouts import pad_structures
from hesse.structures import Properties, Structure, collate

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


def from_hippynn(
    graph: Any, structures: Sequence[Structure], probes: Tensor, *, length: float = 1.0
) -> dict[str, Tensor]:
    """What hippynn itself computes with its own pair finder, in its own units, derivatives by its coordinates."""
    batch = collate(structures, 0.0)
    table = pad_structures(batch, pad_number=0)
    positions = (table.positions / length).requires_grad_()
    cells = [batch.cell / length] if batch.pbc.any() else []
    energy, atomic, hierarchy = graph(table.numbers, positions, *cells)
    (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=True)
    flat = gradient[table.mask]
    products = [torch.autograd.grad(flat, positions, v, retain_graph=True)[0][table.mask] for v in probes]
    return {
        "energy": energy[:, 0].detach(),
        "atomic_energies": atomic[:, 0].detach(),
        "forces": -flat.detach(),
        "hvp": torch.stack(products),
        "regularizer": (hierarchy[:, 0] / batch.n_atoms).detach(),
    }


def require_equal(labels: Properties, expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        # The hierarchy's ratios are rounded by 1e-12 eV², so that they have a value where both terms are zero.
        atol = 1e-6 if name == "regularizer" else 1e-10
        actual = getattr(labels, name)
        torch.testing.assert_close(actual, value, rtol=1e-10, atol=atol, msg=lambda m, n=name: f"{n}: {m}")
