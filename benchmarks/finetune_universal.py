"""A universal model learns the curvature of one crystal from the displaced supercells of a phonon calculation.

    python benchmarks/finetune_universal.py chgnet:0.2.0 Si --references FOLDER --out run-si --other NaCl

The forces of a supercell in which one atom is displaced are a product of the Hessian with that displacement: one label
`H v` for each, and no other labels. Printed are errors of the phonons of that crystal before and after, and of another
crystal that was not trained on. References are those of universal_models.py.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from universal_models import CRYSTALS, compare, reference_of

import hesse
from hesse.engines import PotentialEngine
from hesse.lattice import phonons
from hesse.structures import Properties


def labels_of(reference: Any) -> Any:
    """A data set of one structure, the perfect supercell, with a product `H v` for every displaced one."""
    record, supercell = reference.record, reference.supercell
    entries = record.dataset["first_atoms"]
    directions, products = np.zeros((2, len(entries), len(supercell), 3))
    for k, entry in enumerate(entries):
        length = float(np.linalg.norm(entry["displacement"]))
        directions[k, entry["number"]] = np.array(entry["displacement"]) / length
        products[k] = -np.array(entry["forces"]) / length
    labels = Properties.single(len(supercell), probes=directions, hvp=products, structure_id=supercell.id)
    return hesse.Dataset.from_pairs([(supercell, labels)], level="DFT")


def errors(potential: Any, reference: Any) -> str:
    engine = PotentialEngine(potential.to(torch.float64), "model")
    engine.potential.supports_vmap = False
    cell, matrix = reference.structure, reference.record.supercell_matrix
    row = compare(phonons(cell, engine, supercell=matrix, primitive=reference.record.primitive_matrix), reference)
    return (
        f"MAE {row['frequency_mae']:.2f} THz, highest {row['largest']:.2f} (DFT {row['largest_dft']:.2f}), "
        f"slope {row['slope']:.2f}, acoustic {row['acoustic_slope']:.2f}, imaginary {row['imaginary_percent']:.1f} %, "
        f"an atom with itself {row['onsite_rmse']:.2f} eV/Å²"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("crystal", choices=CRYSTALS)
    parser.add_argument("--other", nargs="*", default=[], choices=CRYSTALS)
    parser.add_argument("--references", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        chosen = [arguments.crystal, *arguments.other]
        references = {name: reference_of(arguments.references, name, Path(scratch)) for name in chosen}
    data = labels_of(references[arguments.crystal])
    config = hesse.TrainConfig(
        steps=arguments.steps, batch={"structures": 1}, reference_energies="keep", seed=arguments.seed, dtype="float32",
        weights={"energy": 0, "forces": 0, "hvp": 1}, optimizer={"learning_rate": arguments.learning_rate},
        allow_shared_structures=True,
    )  # fmt: skip
    before = hesse.make_potential(arguments.model)
    for name, reference in references.items():
        print(f"{name} before: {errors(before, reference)}", flush=True)
    result = hesse.train(data, data, config, output=arguments.out, potential=hesse.make_potential(arguments.model))
    for name, reference in references.items():
        print(f"{name} after: {errors(result.potential, reference)}", flush=True)
    print(result.model_file)


if __name__ == "__main__":
    main()
