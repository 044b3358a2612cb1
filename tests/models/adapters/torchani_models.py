"""TorchANI models with random weights, for tests."""

from __future__ import annotations

from typing import Any

import torch

from hesse.models.adapters.torchani.torchani_files import import_torchani
from hesse.units import energy_unit

SEVEN = ("H", "C", "N", "O", "S", "F", "Cl")  # TorchANI's order in ANI-2x: not that of atomic numbers
DEFAULTS: dict[str, Any] = {
    "symbols": SEVEN,
    "lot": "wb97x-631gd",
    "cutoff_fn": "cosine",
    "activation": "celu",
    "bias": True,
    "repulsion": False,
    "strategy": "pyaev",
}


def torchani_model(seed: int = 0, *, self_energies: bool = True, **options: Any) -> Any:
    """A `torchani.arch.ANI` in float64; its weights are enlarged, so that every term contributes."""
    torch.manual_seed(seed)
    settings = {**DEFAULTS, "container_ctor": "like_1x", **options}
    if self_energies:
        settings["self_energies"] = {s: -0.5 - k for k, s in enumerate(settings["symbols"])}
    model = import_torchani("torchani.arch").simple_ani(**settings).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(3.0 if name.endswith("weight") else 1.0)
    return model


def torchani_labels(model: Any, structures: Any, probes: torch.Tensor) -> dict[str, torch.Tensor]:
    """Energies `[structures]`, forces and `H v` `[atoms, 3]` of TorchANI itself, in eV, from padded open structures or
    from one periodic one."""
    sizes = [len(s) for s in structures]
    species = torch.full((len(structures), max(sizes)), -1)
    xyz = torch.zeros(len(structures), max(sizes), 3, dtype=torch.float64)
    directions = torch.zeros_like(xyz)
    for i, (s, along) in enumerate(zip(structures, probes.split(sizes), strict=True)):
        species[i, : len(s)] = torch.from_numpy(s.numbers.copy())
        xyz[i, : len(s)] = torch.from_numpy(s.positions.copy())
        directions[i, : len(s)] = along
    cell = pbc = None
    if structures[0].periodic:
        assert len(structures) == 1
        cell, pbc = torch.from_numpy(structures[0].cell.copy()), torch.tensor(structures[0].pbc)
    xyz.requires_grad_(True)
    energies = model((species, xyz), cell, pbc).energies * energy_unit("hartree")
    (gradient,) = torch.autograd.grad(energies.sum(), xyz, create_graph=True)
    (product,) = torch.autograd.grad(gradient, xyz, directions)
    used = species >= 0
    return {"energy": energies.detach(), "forces": -gradient.detach()[used], "hvp": product[used]}
