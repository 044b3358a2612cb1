"""Curvature of universal models: agreement with their own calculators, and phonons of crystals against DFT.

    python benchmarks/universal_models.py agreement chgnet:0.3.0 chgnet:0.2.0 chgnet:r2scan --out agreement.json
    python benchmarks/universal_models.py steps chgnet:0.3.0 chgnet:0.2.0 --out steps.json
    python benchmarks/universal_models.py phonons chgnet:0.3.0 --references FOLDER --out phonons.json
    python benchmarks/universal_models.py phonons chgnet:0.3.0 --references FOLDER --ways relaxed --out phonons.json
    python benchmarks/universal_models.py table phonons.json other.json

`agreement` compares energies, forces, stress and products `H v` (against differences of their forces) with the ASE
calculators of the models. `steps` compares the second derivative of the energy along the displacement of one atom of a
perfect crystal with differences of forces over steps of 0.1 mÅ to 0.1 Å. `phonons` needs a folder with the examples of
phonopy (https://github.com/phonopy/phonopy, folder `example`): cells, and forces of supercells in which one atom is
displaced. Results are written after every crystal, and a second start continues. Models that cannot be installed
together are run in environments of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule

import hesse
from hesse.curvature import evaluate
from hesse.engines import PotentialEngine, make_engine
from hesse.lattice import phonons, read_phonons
from hesse.runtime.filesystem import atomic_write_text
from hesse.structures import Request, collate, from_ase

CRYSTALS = ("Si", "MgB2", "NaCl", "KCl-SSCHA", "SnO2", "Al2O3", "TiO2-anatase")
WAYS: dict[str, dict[str, Any]] = {
    "products": {},
    "displacements": {"displacement": 0.01},
    "relaxed": {"relax_cell": True, "fmax": 0.002, "steps": 200},
}
"""How force constants are computed: exact products in the cell of DFT, finite displacements of 0.01 Å there, and exact
products in the minimum of the model, cell included."""
MESH = [8, 8, 8]
IMAGINARY = -0.05
"""THz; frequencies below count as imaginary."""


# --- agreement with the models' own calculators ----------------------------------------------------------------------


def own_calculator(name: str) -> Any:
    """The ASE calculator that comes with a model."""
    head, _, settings = name.partition("?")
    kind, _, weights = head.partition(":")
    with contextlib.redirect_stdout(io.StringIO()):
        if kind == "chgnet":
            import chgnet.graph.converter
            import chgnet.model.model
            from chgnet.model.dynamics import CHGNetCalculator

            # In float64, because the slopes of its forces change within mÅ (docs/universal-models.md).
            chgnet.graph.converter.TORCH_DTYPE = chgnet.model.model.TORCH_DTYPE = torch.float64
            model = chgnet.model.model.CHGNet.load(model_name=weights, use_device="cpu").double()
            model.composition_model.float()
            return CHGNetCalculator(model, use_device="cpu")
        from sevenn.calculator import SevenNetCalculator

        return SevenNetCalculator(weights, device="cpu", modal=settings.removeprefix("modal=") or None)


def distorted_structures() -> list[tuple[str, Atoms]]:
    """Crystals of different bonding, some with atoms that are their own neighbors, and a molecule in a box."""
    crystals = {
        "NaCl": bulk("NaCl", "rocksalt", a=5.69),
        "Si": bulk("Si", cubic=True),
        "Al": bulk("Al"),
        "Fe": bulk("Fe", cubic=True),
        "TiO2-like": bulk("TiO", "rocksalt", a=4.2) * (2, 1, 1),
        "methanol": molecule("CH3OH", cell=[12, 12, 12], pbc=True),
    }
    for seed, atoms in enumerate(crystals.values()):
        atoms.rattle(0.05, seed=seed)
    return list(crystals.items())


def agreement(names: list[str], out: Path) -> None:
    rows = json.loads(out.read_text()) if out.exists() else {}
    for name in names:
        potential, calculator = hesse.make_potential(name, dtype=torch.float64), own_calculator(name)
        worst = dict.fromkeys(("energy", "forces", "stress", "hvp", "largest_hvp"), 0.0)
        for _, atoms in distorted_structures():
            structure, atoms.calc = from_ase(atoms), calculator
            probe = np.random.default_rng(1).standard_normal((len(atoms), 3))
            request = Request(forces=True, stress=True, probes=torch.as_tensor(probe[None]))
            ours = evaluate(potential, collate([structure], potential.cutoff, dtype=torch.float64), request)
            theirs = (atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False))
            for key, other in zip(("energy", "forces", "stress"), theirs, strict=True):
                mine = getattr(ours, key)
                scale = 1.0 / len(atoms) if key == "energy" else 1.0
                worst[key] = max(worst[key], scale * float(np.abs(np.squeeze(mine.numpy()) - other).max()))
            # Richardson's extrapolation of two steps, long ones for forces in float32.
            slopes, shorter = [], 1e-4 if name.startswith("chgnet") else 0.01
            for step in (shorter, 2 * shorter):
                ends = []
                for sign in (1, -1):
                    moved = atoms.copy()
                    moved.positions += sign * step * probe / np.abs(probe).max()
                    moved.calc = calculator
                    ends.append(moved.get_forces().astype(float))
                slopes.append(-(ends[0] - ends[1]) / (2 * step) * np.abs(probe).max())
            difference = np.abs((4 * slopes[0] - slopes[1]) / 3 - ours.hvp[0].numpy()).max()
            worst["hvp"] = max(worst["hvp"], float(difference))
            worst["largest_hvp"] = max(worst["largest_hvp"], float(np.abs(ours.hvp[0].numpy()).max()))
        rows[name] = worst
        write(out, rows)
        print(name, {key: f"{value:.1e}" for key, value in worst.items()}, flush=True)


# --- differences of forces over several steps -------------------------------------------------------------------------

STEPS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Å."""
PERFECT = {"NaCl": ("rocksalt", 5.69), "MgO": ("rocksalt", 4.25), "Al": ("fcc", 4.05), "Si": ("diamond", 5.43)}


def steps(names: list[str], out: Path) -> None:
    rows = json.loads(out.read_text()) if out.exists() else {}
    for name in names:
        potential = hesse.make_potential(name, dtype=torch.float64)
        for crystal, (lattice, constant) in PERFECT.items():
            structure = from_ase(bulk(crystal, lattice, a=constant, cubic=True))
            move = np.zeros_like(structure.positions)
            move[0, 0] = 1.0
            request = Request(forces=True, probes=torch.as_tensor(move[None]))
            exact = evaluate(potential, collate([structure], potential.cutoff), request).hvp[0, 0, 0]
            slopes = []
            for step in STEPS:
                moved = [structure.with_positions(structure.positions + s * step * move) for s in (1, -1)]
                ends = [evaluate(potential, collate([m], potential.cutoff), Request(forces=True)) for m in moved]
                slopes.append(float(ends[1].forces[0, 0] - ends[0].forces[0, 0]) / (2 * step))
            rows[f"{name} {crystal}"] = [float(exact), *slopes]
            write(out, rows)
            print(name, crystal, *(f"{value:.3f}" for value in rows[f"{name} {crystal}"]), flush=True)


# --- phonons ----------------------------------------------------------------------------------------------------------


def reference_of(folder: Path, crystal: str, scratch: Path) -> Any:
    """The phonons of DFT, without the long-range part of polar crystals."""
    if crystal == "KCl-SSCHA":
        return read_phonons(folder / crystal / "phonopy_fc222_JPCM2022.yaml.xz", born=False)
    if crystal != "Si":
        return read_phonons(folder / crystal, born=False)
    import phonopy
    from phonopy.interface.vasp import parse_set_of_forces

    record = phonopy.load(folder / crystal / "phonopy_disp.yaml", is_nac=False, produce_fc=False, log_level=0)
    atoms = len(record.supercell)
    record.forces = parse_set_of_forces(atoms, [folder / crystal / "vasprun.xml"], verbose=False)["forces"]
    record.save(scratch / "phonopy_params.yaml")
    return read_phonons(scratch / "phonopy_params.yaml", born=False)


def compare(ours: Any, reference: Any) -> dict[str, float]:
    """Errors of frequencies on a mesh and of force constants, and slopes of the frequencies on those of DFT."""
    q, weights, expected = reference.mesh(MESH)
    got = ours.frequencies(q)
    share = (weights / weights.sum())[:, None] / expected.shape[1]
    acoustic = slice(0, 3)
    constants, target = ours.force_constants, reference.force_constants
    row = {
        "frequency_mae": float((share * np.abs(got - expected)).sum()),
        "largest": float(got.max()),
        "largest_dft": float(expected.max()),
        "slope": slope(expected, got, weights),
        "acoustic_slope": slope(expected[:, acoustic], got[:, acoustic], weights),
        "imaginary_percent": 100.0 * float((share * (got < IMAGINARY)).sum()),
    }
    if constants.shape == target.shape:
        row["constants_rmse"] = float(np.sqrt(np.mean((constants - target) ** 2)))
        row["constants_rms"] = float(np.sqrt(np.mean(target**2)))
        row["onsite_rmse"] = onsite_error(constants, target, reference)
    return row


def slope(x: Any, y: Any, weights: Any) -> float:
    """Slope of a line through the origin."""
    return float((weights[:, None] * x * y).sum() / (weights[:, None] * x * x).sum())


def onsite_error(constants: Any, target: Any, reference: Any) -> float:
    """Root mean square error of the blocks of an atom with itself."""
    rows = range(len(constants))
    atoms = reference.record.primitive.p2s_map
    blocks = [constants[k, atoms[k]] - target[k, atoms[k]] for k in rows]
    return float(np.sqrt(np.mean(np.square(blocks))))


def run_phonons(names: list[str], folder: Path, crystals: list[str], ways: list[str], out: Path) -> None:
    rows: list[dict[str, Any]] = json.loads(out.read_text()) if out.exists() else []
    for crystal in crystals:
        with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reference = reference_of(folder, crystal, Path(scratch))
            cell, matrix = reference.structure, reference.record.supercell_matrix
            for name in names:
                engine = make_engine(name)
                if isinstance(engine, PotentialEngine):  # the kinks of a model are narrower than float32 resolves
                    engine = PotentialEngine(engine.potential.to(torch.float64), engine.level)
                    engine.potential.supports_vmap = False  # memory of one product at a time
                for way in ways:
                    if any((r["model"], r["crystal"], r["way"]) == (name, crystal, way) for r in rows):
                        continue
                    start = time.monotonic()
                    row: dict[str, Any] = {
                        "model": name,
                        "crystal": crystal,
                        "way": way,
                        "atoms": len(reference.supercell),
                    }
                    try:
                        primitive = reference.record.primitive_matrix
                        ours = phonons(cell, engine, supercell=matrix, primitive=primitive, **WAYS[way])
                    except hesse.HesseError as error:
                        row["error"] = str(error)
                    else:
                        row |= compare(ours, reference) | {"fmax": ours.fmax, "pressure": ours.pressure}
                        row["volume_percent"] = 100.0 * (volume(ours.structure) / volume(cell) - 1.0)
                    row["seconds"] = time.monotonic() - start
                    rows.append(row)
                    write(out, rows)
                    print(json.dumps(row), flush=True)


def volume(structure: Any) -> float:
    return float(abs(np.linalg.det(structure.cell)))


def write(out: Path, rows: Any) -> None:
    atomic_write_text(out, json.dumps(rows, indent=1) + "\n")


COLUMNS = {
    "frequency_mae": ("MAE, THz", ".2f"),
    "largest": ("highest, THz", ".2f"),
    "largest_dft": ("of DFT", ".2f"),
    "slope": ("slope", ".2f"),
    "acoustic_slope": ("acoustic slope", ".2f"),
    "imaginary_percent": ("imaginary, %", ".1f"),
    "constants_rmse": ("force constants RMSE, eV/Å²", ".3f"),
    "onsite_rmse": ("of an atom with itself", ".2f"),
    "volume_percent": ("volume, %", "+.1f"),
}


def table(files: list[Path]) -> None:
    rows = [row for file in files for row in json.loads(file.read_text())]
    for way in dict.fromkeys(row["way"] for row in rows):
        chosen = [row for row in rows if row["way"] == way]
        columns = [key for key in COLUMNS if key != "volume_percent" or way == "relaxed"]
        columns = [key for key in columns if any(key in row for row in chosen)]
        print(f"\n{way}\n\n| crystal | model | {' | '.join(COLUMNS[key][0] for key in columns)} |")
        print(f"|---|---|{'---|' * len(columns)}")
        for row in sorted(chosen, key=lambda row: CRYSTALS.index(row["crystal"])):
            cells = [format(row[key], COLUMNS[key][1]) if key in row else "" for key in columns]
            note = f" {row['error']}" if "error" in row else ""
            print(f"| {row['crystal']} | {row['model']} | {' | '.join(cells)} |{note}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    agree = verbs.add_parser("agreement")
    stepwise = verbs.add_parser("steps")
    phonon = verbs.add_parser("phonons")
    for verb in (agree, stepwise, phonon):
        verb.add_argument("models", nargs="+")
        verb.add_argument("--out", type=Path, required=True)
    phonon.add_argument("--references", type=Path, required=True)
    phonon.add_argument("--crystals", nargs="+", default=list(CRYSTALS), choices=CRYSTALS)
    phonon.add_argument("--ways", nargs="+", default=["products", "displacements"], choices=WAYS)
    tables = verbs.add_parser("table")
    tables.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.verb == "table":
        table(arguments.files)
        return
    packages = {name.partition(":")[0] for name in arguments.models} & {"chgnet", "sevenn"}
    print(", ".join(f"{package} {version(package)}" for package in ("torch", *sorted(packages))), flush=True)
    warnings.filterwarnings("ignore", category=UserWarning)
    if arguments.verb == "agreement":
        agreement(arguments.models, arguments.out)
    elif arguments.verb == "steps":
        steps(arguments.models, arguments.out)
    else:
        chosen = arguments.crystals, arguments.ways
        run_phonons(arguments.models, arguments.references, *chosen, arguments.out)


if __name__ == "__main__":
    main()
