"""What a training step of the same HIP-NN costs in Hesse, through its adapter, and in hippynn itself.

    python benchmarks/hippynn_steps.py

64 features, 20 sensitivities, 2 blocks of 1 + 3 layers; 64 molecules of 8 to 14 atoms, float32, one thread; loss of
energies and forces (E-F), and of one Hessian-vector product each as well (E-F-HVP). Medians of processor time over
repetitions in turns. Needs the extra hippynn and a C++ compiler (for hippynn's kernels); takes about two minutes.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hesse.curvature import evaluate
from hesse.models.adapters.hippynn import HippynnPotential, hipnn_from_hippynn
from hesse.models.adapters.hippynn.graphs import import_hippynn
from hesse.models.adapters.layouts import padded
from hesse.potential import Potential
from hesse.structures import Batch, Request, Structure, collate

SPECIES = [0, 1, 6, 8]
CUTOFF = 6.5
Step = Callable[[Tensor | None], None]


def network(l_max: int) -> Any:
    """A hippynn graph with random weights: energy of molecules, and of atoms."""
    hippynn = import_hippynn()
    inputs = (hippynn.inputs.SpeciesNode(db_name="Z"), hippynn.inputs.PositionsNode(db_name="R"))
    options: dict[str, Any] = {
        "possible_species": SPECIES,
        "n_features": 64,
        "n_sensitivities": 20,
        "n_interaction_layers": 2,
        "n_atom_layers": 3,
        "dist_soft_min": 0.75,
        "dist_soft_max": 5.5,
        "dist_hard_max": CUTOFF,
    }
    kind = (hippynn.network_nodes.Hipnn, hippynn.network_nodes.HipnnVec)[l_max]
    energy = hippynn.targets.HEnergyNode("energy", kind("network", inputs, module_kwargs=options), db_name="T")
    return hippynn.GraphModule(inputs, [energy.mol_energy, energy.atom_energies])


def molecules(count: int, seed: int = 0) -> list[Structure]:
    """Chains that fold at random, no two atoms closer than 1 Å."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        places = [rng.normal(size=3)]
        size = int(rng.integers(8, 15))
        while len(places) < size:
            step = rng.normal(size=3)
            new = places[rng.integers(len(places))] + step / np.linalg.norm(step) * rng.uniform(1.0, 1.4)
            if min(np.linalg.norm(new - place) for place in places) >= 1.0 - 1e-9:
                places.append(new)
        found.append(Structure(rng.choice(SPECIES[1:], size), np.array(places)))
    return found


def step_of(potential: Potential, batch: Batch) -> Step:
    """Loss and its gradient in parameters through Hesse."""

    def step(probes: Tensor | None) -> None:
        potential.zero_grad(set_to_none=True)
        labels = evaluate(potential, batch, Request(forces=True, probes=probes), create_graph=True)
        given = [value for value in (labels.energy, labels.forces, labels.hvp) if value is not None]
        torch.stack([value.square().mean() for value in given]).sum().backward()

    return step


def step_of_hippynn(graph: Any, batch: Batch) -> Step:
    """The same by hippynn alone: its padded arrays, its pair finder, its kernels."""

    def step(probes: Tensor | None) -> None:
        graph.zero_grad(set_to_none=True)
        table = padded(batch, pad_number=0)
        positions = table.positions.clone().requires_grad_()
        energy = graph(table.numbers, positions)[0]
        (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=True)
        loss = energy.square().mean() + gradient[table.mask].square().mean()
        if probes is not None:
            direction = torch.zeros_like(positions)
            direction[table.mask] = probes[0]
            (product,) = torch.autograd.grad(gradient, positions, direction, create_graph=True)
            loss = loss + product[table.mask].square().mean()
        loss.backward()

    return step


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats: int = parser.parse_args().repeats
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    import_hippynn().settings.WARN_LOW_DISTANCES = False  # asks for the shortest pair in every layer
    batch = collate(molecules(64), CUTOFF, dtype=torch.float32)
    probes = torch.randn(1, len(batch.numbers), 3)
    print("| l | | E-F, ms | E-F-HVP, ms |\n|---|---|---|---|")
    for l_max in (0, 1):
        graph = network(l_max)
        steps = {
            "`hesse.models.Hipnn` (copied weights)": step_of(hipnn_from_hippynn(graph, energy_unit="eV"), batch),
            "`HippynnPotential`": step_of(HippynnPotential(graph, energy_unit="eV"), batch),
            '`HippynnPotential(kernels="own")`': step_of(
                HippynnPotential(graph, energy_unit="eV", kernels="own"), batch
            ),
            "hippynn itself": step_of_hippynn(graph, batch),
        }
        spent: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in steps}
        for repeat in range(repeats + 2):  # the first two rounds compile and warm up
            for name, step in steps.items():
                for column, asked in enumerate((None, probes)):
                    start = time.process_time()
                    step(asked)
                    if repeat >= 2:
                        spent[name][column].append(time.process_time() - start)
        for name, columns in spent.items():
            first, second = (1e3 * statistics.median(column) for column in columns)
            print(f"| {l_max} | {name} | {first:.0f} | {second:.0f} |", flush=True)


if __name__ == "__main__":
    main()
