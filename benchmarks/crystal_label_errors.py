"""Error estimates of finite differences in crystals, slabs and molecules, against differences of small steps.

    python benchmarks/crystal_label_errors.py

EMT, Lennard-Jones and Tersoff; a minute. For each structure: the true error of the Hessian (root mean square per
component), estimate over truth for it, the same for eight
products `H v` together, and the gradients they took.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.tersoff import Tersoff, TersoffParameters

from hesse.engine import EnergyFunction
from hesse.engines import AseEngine, FiniteDifferences, ForceEngine
from hesse.structures import Request, Structure, from_ase

SILICON = (3.0, 1.0, 1.3258, 4.8381, 2.0417, 0.0, 22.956, 0.33675, 1.3258, 95.373, 3.0, 0.2, 3.2394, 3264.7)
"""Tersoff, Phys. Rev. B 38, 9902 (1988): m, γ, λ3, c, d, h, n, β, λ2, B, R, D, λ1, A."""

FINE = 5e-4  # Å


def structures() -> dict[str, tuple[Atoms, Callable[[], Any]]]:
    """Structures and what makes their calculators."""
    rattled = bulk("Cu", cubic=True) * (2, 2, 2)
    rattled.rattle(0.05, seed=1)
    strained = bulk("Cu", cubic=True)
    strain = np.array([[0, 0.02, 0.01], [0, 0.01, 0.03], [0, 0, -0.01]])
    strained.set_cell(strained.cell @ (np.eye(3) + strain), scale_atoms=True)
    strained.rattle(0.1, seed=2)
    silicon = bulk("Si", cubic=True)
    silicon.rattle(0.05, seed=3)
    adsorbed = fcc111("Cu", (2, 2, 2), vacuum=8.0)
    add_adsorbate(adsorbed, molecule("CH4"), 2.5)

    def lennard_jones() -> LennardJones:
        return LennardJones(sigma=2.3, epsilon=0.3, rc=6.0, smooth=True)

    def tersoff() -> Tersoff:
        return Tersoff({("Si", "Si", "Si"): TersoffParameters(*SILICON)})

    return {
        "Cu, 2 atoms": (bulk("Cu") * (1, 1, 2), EMT),
        "Cu, 4 atoms": (bulk("Cu", cubic=True), EMT),
        "Cu, strained": (strained, EMT),
        "Cu, 32 rattled": (rattled, EMT),
        "Cu slab": (fcc111("Cu", (2, 2, 3), vacuum=8.0), EMT),
        "CH4 on Cu": (adsorbed, EMT),
        "NiAl": (bulk("NiAl", "cesiumchloride", a=2.9) * (2, 2, 1), EMT),
        "NaCl lattice": (bulk("NaCl", "rocksalt", a=5.0, cubic=True), lennard_jones),
        "Si": (bulk("Si", cubic=True), tersoff),
        "Si, rattled": (silicon, tersoff),
        "CH4": (molecule("CH4"), EMT),
        "C2H6": (molecule("C2H6"), EMT),
        "H2O": (molecule("H2O"), EMT),
    }


def derivative(surface: EnergyFunction, x: np.ndarray, v: np.ndarray) -> np.ndarray:
    """`H v` by Richardson's combination of two small steps."""

    def difference(step: float) -> np.ndarray:
        return (surface(x - step * v).forces - surface(x + step * v).forces) / (2 * step)

    return (4 * difference(FINE) - difference(2 * FINE)) / 3


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


class Counted(ForceEngine):
    """An engine that counts its gradients."""

    def __init__(self, inner: AseEngine, differences: FiniteDifferences) -> None:
        self.inner, self.differences, self.gradient_noise = inner, differences, inner.gradient_noise
        self.name, self.level, self.settings, self.calls = inner.name, inner.level, inner.settings, 0

    def energy_function(self, structure: Structure) -> EnergyFunction:
        surface = self.inner.energy_function(structure)

        def point(positions: np.ndarray) -> Any:
            self.calls += 1
            return surface(positions)

        return point


def main() -> None:
    for fourth_order in (False, True):
        print("Richardson" if fourth_order else "central")
        print(f"{'':16s} {'true':>8s} {'Hessian':>8s} {'gradients':>9s}   {'H v':>5s} {'gradients':>9s}")
        for name, (atoms, calculator) in structures().items():
            structure = from_ase(atoms)
            engine = AseEngine(calculator())
            surface, n = engine.energy_function(structure), len(structure)
            counted = Counted(engine, FiniteDifferences(richardson=fourth_order, hessian_richardson=fourth_order))
            labels = counted.compute(structure, Request(forces=True, hessian=True))
            calls = counted.calls
            unit = np.eye(3 * n).reshape(3 * n, n, 3)
            exact = np.array([derivative(surface, structure.positions, v) for v in unit]).reshape(3 * n, 3 * n)
            hessian = labels.hessian_of(0).numpy().reshape(3 * n, 3 * n)
            true = rms(hessian - (exact + exact.T) / 2)
            probes = np.random.default_rng(0).choice([-1.0, 1.0], size=(8, n, 3))
            products = counted.compute(structure, Request(forces=True, probes=torch.as_tensor(probes)))
            errors = [
                rms(products.hvp[k].numpy() - derivative(surface, structure.positions, v)) for k, v in enumerate(probes)
            ]
            ratio = rms(products.hvp_error.numpy()) / rms(np.array(errors))
            print(
                f"{name:16s} {true:8.1e} {float(labels.hessian_error[0]) / true:8.2f} {calls:9d}   "
                f"{ratio:5.2f} {counted.calls - calls:9d}"
            )


if __name__ == "__main__":
    main()
