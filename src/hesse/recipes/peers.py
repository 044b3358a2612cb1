"""Other programs, as their users run them, beside Hesse's own networks with the same weights.

Each peer takes the step in its own way: its padded arrays, its pairs, its kernels, `loss.backward()` with nothing
added. None of them trains on Hessian-vector products by itself; the product here is what a user would write, one more
`torch.autograd.grad` of its forces.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from hesse.errors import UnknownOptionError, nearest_name
from hesse.models.adapters.hippynn import HippynnPotential, hipnn_from_hippynn
from hesse.models.adapters.hippynn.graphs import import_hippynn
from hesse.models.adapters.layouts import Padded, padded
from hesse.models.adapters.torchani import TorchAniPotential, ani_from_torchani
from hesse.models.adapters.torchani.package import torchani_module
from hesse.recipes.step_subjects import OwnSubject, StepSubject, Task
from hesse.recipes.timing import Work
from hesse.structures import Labels
from hesse.units import energy_unit

__all__ = ["PEERS", "hippynn_graph", "peer_subjects", "torchani_model"]

HARTREE = energy_unit("hartree")
HIPPYNN_CUTOFF = 6.5
"""Å."""


def torchani_model(elements: Sequence[int]) -> Any:
    """A TorchANI model with random weights: environment vectors of ANI-1x, networks 256-64-256 with CELU.

    Raises:
        MissingExtraError: torchani is not installed.
    """
    symbols = [chemical_symbols[z] for z in elements]
    assembler = torchani_module("torchani.arch").Assembler()
    assembler.set_symbols(symbols)
    assembler.set_global_cutoff_fn("cosine")
    assembler.set_aev_computer(radial="ani1x", angular="ani1x", strategy="pyaev")
    sizes = {"dims": {}, "default_dims": (256, 64, 256), "activation": "celu", "bias": True}
    assembler.set_atomic_networks(ctor="build", kwargs=sizes)
    assembler.set_self_energies({symbol: -0.5 - k for k, symbol in enumerate(symbols)})
    return assembler.assemble(1)


def hippynn_graph(elements: Sequence[int], l_max: int) -> Any:
    """A hippynn graph with random weights that gives energies of molecules: 64 features, 20 sensitivities, 2 blocks of
    1 + 3 layers.

    Raises:
        MissingExtraError: hippynn is not installed.
    """
    hippynn = import_hippynn()
    hippynn.settings.WARN_LOW_DISTANCES = False  # it would look for the shortest pair in every layer
    inputs = (hippynn.inputs.SpeciesNode(db_name="Z"), hippynn.inputs.PositionsNode(db_name="R"))
    options: dict[str, Any] = {
        "possible_species": [0, *(int(z) for z in elements)],
        "n_features": 64,
        "n_sensitivities": 20,
        "n_interaction_layers": 2,
        "n_atom_layers": 3,
        "dist_soft_min": 0.75,
        "dist_soft_max": 5.5,
        "dist_hard_max": HIPPYNN_CUTOFF,
    }
    kind = (hippynn.network_nodes.Hipnn, hippynn.network_nodes.HipnnVec, hippynn.network_nodes.HipnnQuad)[l_max]
    energy = hippynn.targets.HEnergyNode("energy", kind("network", inputs, module_kwargs=options), db_name="T")
    return hippynn.GraphModule(inputs, [energy.mol_energy])


class PeerSubject(StepSubject):
    """A module of another program that gives energies from padded arrays.

    Args:
        name: in tables.
        module: trained (a copy of it).
        energies: energies in eV, `[structures]`, from the module, numbers and positions, `[structures, longest, ...]`.
        pad_number: what stands for "no atom".
    """

    schemes = ("ef", "ef_hvp")

    def __init__(
        self,
        name: str,
        module: Any,
        energies: Callable[[Any, Tensor, Tensor], Tensor],
        *,
        cutoff: float,
        pad_number: int,
    ) -> None:
        self.name, self._module, self._energies = name, module, energies
        self._cutoff, self._pad_number = cutoff, pad_number

    def work(self, task: Task) -> Work:
        """See `StepSubject`."""
        module = copy.deepcopy(self._module).to(dtype=task.dtype, device=task.device)
        batch, labels = task.data.batch(range(len(task.data)), self._cutoff, dtype=task.dtype, device=task.device)
        table = padded(batch, pad_number=self._pad_number)
        target = _Targets(table, labels)

        def work() -> Tensor:
            positions = table.positions.clone().requires_grad_()
            # hippynn compiles its kernels anew for every kind of input, up to a limit: one kind of each may come here.
            with torch._dynamo.config.patch(recompile_limit=64):
                energies = self._energies(module, table.numbers, positions)
            forces = -torch.autograd.grad(energies.sum(), positions, create_graph=True)[0]
            loss = target.energy_loss(energies) + target.force_loss(forces)
            if task.scheme == "ef_hvp":
                for probe, product in target.pairs:
                    found = -torch.autograd.grad(forces, positions, probe, create_graph=True)[0]
                    loss = loss + target.product_loss(found, product) / len(target.pairs)
            loss.backward()
            module.zero_grad(set_to_none=True)
            return loss.detach()

        return work


class _Targets:
    """Labels as padded arrays, and the terms of the loss: those of TorchANI's training examples, and of `H v`."""

    def __init__(self, table: Padded, labels: Labels) -> None:
        def spread(values: Tensor) -> Tensor:
            room = table.positions.new_zeros(table.positions.shape)
            room[table.mask] = values
            return room

        assert labels.energy is not None
        assert labels.forces is not None
        self.n = labels.n_atoms.to(labels.forces.dtype)
        self.energy, self.forces = labels.energy, spread(labels.forces)
        self.pairs: list[tuple[Tensor, Tensor]] = []
        if labels.hvp is not None and labels.probes is not None:
            self.pairs = [(spread(v), spread(p)) for v, p in zip(labels.probes, labels.hvp, strict=True)]

    def energy_loss(self, energies: Tensor) -> Tensor:
        return ((energies - self.energy).square() / self.n.sqrt()).mean()

    def force_loss(self, forces: Tensor) -> Tensor:
        return ((forces - self.forces).square().sum((1, 2)) / (3.0 * self.n)).mean()

    def product_loss(self, found: Tensor, product: Tensor) -> Tensor:
        return ((found - product).square().sum((1, 2)) / (9.0 * self.n * self.n)).mean()


def _of_torchani(elements: Sequence[int]) -> list[StepSubject]:
    model = torchani_model(elements)
    return [
        PeerSubject(
            "torchani",
            model,
            lambda module, numbers, positions: HARTREE * module((numbers, positions)).energies,
            cutoff=float(model.cutoff),
            pad_number=-1,
        ),
        OwnSubject("torchani in its adapter", TorchAniPotential(copy.deepcopy(model))),
        OwnSubject("ani, weights of torchani", ani_from_torchani(model)),
    ]


def _of_hippynn(elements: Sequence[int]) -> list[StepSubject]:
    found: list[StepSubject] = []
    for l_max in (0, 1):
        graph = hippynn_graph(elements, l_max)
        found += [
            PeerSubject(
                f"hippynn, l = {l_max}",
                graph,
                lambda module, numbers, positions: module(numbers, positions)[0][:, 0],
                cutoff=HIPPYNN_CUTOFF,
                pad_number=0,
            ),
            OwnSubject(
                f"hippynn in its adapter, l = {l_max}", HippynnPotential(copy.deepcopy(graph), energy_unit="eV")
            ),
            OwnSubject(f"hipnn, weights of hippynn, l = {l_max}", hipnn_from_hippynn(graph, energy_unit="eV")),
        ]
    return found


PEERS: dict[str, Callable[[Sequence[int]], list[StepSubject]]] = {"torchani": _of_torchani, "hippynn": _of_hippynn}
"""Programs that can be compared with, and what is then timed."""


def peer_subjects(name: str, elements: Sequence[int], *, seed: int = 0) -> list[StepSubject]:
    """A peer, its adapter, and Hesse's own network with the weights of the peer's.

    Raises:
        UnknownOptionError: no such peer.
        MissingExtraError: it is not installed.
    """
    if name not in PEERS:
        raise UnknownOptionError(f'no peer "{name}". {nearest_name(name, PEERS)}')
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PEERS[name](elements)
