"""Phonon fine-tuning of a small network on a crystal: displaced forces alone against Hessian-vector products.

    python benchmarks/phonon_tuning.py OUT --kcl KCl-SSCHA [--seeds 0 1 2] [--weights 100 1000]
    python benchmarks/phonon_tuning.py OUT --si Si/anharm_IFCs

`KCl-SSCHA` is the folder of phonopy's example: 120 supercells with random displacements, energies and forces, and the
harmonic force constants of the same supercell; frames with forces up to 5 eV/Å are used. `Si/anharm_IFCs` is the folder
of alamode's example: 100 supercells displaced along random normal coordinates, of which 40 are used, and one supercell
with a displaced atom. The frames train a network from scratch on energies and forces (`base`); a fifth of them is kept
for judging. It is then trained on, on those frames and

- `forces`: forces of supercells in which one atom is displaced by 0.03 Å, with images by the space group;
- `products`: the same directions as pairs of a probe and H v (48 structures, as many as before).

Both see the same force constants, in the same number of steps; `frames` goes on with the frames alone. The weight of
the products is large because soft frequencies are small differences of large force constants: products that are right
within 2.5 % (a loss of 0.003 eV²/Å⁴, which a weight of 10 leaves as it is) still mean frequencies that are wrong by
0.6 THz. Forces of supercells that are displaced by u carry the same derivatives times u², 5·10⁻⁶ of that here. Judged:
frequencies on a mesh (without Born charges), the highest one, entropy and heat capacity at 300 K against the harmonic
force constants, and energies and forces of the frames that were kept. Finished runs are kept: the same command
continues, and prints the table of what is finished.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import phonopy
import torch
from ase import units
from ase.io import read
from phonopy.structure.atoms import PhonopyAtoms

import hesse
from hesse.errors import HarmonicWarning
from hesse.lattice import Phonons, compare_phonons, crystal_labels, phonons, read_phonons
from hesse.structures import Properties

MAX_FORCE, DISPLACEMENT, IMAGES, SILICON_FRAMES = 5.0, 0.03, 7, 40
BASE: dict[str, Any] = {
    "model": {"kind": "hessenet", "features": 16, "cutoff": 5.0},
    "batch": {"structures": 4},
    "steps": 600,
    "compile": "never",
    "cpu_threads": 1,
    "weights": {"energy": 1.0, "forces": 1.0, "hvp": 0.0},
    "checkpoint_every": 50,
}
TUNE = BASE | {"steps": 400, "optimizer": {"learning_rate": 2e-3}}
FRAMES = {"energy": 1.0, "forces": 1.0, "hvp": 0.0}


def potassium_chloride(folder: Path) -> tuple[hesse.Dataset, Phonons]:
    """Frames, and harmonic phonons."""
    data = hesse.read_dataset(folder / "phonopy_mlpsscha_params_KCl-120.yaml.xz")
    assert data.labels.forces is not None
    largest = data.labels.forces.norm(dim=1).reshape(len(data), -1).max(dim=1).values
    reference = read_phonons(folder / "phonopy_fc222_JPCM2022.yaml.xz", born=False)
    return data[[int(k) for k in torch.nonzero(largest < MAX_FORCE)[:, 0]]], reference


def silicon(folder: Path) -> tuple[hesse.Dataset, Phonons]:
    """Frames, and harmonic phonons, of alamode's files: displacements in bohr and forces in Ry/bohr, atom by atom."""
    cell = read(folder / "2_generate_config" / "POSCAR_supercell", format="vasp")
    energies, moves, forces = alamode_frames(folder / "3_cv" / "DFSET_randomQ", len(cell))
    items = []
    for k in range(SILICON_FRAMES):
        atoms = cell.copy()
        atoms.positions += moves[k]
        structure = hesse.from_ase(atoms).with_positions(atoms.positions, id=f"frame-{k}")
        items.append((structure, Properties.single(len(cell), energy=energies[k], forces=forces[k])))
    _, (move,), (force,) = alamode_frames(folder / "1_harmonic" / "DFSET_harmonic", len(cell))
    perfect = PhonopyAtoms(symbols=cell.get_chemical_symbols(), cell=cell.cell, positions=cell.positions)
    record = phonopy.Phonopy(perfect, supercell_matrix=np.eye(3), primitive_matrix="auto", log_level=0)
    atom = int(np.linalg.norm(move, axis=1).argmax())
    record.dataset = {
        "natom": len(cell), "first_atoms": [{"number": atom, "displacement": move[atom], "forces": force}],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        record.save(Path(scratch) / "phonopy_params.yaml")
        return hesse.Dataset.from_pairs(items), read_phonons(Path(scratch) / "phonopy_params.yaml", born=False)


def alamode_frames(file: Path, n_atoms: int) -> tuple[list[float], np.ndarray, np.ndarray]:
    """Energies (eV), displacements (Å) and forces (eV/Å) of a file DFSET."""
    lines = file.read_text().splitlines()
    energies = [float(line.rpartition(":")[2]) for line in lines if line.startswith("#")]
    rows = np.array([line.split() for line in lines if not line.startswith("#")], dtype=float).reshape(-1, n_atoms, 6)
    return energies, rows[..., :3] * units.Bohr, rows[..., 3:] * units.Rydberg / units.Bohr


def displaced(pairs: hesse.Dataset) -> hesse.Dataset:
    """Supercells displaced along the probes, with their harmonic forces."""
    supercell, labels = pairs.structures[0], pairs.labels
    assert labels.probes is not None
    assert labels.hvp is not None
    items = []
    for k, (probe, product) in enumerate(zip(labels.probes.numpy(), labels.hvp.numpy(), strict=True)):
        scale = DISPLACEMENT / float(np.linalg.norm(probe))
        moved = supercell.with_positions(supercell.positions + scale * probe, id=f"displaced-{k}")
        items.append((moved, Properties.single(len(moved), forces=-scale * product)))
    return hesse.Dataset(tuple(s for s, _ in items), Properties.concatenate([p for _, p in items]))


def copies(pairs: hesse.Dataset, probes_each: int) -> hesse.Dataset:
    """The supercell several times, with some of the pairs each, so that batches are as large as those of the others."""
    supercell, labels = pairs.structures[0], pairs.labels
    assert labels.probes is not None
    assert labels.hvp is not None
    items = []
    for k in range(0, len(labels.probes), probes_each):
        part = slice(k, k + probes_each)
        named = supercell.with_positions(supercell.positions, id=f"supercell-{k}")
        items.append((named, Properties.single(len(named), probes=labels.probes[part], hvp=labels.hvp[part])))
    return hesse.Dataset(tuple(s for s, _ in items), Properties.concatenate([p for _, p in items]))


def judge(model: Path, reference: Phonons, kept: hesse.Dataset) -> dict[str, float]:
    """Errors of one model."""
    potential = hesse.as_potential(model, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HarmonicWarning)
        own = phonons(reference.structure, potential, supercell=reference.record.supercell_matrix.T)
    row = compare_phonons(own, reference, temperatures=[300.0], mesh=(8, 8, 8)).row()
    labels = hesse.compute(list(kept.structures), potential, forces=True)
    energies, forces = labels.energy - kept.labels.energy, labels.forces - kept.labels.forces
    numbers = {name: float(np.ravel(row[name])[0]) for name in ("frequency_rms", "max_frequency_error")}
    numbers["entropy_error"] = float(np.ravel(row["entropy_error"])[0]) * 96485.3
    numbers["heat_capacity_error"] = float(np.ravel(row["heat_capacity_error"])[0]) * 96485.3
    numbers["imaginary"] = len(own.imaginary_modes())
    numbers["energy_rmse"] = 1e3 * float(energies.square().mean().sqrt()) / len(kept.structures[0])
    numbers["forces_rmse"] = float(forces.square().mean().sqrt())
    return numbers


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    crystal = parser.add_mutually_exclusive_group(required=True)
    crystal.add_argument("--kcl", type=Path, help="phonopy's example KCl-SSCHA")
    crystal.add_argument("--si", type=Path, help="alamode's example Si/anharm_IFCs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--weights", type=float, nargs="+", default=[1000.0], help="of the products, a run for each")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    data, reference = silicon(options.si) if options.si else potassium_chloride(options.kcl)
    train, kept = data[[k for k in range(len(data)) if k % 5]], data[::5]
    pairs = crystal_labels(reference, images=IMAGES).dataset
    moved = displaced(pairs)
    schemes = {"frames": FRAMES, "forces": FRAMES}
    schemes |= {f"products-{weight:g}": FRAMES | {"hvp": weight} for weight in options.weights}
    parts = {"frames": train, "forces": train + moved, "products": train + copies(pairs, 1)}
    print(f"{len(train)} frames to train on, {len(kept)} kept, {len(moved)} displaced supercells", flush=True)
    results: dict[str, list[dict[str, float]]] = {}
    for seed in options.seeds:
        base = options.out / f"base-{seed}"
        for name in ("base", *schemes):
            folder = base if name == "base" else options.out / f"{name}-{seed}"
            done = folder / "judged.json"
            if not done.is_file():
                settings = (BASE if name == "base" else TUNE | {"weights": schemes[name]}) | {"seed": seed}
                if name == "base":
                    hesse.train(train, config=settings, output=folder, quiet=True)
                else:
                    start = hesse.as_potential(base / "model.hesse")
                    hesse.train(
                        parts[name.partition("-")[0]], config=settings, output=folder, potential=start, quiet=True
                    )
                done.write_text(json.dumps(judge(folder / "model.hesse", reference, kept)))
            results.setdefault(name, []).append(json.loads(done.read_text()))
            print(seed, name, results[name][-1], flush=True)
    print("| trained on | " + " | ".join(next(iter(results.values()))[0]) + " |")
    print("|---|" + "---|" * len(next(iter(results.values()))[0]))
    for name, rows in results.items():
        columns = ([row[key] for row in rows] for key in rows[0])
        print(f"| {name} | " + " | ".join(f"{np.mean(c):.3g} ± {np.std(c):.2g}" for c in columns) + " |")


if __name__ == "__main__":
    main()
