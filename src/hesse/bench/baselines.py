"""Other programs (TorchANI, hippynn) in the training-step benchmark, compared with Hesse's networks with the same
weights.

Each program computes the step in its own way, as its users run it: its padded arrays, its pair lists, its kernels,
`loss.backward()`. None of them trains on Hessian-vector products; the product here is what a user would write, one more
`torch.autograd.grad` of the forces.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from hesse.bench.cases import BenchmarkCase, HesseCase, StepSpec
from hesse.bench.timing import Work
from hesse.errors import UnknownOptionError, did_you_mean
from hesse.models.adapters.hippynn import HippynnPotential, hipnn_from_hippynn
from hesse.models.adapters.hippynn.hippynn_graph import import_hippynn
from hesse.models.adapters.layouts import PaddedStructures, pad_structures
from hesse.models.adapters.torchani import TorchAniPotential, ani_from_torchani
from hesse.models.adapters.torchani.torchani_files import import_torchani
from hesse.structures import Properties
from hesse.units import energy_unit

__all__ = ["BASELINES", "baseline_cases", "hippynn_graph", "torchani_model"]

HARTREE = energy_unit("hartree")
HIPPYNN_CUTOFF = 6.5
"""Cutoff of the hippynn networks, Å."""


def torchani_model(elements: Sequence[int]) -> Any:
    """A TorchANI model with random weights: environment vectors of ANI-1x, networks 256-64-256 with CELU.

    Args:
        elements: atomic numbers.

    Returns:
        The model, a torch module of TorchANI.

    Raises:
        MissingExtraError: torchani is not installed.
    """
    symbols = [chemical_symbols[z] for z in elements]
    assembler = import_torchani("torchani.arch").Assembler()
    assembler.set_symbols(symbols)
    assembler.set_global_cutoff_fn("cosine")
    assembler.set_aev_computer(radial="ani1x", angular="ani1x", strategy="pyaev")
    sizes = {"dims": {}, "default_dims": (256, 64, 256), "activation": "celu", "bias": True}
    assembler.set_atomic_networks(ctor="build", kwargs=sizes)
    assembler.set_self_energies({symbol: -0.5 - k for k, symbol in enumerate(symbols)})
    return assembler.assemble(1)


def hippynn_graph(elements: Sequence[int], l_max: int) -> Any:
    """A hippynn graph with random weights that predicts energies of molecules: 64 features, 20 sensitivities, 2 blocks
    of 1 + 3 layers.

    Args:
        elements: atomic numbers.
        l_max: tensor order: 0 for HIP-NN, 1 and 2 for HIP-NN-TS.

    Returns:
        The graph, a torch module of hippynn.

    Raises:
        MissingExtraError: hippynn is not installed.
    """
    hippynn = import_hippynn()
    hippynn.settings.WARN_LOW_DISTANCES = False  # the check would search the shortest distance in every layer
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


class BaselineCase(BenchmarkCase):
    """A module of another program that computes energies from padded arrays.

    Args:
        name: name in tables.
        module: the module; a copy of it is trained.
        energies: function of the module, the atomic numbers `[structures, max_atoms]` and the positions
            `[structures, max_atoms, 3]`, Å, that returns energies `[structures]`, eV.
        cutoff: cutoff of the module, Å.
        pad_number: atomic number that marks unused slots.
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

    def make_step(self, spec: StepSpec) -> Work:
        """See `BenchmarkCase.make_step`."""
        module = copy.deepcopy(self._module).to(dtype=spec.dtype, device=spec.device)
        batch, labels = spec.data.batch(range(len(spec.data)), self._cutoff, dtype=spec.dtype, device=spec.device)
        arrays = pad_structures(batch, pad_number=self._pad_number)
        targets = _PaddedTargets(arrays, labels)

        def take_step() -> Tensor:
            positions = arrays.positions.clone().requires_grad_()
            # hippynn recompiles its kernels for every kind of input, up to a limit; here it gets one of each kind.
            with torch._dynamo.config.patch(recompile_limit=64):
                energies = self._energies(module, arrays.numbers, positions)
            forces = -torch.autograd.grad(energies.sum(), positions, create_graph=True)[0]
            loss = targets.energy_loss(energies) + targets.force_loss(forces)
            if spec.scheme == "ef_hvp":
                for probe, product in targets.probe_hvp_pairs:
                    predicted = -torch.autograd.grad(forces, positions, probe, create_graph=True)[0]
                    loss = loss + targets.hvp_loss(predicted, product) / len(targets.probe_hvp_pairs)
            loss.backward()
            module.zero_grad(set_to_none=True)
            return loss.detach()

        return take_step


class _PaddedTargets:
    """Labels as padded arrays, and the loss: the terms of TorchANI's training examples, and one of `H v`."""

    def __init__(self, arrays: PaddedStructures, labels: Properties) -> None:
        def to_padded(values: Tensor) -> Tensor:
            array = arrays.positions.new_zeros(arrays.positions.shape)
            array[arrays.mask] = values
            return array

        assert labels.energy is not None
        assert labels.forces is not None
        self.n_atoms = labels.n_atoms.to(labels.forces.dtype)
        self.energy, self.forces = labels.energy, to_padded(labels.forces)
        self.probe_hvp_pairs: list[tuple[Tensor, Tensor]] = []
        if labels.hvp is not None and labels.probes is not None:
            self.probe_hvp_pairs = [
                (to_padded(v), to_padded(p)) for v, p in zip(labels.probes, labels.hvp, strict=True)
            ]

    def energy_loss(self, energies: Tensor) -> Tensor:
        return ((energies - self.energy).square() / self.n_atoms.sqrt()).mean()

    def force_loss(self, forces: Tensor) -> Tensor:
        return ((forces - self.forces).square().sum((1, 2)) / (3.0 * self.n_atoms)).mean()

    def hvp_loss(self, predicted: Tensor, product: Tensor) -> Tensor:
        return ((predicted - product).square().sum((1, 2)) / (9.0 * self.n_atoms * self.n_atoms)).mean()


def _torchani_cases(elements: Sequence[int]) -> list[BenchmarkCase]:
    model = torchani_model(elements)
    return [
        BaselineCase(
            "torchani",
            model,
            lambda module, numbers, positions: HARTREE * module((numbers, positions)).energies,
            cutoff=float(model.cutoff),
            pad_number=-1,
        ),
        HesseCase("torchani in its adapter", TorchAniPotential(copy.deepcopy(model))),
        HesseCase("ani, weights of torchani", ani_from_torchani(model)),
    ]


def _hippynn_cases(elements: Sequence[int]) -> list[BenchmarkCase]:
    cases: list[BenchmarkCase] = []
    for l_max in (0, 1):
        graph = hippynn_graph(elements, l_max)
        cases += [
            BaselineCase(
                f"hippynn, l = {l_max}",
                graph,
                lambda module, numbers, positions: module(numbers, positions)[0][:, 0],
                cutoff=HIPPYNN_CUTOFF,
                pad_number=0,
            ),
            HesseCase(f"hippynn in its adapter, l = {l_max}", HippynnPotential(copy.deepcopy(graph), energy_unit="eV")),
            HesseCase(f"hipnn, weights of hippynn, l = {l_max}", hipnn_from_hippynn(graph, energy_unit="eV")),
        ]
    return cases


BASELINES: dict[str, Callable[[Sequence[int]], list[BenchmarkCase]]] = {
    "torchani": _torchani_cases,
    "hippynn": _hippynn_cases,
}
"""Programs for comparison, and the cases that are timed for each."""


def baseline_cases(name: str, elements: Sequence[int], *, seed: int = 0) -> list[BenchmarkCase]:
    """The cases of one program: the program itself, its model in Hesse's adapter, and Hesse's network with the weights
    of that model.

    Args:
        name: one of `BASELINES`.
        elements: atomic numbers.
        seed: seed of the random weights.

    Returns:
        The cases.

    Raises:
        UnknownOptionError: unknown program.
        MissingExtraError: the program is not installed.
    """
    if name not in BASELINES:
        raise UnknownOptionError(f'unknown program "{name}" to compare with. {did_you_mean(name, BASELINES)}')
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BASELINES[name](elements)
