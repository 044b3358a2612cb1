"""How many displaced supercells do self-consistent phonons need, and are their error bars right?

    python benchmarks/anharmonic_convergence.py [--seeds 8] [--plot docs/images/anharmonic-convergence.png]

Aluminum with ASE's EMT potential at 300 K, cubic supercell of 32 atoms. For each number of displaced supercells in a
round, the search is repeated with other random displacements: the scatter of the results is the true statistical error,
beside the one that each search states. Differences to the mean of the largest samples show a bias of small ones.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT

import hesse
from hesse.errors import HarmonicWarning

SNAPSHOTS = (16, 32, 64, 128, 256)
TEMPERATURE = 300.0


def search(harmonic: Any, snapshots: int, seed: int) -> dict[str, float]:
    """One search: the highest frequency (THz) and the free energy (meV per atom), with their stated errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HarmonicWarning)  # small samples do not converge to the tolerance
        found = hesse.anharmonic(harmonic, EMT(), TEMPERATURE, snapshots=snapshots, seed=seed)
    atoms, frequencies = len(harmonic.structure), found.phonons.frequencies(harmonic.commensurate)
    return {
        "frequency": float(frequencies.max()),
        "frequency_error": float(found.frequency_errors.flat[frequencies.argmax()]),
        "free_energy": 1e3 * found.free_energy / atoms,
        "free_energy_error": 1e3 * found.free_energy_error / atoms,
    }


def main() -> None:
    """Print the table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    harmonic = hesse.phonons(bulk("Al", "fcc", a=3.99, cubic=True), EMT(), supercell=2)
    results = {n: [search(harmonic, n, seed) for seed in range(options.seeds)] for n in SNAPSHOTS}
    best = {key: float(np.mean([r[key] for r in results[SNAPSHOTS[-1]]])) for key in ("frequency", "free_energy")}
    print("| displacements a round | frequency, THz | scatter | stated | free energy, meV/atom | scatter | stated |")
    print("|---|---|---|---|---|---|---|")
    for n, rows in results.items():
        cells = []
        for key in ("frequency", "free_energy"):
            values = np.array([r[key] for r in rows])
            stated = float(np.sqrt(np.mean([r[f"{key}_error"] ** 2 for r in rows])))
            cells += [f"{values.mean():.3f}", f"{values.std(ddof=1):.3f}", f"{stated:.3f}"]
        print(f"| {n} | " + " | ".join(cells) + " |")
    if options.plot:
        draw(options.plot, results, best)


def draw(path: Path, results: dict[int, list[dict[str, float]]], best: dict[str, float]) -> None:
    """Differences of all searches to the best value, with their error bars, against the size of the sample."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained")
    labels = {"frequency": "highest frequency, THz", "free_energy": "free energy, meV per atom"}
    for axis, (key, label) in zip(axes, labels.items(), strict=True):
        for k, (n, rows) in enumerate(results.items()):
            x = n * 1.035 ** (np.arange(len(rows)) - (len(rows) - 1) / 2)
            axis.errorbar(
                x, [r[key] - best[key] for r in rows], [r[f"{key}_error"] for r in rows], fmt="o", ms=3, lw=1,
                color=f"C{k}",
            )  # fmt: skip
        sizes = np.geomspace(min(results) * 0.85, max(results) * 1.15, 50)
        scatter = np.std([r[key] for r in results[max(results)]], ddof=1) * np.sqrt(max(results) / sizes)
        axis.fill_between(sizes, -scatter, scatter, color="0.88", zorder=0, label="∝ N$^{-1/2}$")
        axis.axhline(0, color="0.4", lw=0.8)
        axis.set(xscale="log", xticks=list(results), xlabel="displaced supercells in a round", ylabel=f"Δ {label}")
        axis.set_xticklabels([str(n) for n in results])
        axis.minorticks_off()
        axis.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
