"""Differences of Hesse's ANI, and of TorchANI in its adapter, from TorchANI itself.

    python benchmarks/torchani_parity.py

ANI-1x environment vectors, networks 256-64-256 with random weights, elements H C N O; 64 random molecules of 8 to 14
atoms, in float64. Cost of a training step in each: `hesse bench step --peers torchani`. Needs the extra torchani.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hesse.bench.baselines import torchani_model
from hesse.bench.workloads import random_molecules_in_range
from hesse.curvature import evaluate
from hesse.models import Ani
from hesse.models.adapters.layouts import pad_structures
from hesse.models.adapters.torchani import TorchAniPotential, ani_from_torchani
from hesse.structures import Request, collate
from hesse.units import energy_unit

NUMBERS = (1, 6, 7, 8)
HARTREE = energy_unit("hartree")


def main() -> None:
    """Print the largest differences."""
    torch.manual_seed(0)
    model = torchani_model(NUMBERS).double()
    batch = collate(random_molecules_in_range(8, 14, 64), model.cutoff)
    probes = torch.randn(1, len(batch.numbers), 3, dtype=torch.float64)
    table = pad_structures(batch)
    positions = table.positions.clone().requires_grad_()
    energies = HARTREE * model((table.numbers, positions)).energies
    (gradient,) = torch.autograd.grad(energies.sum(), positions, create_graph=True)
    directions = torch.zeros_like(positions)
    directions[table.mask] = probes[0]
    (product,) = torch.autograd.grad(gradient, positions, directions)
    expected: list[Tensor] = [energies.detach(), gradient[table.mask].detach(), product[table.mask]]
    copied = ani_from_torchani(model)
    assert isinstance(copied, Ani)
    expected_aevs = model.aev_computer(model.species_converter(table.numbers), table.positions)[table.mask]
    gap = float((copied.aevs(batch) - expected_aevs).detach().abs().max())
    print(f"environment vectors: largest difference {gap:.0e}\n")
    print("| | energy, eV | gradient, eV/Å | H v, eV/Å² |\n|---|---|---|---|")
    print(f"| largest value | {' | '.join(f'{float(x.abs().max()):.3g}' for x in expected)} |")
    for name, potential in (("`hesse.models.Ani`", copied), ("`TorchAniPotential`", TorchAniPotential(model))):
        result = evaluate(potential, batch, Request(forces=True, probes=probes))
        assert result.energy is not None
        assert result.forces is not None
        assert result.hvp is not None
        pairs = zip([result.energy, -result.forces, result.hvp[0]], expected, strict=True)
        gaps = [float((a - b).abs().max()) for a, b in pairs]
        print(f"| {name}: difference | {' | '.join(f'{gap:.0e}' for gap in gaps)} |")


if __name__ == "__main__":
    main()
