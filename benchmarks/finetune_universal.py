"""A universal model learns the curvature of some crystals from the displaced supercells of phonon calculations.

    python benchmarks/finetune_universal.py chgnet:0.2.0 Si --references FOLDER --out run-si --other NaCl
    python benchmarks/finetune_universal.py sevenn:7net-0 Si MgB2 NaCl --references FOLDER --out run --replay 8

The forces of a supercell in which one atom is displaced are a product of the Hessian with that displacement: one label
`H v` for each, and no other labels. With `--replay N`, two steps on the model's own energies and forces of rattled unit
cells (N of each crystal that is trained on) follow each of these steps. Printed before and after: errors of the phonons
of all crystals, also of those that were not trained on (`--other`), and how far energies and forces of further rattled
cells are from those of the published model. References are those of universal_models.py.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from universal_models import CRYSTALS, compare, reference_of

import hesse
from hesse.datasets import join_datasets
from hesse.engines import PotentialEngine
from hesse.lattice import phonons
from hesse.structures import Properties, Structure

RATTLE, JUDGED = 0.08, 8
"""Å, standard deviation of displacements; rattled cells of each crystal that are judged."""


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


def rattled(reference: Any, count: int, seed: int) -> list[Structure]:
    """Unit cells with displaced atoms."""
    cell, rng = reference.structure, np.random.default_rng(seed)
    moved = [cell.positions + rng.normal(scale=RATTLE, size=cell.positions.shape) for _ in range(count)]
    return [cell.with_positions(positions, id=f"{cell.id}-{seed}-{k}") for k, positions in enumerate(moved)]


def errors(potential: Any, reference: Any) -> str:
    """Errors of the phonons of one crystal."""
    engine = PotentialEngine(potential.to(torch.float64), "model")
    engine.potential.supports_vmap = False
    cell, matrix = reference.structure, reference.record.supercell_matrix
    row = compare(phonons(cell, engine, supercell=matrix, primitive=reference.record.primitive_matrix), reference)
    return (
        f"MAE {row['frequency_mae']:.2f} THz, highest {row['largest']:.2f} (DFT {row['largest_dft']:.2f}), "
        f"slope {row['slope']:.2f}, acoustic {row['acoustic_slope']:.2f}, imaginary {row['imaginary_percent']:.1f} %, "
        f"an atom with itself {row['onsite_rmse']:.2f} eV/Å²"
    )


def changes(potential: Any, published: Any, reference: Any) -> str:
    """Differences to the published model for rattled cells."""
    cells = rattled(reference, JUDGED, seed=1)
    now, before = (hesse.compute(cells, model, forces=True) for model in (potential, published))
    energies = 1e3 * (now.energy - before.energy) / len(cells[0])
    forces = now.forces - before.forces
    return (
        f"energies {float(energies.mean()):+.1f} ± {float(energies.std()):.1f} meV/atom, "
        f"forces {float(forces.square().mean().sqrt()):.3f} of {float(before.forces.square().mean().sqrt()):.3f} eV/Å"
    )


def replay_of(references: Mapping[str, Any], model: Any, count: int) -> Any:
    """Rattled cells with the energies and forces of the model."""
    parts = []
    for reference in references.values():
        cells = rattled(reference, count, seed=0)
        parts.append(hesse.Dataset(tuple(cells), hesse.compute(cells, model, forces=True)))
    return join_datasets(parts, list(references))[0]


def main() -> None:
    """Train, and print errors before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("crystals", nargs="+", choices=CRYSTALS)
    parser.add_argument("--other", nargs="*", default=[], choices=CRYSTALS)
    parser.add_argument("--references", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100, help="on products")
    parser.add_argument("--replay", type=int, default=0, help="rattled cells of each crystal that is trained on")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        chosen = [*arguments.crystals, *arguments.other]
        references = {name: reference_of(arguments.references, name, Path(scratch)) for name in chosen}
    trained = {name: references[name] for name in arguments.crystals}
    data = join_datasets([labels_of(reference) for reference in trained.values()], list(trained))[0]
    published = hesse.make_potential(arguments.model)
    for name, reference in references.items():
        print(f"{name} before: {errors(published, reference)}", flush=True)
    replay = replay_of(trained, published, arguments.replay) if arguments.replay else None
    config = hesse.TrainConfig(
        steps=arguments.steps * (3 if replay else 1), batch={"structures": 1}, reference_energies="keep",
        seed=arguments.seed, dtype="float32", compile="never", optimizer={"learning_rate": arguments.learning_rate},
        weights={"energy": 1, "forces": 1, "hvp": 1} if replay else {"energy": 0, "forces": 0, "hvp": 1},
        replay={"steps": 2} if replay else None, allow_shared_structures=True,
    )  # fmt: skip
    result = hesse.train(
        data, data, config, output=arguments.out, potential=hesse.make_potential(arguments.model), replay=replay
    )
    for name, reference in references.items():
        print(f"{name} after: {errors(result.potential, reference)}", flush=True)
        print(f"{name} changed: {changes(result.potential, published, reference)}", flush=True)
    print(result.model_file)


if __name__ == "__main__":
    main()
