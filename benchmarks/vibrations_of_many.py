"""Vibrations of many molecules by a model: all in batches against one at a time. Process time on one thread.

    python benchmarks/vibrations_of_many.py [MODEL.hesse] [--molecules 200] [--repeats 3]

The molecules are those of the G2 collection (H, C, N, O; 3 to 16 atoms), repeated with small displacements. Without a
model an untrained one of each built-in kind is taken: costs do not depend on weights. Three ways take turns; the
shortest time of each counts:

- ase: `HesseCalculator.get_hessian` of each molecule, then its normal modes;
- one: `hesse.vibrations` of each molecule;
- many: `hesse.analyze_vibrations` of all of them.

The last column is the largest difference between the frequencies of one and many, which are the same numbers.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

import hesse
from hesse.errors import HarmonicWarning

__all__ = ["main", "measure"]


def molecules(count: int) -> list[hesse.Structure]:
    """Molecules of different sizes, all different."""
    start, rng = hesse.g2_molecules(), np.random.default_rng(0)
    return [
        replace(
            (m := start[k % len(start)]),
            positions=m.positions + rng.normal(scale=0.01, size=m.positions.shape),
            id=f"{m.id}/{k}",
        )
        for k in range(count)
    ]


def measure(potential: hesse.Potential, structures: Sequence[hesse.Structure], repeats: int) -> dict[str, float]:
    """Seconds of each way, and the largest difference of frequencies.

    Args:
        potential: the model.
        structures: the molecules.
        repeats: number of turns.

    Returns:
        Process time by way, s; and `difference`, cm⁻¹.
    """
    calculator, engine = hesse.HesseCalculator(potential), hesse.PotentialEngine(potential)
    results: dict[str, list[np.ndarray]] = {}

    def ase_way() -> list[np.ndarray]:
        found = []
        for structure in structures:
            atoms = structure.to_ase()
            atoms.calc = calculator
            hessian = calculator.get_hessian(atoms)
            n = len(atoms)
            found.append(hesse.normal_modes(structure, np.asarray(hessian).reshape(n, 3, n, 3)).frequencies)
        return found

    ways: dict[str, Callable[[], list[np.ndarray]]] = {
        "ase": ase_way,
        "one": lambda: [hesse.vibrations(structure, engine).frequencies for structure in structures],
        "many": lambda: [v.frequencies for v in hesse.analyze_vibrations(structures, engine, quiet=True)],
    }
    seconds = dict.fromkeys(ways, np.inf)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HarmonicWarning)
        for _ in range(repeats):
            for name, way in ways.items():
                start = time.process_time()
                results[name] = way()
                seconds[name] = min(seconds[name], time.process_time() - start)
    pairs = zip(results["one"], results["many"], strict=True)
    return {**seconds, "difference": max(float(np.abs(a - b).max()) for a, b in pairs)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table.

    Args:
        arguments: those of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--molecules", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--double", action="store_true", help="float64 instead of float32")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    structures = molecules(options.molecules)
    if options.model:
        models = {options.model: hesse.load_model(options.model)}
    else:
        elements = (1, 6, 7, 8)
        models = {
            "hessenet": hesse.HesseNet(hesse.HesseNetConfig(), elements),
            "hipnn": hesse.Hipnn(hesse.HipnnConfig(), elements),
            "ani": hesse.Ani(hesse.AniConfig(), elements),
        }
    print(f"{len(structures)} molecules, {np.mean([len(s) for s in structures]):.1f} atoms on average, seconds")
    print(f"{'model':12s} {'ase':>8s} {'one':>8s} {'many':>8s} {'one/many':>9s} {'ase/many':>9s}  cm⁻¹")
    for name, model in models.items():
        row = measure(model.double() if options.double else model, structures, options.repeats)
        print(
            f"{name:12s} {row['ase']:8.2f} {row['one']:8.2f} {row['many']:8.2f} {row['one'] / row['many']:9.2f} "
            f"{row['ase'] / row['many']:9.2f}  {row['difference']:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
