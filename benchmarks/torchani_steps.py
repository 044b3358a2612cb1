"""How closely Hesse's ANI equals TorchANI's, and what a training step of the same network costs in both.

    python benchmarks/torchani_steps.py

ANI-1x environment vectors, networks 256-64-256 with random weights, elements H C N O; 64 molecules of 8 to 14 atoms
from the G2 set, jittered by 0.05 Å. Differences in float64. Steps in float32 on one thread: loss of energies and forces
(E-F), and of one Hessian-vector product each as well (E-F-HVP), differentiated in parameters only; medians of processor
time over repetitions in turns. Needs the extra torchani; takes half a minute.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ase.build import molecule
from ase.collections import g2
from torch import Tensor

from hesse.curvature import evaluate
from hesse.models import Ani, AniConfig
from hesse.models.adapters.layouts import padded
from hesse.models.adapters.torchani import TorchAniPotential, ani_from_torchani
from hesse.models.adapters.torchani.package import torchani_module
from hesse.potential import Potential
from hesse.structures import Batch, Request, Structure, collate
from hesse.units import energy_unit

SYMBOLS = ("H", "C", "N", "O")
NUMBERS = (1, 6, 7, 8)
HARTREE = energy_unit("hartree")
Step = Callable[[Tensor | None], None]


def network() -> Any:
    """A TorchANI model with random weights."""
    assembler = torchani_module("torchani.arch").Assembler()
    assembler.set_symbols(SYMBOLS)
    assembler.set_global_cutoff_fn("cosine")
    assembler.set_aev_computer(radial="ani1x", angular="ani1x", strategy="pyaev")
    sizes = {"dims": {}, "default_dims": (256, 64, 256), "activation": "celu", "bias": True}
    assembler.set_atomic_networks(ctor="build", kwargs=sizes)
    assembler.set_self_energies({symbol: -0.5 - k for k, symbol in enumerate(SYMBOLS)})
    return assembler.assemble(1)


def molecules(count: int) -> list[Structure]:
    """Molecules of the G2 set in turn, jittered."""
    found = [atoms for atoms in map(molecule, g2.names) if 8 <= len(atoms) <= 14 and set(atoms.numbers) <= {*NUMBERS}]
    rng = np.random.default_rng(0)
    chosen = [found[k % len(found)] for k in range(count)]
    return [Structure(a.numbers, a.positions + 0.05 * rng.normal(size=a.positions.shape)) for a in chosen]


def of_torchani(model: Any, batch: Batch, probes: Tensor | None, *, graph: bool) -> list[Tensor]:
    """Energies, gradients and `H v` by TorchANI alone, eV, from padded arrays."""
    table = padded(batch)
    positions = table.positions.clone().requires_grad_()
    energies = HARTREE * model((table.numbers, positions)).energies
    (gradient,) = torch.autograd.grad(energies.sum(), positions, create_graph=True)
    found = [energies, gradient[table.mask]]
    if probes is not None:
        directions = torch.zeros_like(positions)
        directions[table.mask] = probes[0]
        (product,) = torch.autograd.grad(gradient, positions, directions, create_graph=graph)
        found.append(product[table.mask])
    return found


def of_hesse(potential: Potential, batch: Batch, probes: Tensor | None, *, graph: bool) -> list[Tensor]:
    """The same through Hesse."""
    labels = evaluate(potential, batch, Request(forces=True, probes=probes), create_graph=graph)
    assert labels.energy is not None
    assert labels.forces is not None
    return [labels.energy, -labels.forces, *([] if labels.hvp is None else [labels.hvp[0]])]


def step_of(model: torch.nn.Module, answer: Callable[[Tensor | None], list[Tensor]]) -> Step:
    """Loss and its gradient in parameters."""
    parameters = list(model.parameters())

    def step(probes: Tensor | None) -> None:
        model.zero_grad(set_to_none=True)
        loss = torch.stack([value.to(torch.float32).square().mean() for value in answer(probes)]).sum()
        loss.backward(inputs=parameters)

    return step


def parity() -> None:
    """Print the largest differences from TorchANI, in float64."""
    model = network().double()
    batch = collate(molecules(64), model.cutoff)
    probes = torch.randn(1, len(batch.numbers), 3, dtype=torch.float64)
    expected = [value.detach() for value in of_torchani(model, batch, probes, graph=False)]
    copied = ani_from_torchani(model)
    assert isinstance(copied, Ani)
    table = padded(batch)
    theirs = model.aev_computer(model.species_converter(table.numbers), table.positions)[table.mask]
    print(f"environment vectors: largest difference {float((copied.aevs(batch) - theirs).abs().max()):.0e}\n")
    print("| | energy, eV | gradient, eV/Å | H v, eV/Å² |\n|---|---|---|---|")
    print(f"| largest value | {' | '.join(f'{float(x.abs().max()):.3g}' for x in expected)} |")
    for name, potential in (("`hesse.models.Ani`", copied), ("`TorchAniPotential`", TorchAniPotential(model))):
        got = of_hesse(potential, batch, probes, graph=False)
        gaps = [float((a - b).abs().max()) for a, b in zip(got, expected, strict=True)]
        print(f"| {name}: difference | {' | '.join(f'{gap:.0e}' for gap in gaps)} |")


def step_times(repeats: int) -> None:
    """Print what steps cost, in float32."""
    model = network()
    batch = collate(molecules(64), model.cutoff, dtype=torch.float32)
    probes = torch.randn(1, len(batch.numbers), 3)
    copied, adapted, smooth = ani_from_torchani(model), TorchAniPotential(model), Ani(AniConfig(), NUMBERS)
    steps = {
        "`hesse.models.Ani` (copied weights)": step_of(copied, lambda v: of_hesse(copied, batch, v, graph=True)),
        "`hesse.models.Ani` (its defaults)": step_of(smooth, lambda v: of_hesse(smooth, batch, v, graph=True)),
        "`TorchAniPotential`": step_of(adapted, lambda v: of_hesse(adapted, batch, v, graph=True)),
        "TorchANI itself": step_of(model, lambda v: of_torchani(model, batch, v, graph=True)),
    }
    spent: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in steps}
    for repeat in range(repeats + 1):  # the first round warms up
        for name, step in steps.items():
            for column, asked in enumerate((None, probes)):
                start = time.process_time()
                step(asked)
                if repeat:
                    spent[name][column].append(time.process_time() - start)
    print("\n| | E-F, ms | E-F-HVP, ms |\n|---|---|---|")
    for name, columns in spent.items():
        first, second = (1e3 * statistics.median(column) for column in columns)
        print(f"| {name} | {first:.0f} | {second:.0f} |", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats: int = parser.parse_args().repeats
    torch.set_num_threads(1)
    torch.manual_seed(0)
    parity()
    step_times(repeats)


if __name__ == "__main__":
    main()
