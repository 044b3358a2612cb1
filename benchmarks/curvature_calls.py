"""Milliseconds of a Hessian and of one Hessian-vector product of a molecule: Hesse's networks, TorchANI and hippynn.

    python benchmarks/curvature_calls.py            # 3, 9, 14 and 60 atoms
    python benchmarks/curvature_calls.py --atoms 9

Atoms move a little before each call. The programs take turns; medians of the process time of one thread in float32.
Hesse's are the calls of its ASE calculator, neighbor search included. TorchANI's Hessian is that of its own
`energies_forces_and_hessians`. Where a program has no function for a quantity (products; Hessians of hippynn) it gets
calls of `torch.autograd.grad`, for a Hessian one per row. Networks of a pair have the same weights; how far their
results are apart is printed. MACE has the size of MACE-OFF23 small, and its own `get_hessian`. Other programs are those
that are installed: the extras torchani and hippynn, and mace-torch in an environment of its own.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms, units
from ase.build import molecule
from mace_sizes import mace_small
from torch import Tensor, nn

from hesse import HesseCalculator
from hesse.bench.baselines import hippynn_graph, torchani_model
from hesse.errors import MissingExtraError
from hesse.models import HesseNetConfig, build_model
from hesse.models.adapters.hippynn import hipnn_from_hippynn
from hesse.models.adapters.torchani import ani_from_torchani
from hesse.potential import Potential

ELEMENTS = (1, 6, 7, 8)
SYSTEMS = {3: "H2O", 9: "CH3CH2OH", 14: "isobutane", 60: "C60"}
CALLS = {3: 30, 9: 20, 14: 12, 60: 3}


@dataclass(frozen=True)
class Program:
    """The two calls of a program: a Hessian `[3N, 3N]` and a product `[3N]`, in eV/Å².

    Attributes:
        hessian: of atoms.
        product: of atoms, along a direction `[N, 3]`.
        same_weights: name of the program with the same network.
    """

    hessian: Callable[[Atoms], np.ndarray]
    product: Callable[[Atoms, np.ndarray], np.ndarray] | None
    same_weights: str = ""


def of_hesse(network: Potential, same_weights: str = "") -> Program:
    """The calculator of Hesse."""
    calculator = HesseCalculator(network, dtype="float32")
    return Program(
        lambda atoms: calculator.get_hessian(atoms).reshape(3 * len(atoms), -1),
        lambda atoms, direction: calculator.hvp(direction, atoms).ravel(),
        same_weights,
    )


def of_energy(
    energy: Callable[[Tensor, Tensor], Tensor],
    unit: float,
    hessian: Callable[[Atoms], np.ndarray] | None = None,
) -> Program:
    """A function of atomic numbers `[1, N]` and positions `[1, N, 3]`, differentiated twice."""

    def gradient(atoms: Atoms) -> tuple[Tensor, Tensor]:
        positions = torch.tensor(atoms.positions[None], dtype=torch.float32, requires_grad=True)
        value = energy(torch.tensor(atoms.numbers[None]), positions)
        return torch.autograd.grad(value.sum(), positions, create_graph=True)[0], positions

    def product(atoms: Atoms, direction: np.ndarray) -> np.ndarray:
        slope, positions = gradient(atoms)
        along = torch.tensor(direction[None], dtype=torch.float32)
        return unit * torch.autograd.grad(slope, positions, along)[0].numpy().ravel()

    def rows(atoms: Atoms) -> np.ndarray:
        slope, positions = gradient(atoms)
        found = [torch.autograd.grad(x, positions, retain_graph=True)[0] for x in slope.reshape(-1)]
        return unit * torch.stack(found).reshape(len(found), -1).numpy()

    return Program(hessian or rows, product)


def of_mace() -> Program:
    """The calculator of MACE; it has no products."""
    calculator = mace_small(ELEMENTS)

    return Program(lambda atoms: np.asarray(calculator.get_hessian(atoms)).reshape(3 * len(atoms), -1), None)


def of_torchani(ani: nn.Module) -> Program:
    """TorchANI's own Hessian."""
    from torchani.grad import energies_forces_and_hessians

    def hessian(atoms: Atoms) -> np.ndarray:
        positions = torch.tensor(atoms.positions[None], dtype=torch.float32)
        result = energies_forces_and_hessians(ani, torch.tensor(atoms.numbers[None]), positions)
        return units.Hartree * result.hessians[0].detach().numpy()

    return of_energy(lambda z, r: ani((z, r)).energies, units.Hartree, hessian)


def programs() -> dict[str, Program]:
    """All programs that are installed, by name."""
    torch.manual_seed(0)
    result = {}
    with suppress(MissingExtraError):
        ani = torchani_model(ELEMENTS).float()
        result["TorchANI"] = of_torchani(ani)
        result["ANI"] = of_hesse(ani_from_torchani(ani), "TorchANI")
    with suppress(MissingExtraError):
        graph = hippynn_graph(ELEMENTS, 0).float()
        result["hippynn, l = 0"] = of_energy(lambda z, r: graph(z, r)[0], 1.0)
        result["HIP-NN, l = 0"] = of_hesse(hipnn_from_hippynn(graph, energy_unit="eV"), "hippynn, l = 0")
    with suppress(ImportError):
        result["MACE"] = of_mace()
    result["HesseNet"] = of_hesse(build_model(HesseNetConfig(), ELEMENTS))
    return result


def measure(n_atoms: int) -> None:
    """Print the times of all programs for one molecule."""
    rng, atoms, every = np.random.default_rng(0), molecule(SYSTEMS[n_atoms]), programs()
    direction = rng.normal(size=(n_atoms, 3))
    exact = {name: program.hessian(atoms) for name, program in every.items()}  # also the first calls of both kinds
    products = {name: p.product(atoms, direction) for name, p in every.items() if p.product is not None}
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(CALLS[n_atoms]):
        atoms.positions += rng.normal(scale=1e-3, size=(n_atoms, 3))
        for name, program in every.items():
            started = time.process_time()
            program.hessian(atoms)
            times.setdefault((name, "hessian"), []).append(1e3 * (time.process_time() - started))
        atoms.positions += rng.normal(scale=1e-3, size=(n_atoms, 3))
        for name, program in every.items():
            if program.product is None:
                continue
            started = time.process_time()
            program.product(atoms, direction)
            times.setdefault((name, "product"), []).append(1e3 * (time.process_time() - started))
    medians = {key: statistics.median(values) for key, values in times.items()}
    print(f"\n| {n_atoms} atoms | Hessian, ms | H v, ms | difference of Hessians, of products |\n|---|---|---|---|")
    for name, program in every.items():
        cells, other = [], program.same_weights
        for kind in ("hessian", "product"):
            if (name, kind) not in medians:
                cells.append("-")
                continue
            ratio = f" ({medians[name, kind] / medians[other, kind]:.2f})" if other else ""
            cells.append(f"{medians[name, kind]:.2f}{ratio}")
        apart = ""
        if other:
            apart = ", ".join(
                f"{np.abs(values[name] - values[other]).max() / np.abs(values[other]).max():.0e}"
                for values in (exact, products)
            )
        print(f"| {name} | {cells[0]} | {cells[1]} | {apart} |", flush=True)


def main() -> None:
    """Measure the molecules that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, nargs="+", choices=sorted(SYSTEMS), default=sorted(SYSTEMS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for n_atoms in options.atoms:
        measure(n_atoms)


if __name__ == "__main__":
    main()
