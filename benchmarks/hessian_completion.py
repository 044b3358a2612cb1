"""Completion of Hessians: error against the number of products, random probes against columns, by size of the molecule.

    python benchmarks/hessian_completion.py fit rtp-train.h5              # the tables of hesse.harmonic.hessian_prior
    python benchmarks/hessian_completion.py measure rtp-test.h5 big.xyz   # error against number of products
    python benchmarks/hessian_completion.py measure rtp-test.h5 --prior gfn1

`measure` draws its own probes and multiplies them with the full Hessians of the files; structures without one are
computed first (`--engine`). Relative error: root mean square of the elements of the difference over that of the
elements. Frequencies: mean absolute error of all modes, rigid motions removed. "told": the estimated error over the
true one, root mean squares. "columns" are one-hot probes in random order, completed in the same way; "columns only"
replaces rows and columns of the expected Hessian by the known ones.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from ase.data import covalent_radii
from jaxtyping import Float
from numpy import ndarray as Array

from hesse import Structure, as_engine, compute, read_dataset
from hesse.engines import Engine
from hesse.harmonic.hessian_completion import complete_hessian
from hesse.harmonic.hessian_prior import typical_hessian
from hesse.harmonic.normal_modes import normal_modes

NODES = 16
SIZES = ((5, 9), (10, 13), (14, 17), (18, 24), (25, 32), (33, 45))
COUNTS = (2, 4, 8, 16, 32)


def labeled(
    path: str, count: int, engine: str
) -> Iterator[tuple[Structure, Float[Array, "3n 3n"], Float[Array, "n 3"]]]:
    """Structures, symmetric Hessians and forces."""
    dataset = read_dataset(path, check=False)
    order = np.random.default_rng(0).permutation(len(dataset))[:count].tolist()
    for i in order:
        structure, labels = dataset.structures[i], dataset.labels
        if labels.hessian is None or not bool(labels.mask("hessian")[i]):
            labels, i = compute(structure, engine, forces=True, hessian=True), 0
        if labels.forces is None:
            continue
        h = labels.hessian_of(i).numpy().reshape(3 * len(structure), -1)
        yield structure, 0.5 * (h + h.T), labels.forces[labels.atom_slice(i)].numpy()


def fit(path: str) -> None:
    """Print the tables."""
    rows: list[tuple[float, ...]] = []
    for structure, hessian, _ in labeled(path, 400, "gfn2"):
        n = len(structure)
        radii, blocks = covalent_radii[structure.numbers], hessian.reshape(n, 3, n, 3)
        for i in range(n):
            for j in range(i):
                vector = structure.positions[j] - structure.positions[i]
                r = float(np.linalg.norm(vector))
                u, block = vector / r, blocks[i, :, j]
                along = np.outer(u, u)
                across = np.eye(3) - along
                parallel = float(u @ block @ u)
                mixed = float(np.square(along @ block @ across + across @ block @ along).sum() / 4)
                rest = float(np.square(across @ block @ across).sum() / 4)
                kind = int(structure.numbers[i] == 1) + int(structure.numbers[j] == 1)
                mean = 0.5 * (float(np.trace(block)) - parallel)
                rows.append((kind, r / (radii[i] + radii[j]), parallel, mean, mixed, rest))
    table = np.array(rows)
    for kind in (0, 1, 2):
        part = table[table[:, 0] == kind]
        edges = np.quantile(part[:, 1], np.linspace(0, 1, NODES + 1))
        print("    (")
        for low, high in pairwise(edges):
            here = part[(part[:, 1] >= low) & (part[:, 1] <= high)]
            across = here[:, 3].mean()
            spreads = (here[:, 2].std(), np.sqrt(here[:, 4].mean()), np.sqrt(here[:, 5].mean() - across**2 / 2))
            values = (here[:, 1].mean(), here[:, 2].mean(), across, *spreads)
            print(f"        ({', '.join(f'{v:.3g}' if abs(v) < 10 else f'{v:.1f}' for v in values)}),")
        print("    ),")


def probes_of(kind: str, n: int, count: int, rng: np.random.Generator) -> Float[Array, "k 3n"]:
    """Probes of unit variance."""
    if kind == "columns":
        return np.sqrt(3 * n) * np.eye(3 * n)[rng.permutation(3 * n)[:count]]
    return rng.choice([-1.0, 1.0], size=(count, 3 * n)) if kind == "rademacher" else rng.normal(size=(count, 3 * n))


Key = tuple[tuple[int, int], str, int]


class Errors:
    """Errors of completions of one structure, collected by size, kind of probe and number of products."""

    def __init__(self, structure: Structure, hessian: Float[Array, "3n 3n"], found: dict[Key, list[Array]]) -> None:
        self.structure, self.hessian, self.found, self.n = structure, hessian, found, len(structure)
        self.size = next(s for s in SIZES if s[0] <= self.n <= s[1])
        self.exact = self.frequencies(hessian)

    def frequencies(self, hessian: Float[Array, "3n 3n"]) -> Float[Array, "modes"]:
        """cm⁻¹."""
        return normal_modes(self.structure, hessian.reshape(self.n, 3, self.n, 3)).frequencies

    def add(self, kind: str, k: int, result: Float[Array, "3n 3n"], told: float = 0.0) -> None:
        """Compare a completed Hessian with the true one."""
        change = np.abs(self.frequencies(result) - self.exact).mean()
        errors = (np.mean((result - self.hessian) ** 2), np.mean(self.hessian**2), change, told**2)
        self.found[self.size, kind, k].append(np.array(errors))


def measure(paths: list[str], count: int, engine: str, prior: Engine | None) -> None:
    """Print the table."""
    found: dict[Key, list[Array]] = defaultdict(list)
    rng = np.random.default_rng(1)
    for path in paths:
        for structure, hessian, forces in labeled(path, count, engine):
            n = len(structure)
            start = None if prior is None else compute(structure, prior, hessian=True).hessian_of(0).numpy()
            expected = typical_hessian(structure).mean if start is None else start.reshape(3 * n, 3 * n)
            errors = Errors(structure, hessian, found)
            errors.add("none", 0, expected)
            for kind in ("rademacher", "gaussian", "columns"):
                every = probes_of(kind, n, min(max(COUNTS), 3 * n), rng)
                for k in (k for k in COUNTS if k <= 3 * n):
                    v = every[:k]
                    products = (v @ hessian).reshape(k, n, 3)
                    done = complete_hessian(structure, v.reshape(k, n, 3), products, forces=forces, prior=start)
                    errors.add(kind, k, done.hessian.reshape(3 * n, 3 * n), done.error)
                    if kind == "columns":
                        only, chosen = expected.copy(), np.abs(v).argmax(1)
                        only[:, chosen], only[chosen] = hessian[:, chosen], hessian[chosen]
                        errors.add("columns only", k, only)
    print("| atoms | structures | probes | products | relative error % | frequencies cm⁻¹ | told |\n|" + "---|" * 7)
    for (size, kind, k), values in sorted(found.items()):
        e, s, f, t = np.array(values).T
        told = f"{np.sqrt(t.mean() / e.mean()):.2f}" if t.any() else ""
        error = f"{100 * np.sqrt(e.mean() / s.mean()):.2g}"
        print(f"| {size[0]}-{size[1]} | {len(e)} | {kind} | {k} | {error} | {f.mean():.1f} | {told} |")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fit", "measure"))
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--engine", default="gfn2")
    parser.add_argument("--prior", default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "fit":
        fit(options.paths[0])
    else:
        measure(
            options.paths, options.count, options.engine, None if options.prior is None else as_engine(options.prior)
        )


if __name__ == "__main__":
    main()
