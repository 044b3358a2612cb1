"""Time and memory of force constants of large supercells from Hessian-vector products.

    python benchmarks/phonons_of_large_cells.py [--repeats 4 6 8 10 12] [--plot large-cells.png]

Rock salt, the default network with random weights in float64 (time and memory do not depend on the weights), one
thread. Each supercell runs in a process of its own: processor time of phonopy's cells, of the products, and of the
symmetrization; the largest memory of the process above that of its imports; and the memory that the dense matrix would
take. Frequencies are compared with those of the smallest supercell whose half width exceeds twice the cutoff.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

REPEATS = (6, 8, 10, 12)
WAVE_VECTORS = [[0.0, 0.0, 0.0], [0.5, 0.0, 0.5], [0.13, -0.27, 0.4]]


def measure(repeats: int) -> dict[str, Any]:
    """One supercell."""
    import torch
    from ase.build import bulk

    import hesse
    from hesse.lattice.force_constants import compute_force_constants
    from hesse.lattice.supercells import as_supercell_matrix, make_record
    from hesse.structures import from_ase

    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    engine = hesse.as_engine(hesse.HesseNet(hesse.HesseNetConfig(), (11, 17)).double())
    crystal = from_ase(bulk("NaCl", "rocksalt", a=5.64), id="NaCl")
    make_record(crystal, as_supercell_matrix(1, crystal))  # imports
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.process_time()
    record = make_record(crystal, as_supercell_matrix(repeats, crystal))
    cells = time.process_time() - start
    report = compute_force_constants(record, engine)
    total = time.process_time() - start
    record.run_qpoints(WAVE_VECTORS)
    n = len(record.supercell)
    return {
        "atoms": n,
        "products": report.n_displacements,
        "cells": cells,
        "total": total,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before,
        "dense": 72.0 * n * n / 2**20,
        "sum_rule": report.sum_rule,
        "asymmetry": report.asymmetry,
        "frequencies": np.array(record.qpoints.frequencies),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, nargs="+", default=REPEATS)
    parser.add_argument("--plot", type=Path, help="picture of time and memory")
    options = parser.parse_args()
    first = None
    print("| atoms | products | phonopy's cells, s | products and symmetries, s | memory, MiB | dense matrix, MiB |")
    print("|---|---|---|---|---|---|")
    notes, rows = [], []
    for repeats in options.repeats:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = pool.apply(measure, (repeats,))
        first = row if first is None else first
        rows.append(row)
        change = float(np.abs(row["frequencies"] - first["frequencies"]).max())
        print(
            f"| {row['atoms']} | {row['products']} | {row['cells']:.1f} | {row['total'] - row['cells']:.1f} | "
            f"{row['peak']:.0f} | {row['dense']:.0f} |",
            flush=True,
        )
        notes.append(
            f"{row['atoms']} atoms: sum rule {row['sum_rule']:.1e} eV/Å², change by symmetrization "
            f"{row['asymmetry']:.1e}, frequencies against {first['atoms']} atoms {change:.1e} THz"
        )
    print("\n".join(notes))
    if options.plot:
        draw(options.plot, rows)


def draw(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Processor time and memory against the number of atoms, on logarithmic axes."""
    import matplotlib.pyplot as plt

    figure, (time_axis, memory_axis) = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained")
    atoms = np.array([row["atoms"] for row in rows])
    linear = atoms / atoms[-1]
    totals = np.array([row["total"] for row in rows])
    time_axis.plot(atoms, totals, "o-", label="all")
    time_axis.plot(atoms, totals - [row["cells"] for row in rows], "s-", label="products and symmetries")
    time_axis.plot(atoms, totals[-1] * linear, ":", color="0.5", label="∝ N")
    memory_axis.plot(atoms, [row["peak"] for row in rows], "o-", label="peak of the process")
    memory_axis.plot(atoms, [row["dense"] for row in rows], "s--", label="dense matrix (never made)")
    memory_axis.plot(atoms, rows[-1]["peak"] * linear, ":", color="0.5", label="∝ N")
    for axis, label in ((time_axis, "processor time, s"), (memory_axis, "memory, MiB")):
        axis.set(xscale="log", yscale="log", xlabel="atoms in the supercell", ylabel=label, xticks=atoms)
        axis.set_xticklabels([f"{n:,}" for n in atoms])
        low, high = axis.get_ylim()
        shown = [n * 10.0**k for k in range(-1, 5) for n in (1, 2, 5) if low <= n * 10.0**k <= high]
        axis.set_yticks(shown, [f"{n:,g}" for n in shown])
        axis.minorticks_off()
        axis.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
