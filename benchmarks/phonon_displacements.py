"""Frequencies from finite displacements of several lengths against those from Hessian-vector products.

    python benchmarks/phonon_displacements.py [--plot bands.png]

Copper by ASE's EMT potential, supercell of 64 atoms. EMT has no second derivatives: its products are differences with
a step that suits its noise, of fourth order.
"""

from __future__ import annotations

import argparse
import warnings

from ase.build import bulk
from ase.calculators.emt import EMT

import hesse
from hesse.engines import AseEngine, FiniteDifferences
from hesse.lattice import compare_phonons, phonons

LENGTHS = (0.1, 0.05, 0.02, 0.01)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    engine = AseEngine(EMT(), differences=FiniteDifferences(richardson=True), gradient_noise=1e-13)
    exact = phonons(bulk("Cu", a=3.59), engine, supercell=4, relax_cell=True)
    print("| displacement, Å | rms, THz | largest, THz | highest frequency, THz |\n|---|---|---|---|")
    worst = None
    for length in LENGTHS:
        result = phonons(exact.structure, engine, supercell=4, displacement=length)
        worst = worst or result
        row = compare_phonons(result, exact)
        print(f"| {length:g} | {row.rms:.5f} | {row.largest:.5f} | {row.max_frequency:.4f} |")
    print(f"products: highest frequency {compare_phonons(exact, exact).max_frequency:.4f} THz")
    if options.plot:
        hesse.draw_phonons(
            options.plot,
            exact,
            reference=worst,
            label="products",
            reference_label=f"displacements of {LENGTHS[0]:g} Å",
        )


if __name__ == "__main__":
    main()
