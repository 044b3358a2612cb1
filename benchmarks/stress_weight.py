"""Elastic constants of copper from models trained with stress at several weights, against the reference (EMT).

    python benchmarks/stress_weight.py [--steps 600] [--seeds 3]

Twelve strained and rattled cells of 32 atoms are labeled with energies, forces and stresses by ASE's EMT. HesseNet is
trained with `energy: 4, forces: 0.3` and the given weights of stress: 0, 0.0072 (stress itself, not the virial per
atom, with the weight 1: V/N = 11.8 Å³) and 1. The elastic constants are slopes of the stress between strains of
±0.5 %, at EMT's lattice constant. Eight minutes on one core.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.units import GPa

import hesse
from hesse.training import TrainConfig

LATTICE_CONSTANT = 3.59  # Å, EMT's minimum
STRAIN = 0.005


def training_data(seed: int) -> list[Atoms]:
    """Strained and rattled cells."""
    rng = np.random.default_rng(seed)
    result = []
    for k in range(12):
        atoms = bulk("Cu", a=LATTICE_CONSTANT, cubic=True) * (2, 2, 2)
        strain = rng.uniform(-0.03, 0.03, (3, 3))
        atoms.set_cell(atoms.cell[:] @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.rattle(0.08, seed=100 * seed + k)
        result.append(atoms)
    return result


def elastic_constants(calculator: Calculator) -> tuple[float, float, float]:
    """C11, C12 and C44, GPa."""

    def stress(strain: np.ndarray) -> np.ndarray:
        atoms = bulk("Cu", a=LATTICE_CONSTANT, cubic=True)
        atoms.set_cell(atoms.cell[:] @ (np.eye(3) + strain), scale_atoms=True)
        atoms.calc = calculator
        return np.asarray(atoms.get_stress(voigt=True))

    axial, shear = np.zeros((3, 3)), np.zeros((3, 3))
    axial[0, 0] = STRAIN
    shear[1, 2] = shear[2, 1] = STRAIN / 2
    by_axial = (stress(axial) - stress(-axial)) / (2 * STRAIN)
    by_shear = (stress(shear) - stress(-shear)) / (2 * STRAIN)
    return by_axial[0] / GPa, by_axial[1] / GPa, by_shear[3] / GPa


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.0072, 1.0])
    options = parser.parse_args()
    print("weight  seed   C11   C12   C44 (GPa)      errors of all data: meV/atom, eV/Å, GPa")
    print("EMT           {:5.0f} {:5.0f} {:5.0f}".format(*elastic_constants(EMT())))
    for seed in range(options.seeds):
        report = hesse.label(training_data(seed), EMT(), probes=0, stress=True, quiet=True)
        assert report.dataset is not None
        training, validation = report.dataset.split(0.8, 0.2, seed=seed)
        for weight in options.weights:
            config = TrainConfig(
                steps=options.steps,
                seed=seed,
                weights={"energy": 4.0, "forces": 0.3, "hvp": 0.0, "stress": weight},
                batch={"structures": 4},
            )
            with tempfile.TemporaryDirectory() as folder:
                result = hesse.train(training, validation, config=config, output=Path(folder) / "run", quiet=True)
                constants = elastic_constants(hesse.HesseCalculator(result.model_file))
                scores = dict(result.scores)
                errors = {
                    row.property: row.value
                    for row in hesse.evaluate(result.model_file, report.dataset).rows
                    if row.metric == "rmse" and not row.tag
                }
            print(
                f"{weight:6g}  {seed:4d}  "
                + " ".join(f"{c:5.0f}" for c in constants)
                + f"   {1000 * errors['energy_per_atom']:8.2f} {errors['forces']:8.4f} {errors['stress'] / GPa:8.3f}",
                flush=True,
            )
            assert ("stress_rmse" in scores) == (weight > 0), scores


if __name__ == "__main__":
    main()
