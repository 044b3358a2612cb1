"""Milliseconds of a force call through ASE: Hesse's networks, plain and compiled, beside TorchANI and hippynn.

    python benchmarks/force_calls.py            # 9, 60, 512 and 4,096 atoms; minutes
    python benchmarks/force_calls.py --atoms 9
    python benchmarks/force_calls.py --atoms 4096 --without TorchANI hippynn    # which need tens of GB there

Atoms move a little between calls, as in dynamics. The calculators take turns; medians of the process time of one
thread in float32, neighbor search and all of ASE included. Networks of a pair have the same weights: ANI (a member
of ANI-1x, random weights) and HIP-NN (64 features, two interaction blocks). MACE has the size of MACE-OFF23 small. The
other programs are those that are installed: extras torchani and hippynn, mace-torch in an environment of its own.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from mace_sizes import mace_small

from hesse import HesseCalculator
from hesse.bench.baselines import hippynn_graph, torchani_model
from hesse.errors import MissingExtraError
from hesse.models import HesseNetConfig, build_model
from hesse.models.adapters.hippynn import hipnn_from_hippynn
from hesse.models.adapters.torchani import ani_from_torchani
from hesse.potential import Potential

ELEMENTS = (1, 6, 7, 8)
SYSTEMS: dict[int, Callable[[], Atoms]] = {
    9: lambda: molecule("CH3CH2OH"),
    60: lambda: molecule("C60"),
    512: lambda: bulk("C", cubic=True) * (4, 4, 4),
    4096: lambda: bulk("C", cubic=True) * (8, 8, 8),
}
CALLS = {9: 60, 60: 40, 512: 8, 4096: 3}


def calculators() -> dict[str, Calculator]:
    """All calculators, by name; each network of Hesse comes plain and compiled."""
    torch.manual_seed(0)
    result: dict[str, Calculator] = {}
    networks: dict[str, Potential] = {}
    with suppress(MissingExtraError):
        ani = torchani_model(ELEMENTS).float()
        result["TorchANI"] = copy.deepcopy(ani).ase()
        networks["ANI"] = ani_from_torchani(ani)
    with suppress(MissingExtraError):
        graph = hippynn_graph(ELEMENTS, 0).float()
        result["hippynn, l = 0"] = _hippynn_calculator(copy.deepcopy(graph))
        networks["HIP-NN, l = 0"] = hipnn_from_hippynn(graph, energy_unit="eV")
        networks["HIP-NN, l = 1"] = hipnn_from_hippynn(hippynn_graph(ELEMENTS, 1).float(), energy_unit="eV")
    with suppress(ImportError):
        result["MACE"] = mace_small(ELEMENTS)
    networks["HesseNet"] = build_model(HesseNetConfig(), ELEMENTS)
    for name, network in networks.items():
        for compile in (False, True):
            result[f"{name}, compiled" if compile else name] = HesseCalculator(
                network, dtype="float32", compile=compile
            )
    return result


def _hippynn_calculator(graph: torch.nn.Module) -> Calculator:
    """The calculator of hippynn for open structures."""
    from hippynn.interfaces.ase_interface import calculator_from_model

    calculator = calculator_from_model(graph, en_unit=units.eV)
    calculator.to(torch.float32)
    return calculator


def step_time(atoms: Atoms, rng: np.random.Generator) -> float:
    """Move the atoms a little and compute the forces; process time in ms."""
    atoms.positions += rng.normal(scale=1e-3, size=(len(atoms), 3))
    started = time.process_time()
    atoms.get_forces()
    return 1e3 * (time.process_time() - started)


def measure(n_atoms: int, without: Sequence[str]) -> None:
    """Print the times of all calculators but some on one system."""
    rng, systems, first = np.random.default_rng(0), {}, {}
    for name, calculator in calculators().items():
        if any(name.startswith(start) for start in without):
            continue
        atoms = SYSTEMS[n_atoms]()
        atoms.calc = calculator
        try:
            first[name] = step_time(atoms, rng)
        except Exception as error:  # another program's reasons
            print(f"{n_atoms} atoms, {name}: {type(error).__name__}: {str(error)[:100]}", flush=True)
            continue
        systems[name] = atoms
        if n_atoms <= 60:
            step_time(atoms, rng)
    times: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(CALLS[n_atoms]):
        for name, atoms in systems.items():
            times[name].append(step_time(atoms, rng))
    medians = {name: statistics.median(values) for name, values in times.items()}
    first_name = next(iter(medians))
    reference = medians[first_name]
    print(f"\n| {n_atoms} atoms | ms | against {first_name} | first call, s |\n|---|---|---|---|")
    for name, value in medians.items():
        print(f"| {name} | {value:.2f} | {value / reference:.2f} | {first[name] / 1e3:.1f} |", flush=True)


def main() -> None:
    """Measure the systems that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, nargs="+", choices=sorted(SYSTEMS), default=sorted(SYSTEMS))
    parser.add_argument("--without", nargs="*", default=[], help="calculators whose names begin so")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for n_atoms in options.atoms:
        measure(n_atoms, options.without)


if __name__ == "__main__":
    main()
