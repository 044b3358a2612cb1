"""Geometries for new labels: displaced reactants, transition states and products of training reactions, cheapest first.

    python benchmarks/fine_tuning/geometries.py RTP_TRAIN.h5 HORM.npz geometries.extxyz
    hesse label geometries.extxyz labeled.h5 --engine "pyscf:wb97x/6-31g*?grid=3" --workers 1

The reactions are those of `benchmarks/reactions/build.py`. Formulas of the structures that judge are left out, so that
every split by formula can use all labels. Modes and amplitudes are those of the stored GFN2-xTB Hessians, at 500 K;
along an imaginary mode a structure moves as along a real one of the same frequency. Each structure is displaced
`--count` times; the first displacement of all comes before the second, and small molecules come first. The same
command with a larger `--count` or `--atoms` gives the same geometries and more, which a campaign adds to its ledger.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.formula import Formula

import hesse
from hesse.sampling import NormalModeSampling


def hill(structure: hesse.Structure) -> str:
    """Formula of a structure, in the order of Hill."""
    return str(Atoms(numbers=np.asarray(structure.numbers)).get_chemical_formula("hill"))


def cost_key(structure: hesse.Structure) -> tuple[int, int, str]:
    """Order of labeling: index of the displacement, cost, id. A heavy atom has about four times as many orbitals."""
    numbers = np.asarray(structure.numbers)
    return int(structure.id.rsplit("/", 1)[1]), int(np.where(numbers > 1, 4, 1).sum()), structure.id


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reactions", type=Path, help="rtp-train.h5, with Hessians")
    parser.add_argument("judges", type=Path, help="horm_sample_dev.npz, whose formulas are left out")
    parser.add_argument("output", type=Path)
    parser.add_argument("--atoms", type=int, default=10, help="largest number of atoms")
    parser.add_argument("--count", type=int, default=2, help="displacements of each structure")
    arguments = parser.parse_args()
    with np.load(arguments.judges, allow_pickle=False) as archive:
        judged = {Formula(str(formula)).format("hill") for formula in archive["formula"]}
    reactions = hesse.read_dataset(arguments.reactions)
    chosen = reactions.filter(lambda s: len(s) <= arguments.atoms and hill(s) not in judged)
    sampling = NormalModeSampling(temperatures=(500.0,), count=arguments.count, relax=False, seed=15)
    result = hesse.sample_normal_modes(chosen, "stored", sampling, workers=0, quiet=True)
    structures = sorted(result.structures, key=cost_key)
    hesse.write_dataset(arguments.output, structures)
    print(f"{len(structures)} geometries of {len(chosen)} structures, {len(result.failures)} failures")


if __name__ == "__main__":
    main()
