"""Data for `hint-gfn2-dft.yaml`: cheap labels of GFN2-xTB, few and expensive ones of a density functional.

    python benchmarks/recipes/gfn2_to_dft.py LABELS.h5 HORM.npz OUT rtp-train.h5 nms.h5

LABELS.h5 holds energies, forces and one product of displaced structures (`benchmarks/fine_tuning/geometries.py`,
`hesse label`). A quarter of their formulas judge (`dft-test.h5`), the others are candidates (`dft-candidates.h5`).
HORM.npz gives reactive structures of other formulas and another program with full Hessians (`horm.h5`). The cheap
labels (`gfn2.h5`) are the structures of the other files (of the reaction benchmark, with Hessians) whose formulas judge
nowhere.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import hesse

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fine_tuning"))

from prepare import formula_of, read_horm

JUDGED = 0.25
"""Share of the formulas of the expensive labels that judge."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, help="labels of the density functional")
    parser.add_argument("judges", type=Path, help="horm_sample_dev.npz")
    parser.add_argument("output", type=Path)
    parser.add_argument("cheap", type=Path, nargs="+", help="data with Hessians of GFN2-xTB")
    arguments = parser.parse_args()
    labels, horm = hesse.read_dataset(arguments.labels), read_horm(arguments.judges)
    first, *others = [hesse.read_dataset(path) for path in arguments.cheap]
    cheap = sum(others, first)
    formulas = sorted({formula_of(s) for s in labels.structures})
    held_out = set(np.random.default_rng(0).permutation(formulas)[: round(JUDGED * len(formulas))])
    judging = held_out | {formula_of(s) for s in horm.structures}
    parts = {
        "dft-test": labels.filter(lambda s: formula_of(s) in held_out),
        "dft-candidates": labels.filter(lambda s: formula_of(s) not in held_out),
        "gfn2": cheap.filter(lambda s: formula_of(s) not in judging),
        "horm": horm,
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, data in parts.items():
        hesse.write_dataset(arguments.output / f"{name}.h5", data)
        print(f"{name}.h5: {len(data)} structures, {len({formula_of(s) for s in data.structures})} formulas")


if __name__ == "__main__":
    main()
