"""Data of the measurements in docs/recipes: ensemble distillation, and eight published networks as one teacher.

    python benchmarks/distillation/prepare.py reactions --benchmark FOLDER --out work    # benchmarks/reactions/build.py
    python benchmarks/distillation/prepare.py molecules --potential "torchani:ani1ccx.pt?architecture=ani1ccx" \\
        --train 3000 --test 120 --same-molecules --out ccx
    cp benchmarks/distillation/ensemble.yaml ccx && hesse recipe ensemble-distillation ccx/ensemble.yaml

`reactions`: normal-mode samples of reactions at GFN2-xTB. `molecules`: molecules of H, C, N and O, sampled with
GFN2-xTB; their energies are those of a potential, such as ANI-1ccx. Forces are in the training file too, but only the
comparison with true forces uses them. Test sets have Hessians.

`student.yaml` takes geometries of reactions (`nms.h5` of the benchmark) as `train.h5`, the weights of ANI-1x as
`ani1x.pt`, and structures with energies, forces and Hessians of wB97X/6-31G* as `truth.h5`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import hesse
from hesse.labelling import teacher_labels


def from_reactions(benchmark: Path, n_train: int, n_test: int) -> tuple[hesse.Dataset, hesse.Dataset]:
    """Samples of some reactions to train on, samples of others to test.

    Args:
        benchmark: folder with `nms.h5`.
        n_train: number of training structures.
        n_test: number of test structures.

    Returns:
        Training data with energies and forces, test data with Hessians too.
    """
    samples = hesse.read_dataset(benchmark / "nms.h5")
    train, test = samples.split(0.75, 0.25, seed=0)
    return _some(train, n_train, ["energy", "forces"]), _some(test, n_test, ["energy", "forces", "hessian"])


def from_molecules(
    potential: str, n_train: int, n_test: int, *, same_molecules: bool = False
) -> tuple[hesse.Dataset, hesse.Dataset]:
    """Samples of small molecules, labeled with a potential.

    Args:
        potential: its name.
        n_train: number of training structures.
        n_test: number of test structures.
        same_molecules: test other geometries of the training molecules, not other molecules.

    Returns:
        Training data with energies and forces, test data with Hessians too.
    """
    molecules = [m for m in hesse.g2_molecules() if set(m.numbers.tolist()) <= {1, 6, 7, 8} and len(m) > 3]
    count = -(-2 * (n_train + n_test) // len(molecules))
    samples = hesse.sample_normal_modes(molecules, "gfn2", temperatures=(300, 1000), count=count, seed=0).structures
    data = hesse.Dataset.from_pairs([(s, hesse.Properties.single(len(s))) for s in samples])
    split = data.split(0.75, 0.25, seed=0, by_group=not same_molecules)
    parts = [_some(part, n, []) for part, n in zip(split, (n_train, n_test), strict=True)]
    train, test = (
        teacher_labels(part, potential, probes=0, hessian=hessian)
        for part, hessian in zip(parts, (False, True), strict=True)
    )
    return _some(train, n_train, ["energy", "forces"]), test


def _some(data: hesse.Dataset, count: int, labels: list[str]) -> hesse.Dataset:
    """A random part with some of its labels."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))[:count].sort().values
    part = data.select(order)
    return hesse.Dataset(part.structures, part.labels.pick(labels), metadata=part.metadata)


def main() -> None:
    """Write `train.h5` and `test.h5`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", choices=["reactions", "molecules"])
    parser.add_argument("--benchmark", type=Path, help="folder of the reaction benchmark")
    parser.add_argument("--potential", help="name of the potential whose energies are the truth")
    parser.add_argument("--same-molecules", action="store_true", help="test other geometries, not other molecules")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=800)
    parser.add_argument("--test", type=int, default=60)
    options = parser.parse_args()
    if options.source == "reactions":
        train, test = from_reactions(options.benchmark, options.train, options.test)
    else:
        train, test = from_molecules(
            options.potential, options.train, options.test, same_molecules=options.same_molecules
        )
    options.out.mkdir(parents=True, exist_ok=True)
    for name, data in (("train", train), ("test", test)):
        hesse.write_dataset(options.out / f"{name}.h5", data)
        print(f"{options.out / name}.h5: {data!r}")


if __name__ == "__main__":
    main()
