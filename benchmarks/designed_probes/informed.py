"""Fixed probes that use more than one geometry: pairs for the training data of a study, from stored Hessians.

    python benchmarks/designed_probes/informed.py complementary TRAIN.h5 OUT.h5
    python benchmarks/designed_probes/informed.py half TRAIN.h5 HALF.h5
    python benchmarks/designed_probes/informed.py disagreement TRAIN.h5 OUT.h5 --models A/model.hesse B/model.hesse

`complementary`: structures of one group with the same atoms (reactant, transition state, product) get directions that
are orthogonal to each other when the structures are laid on top of each other: rows of a random rotation of the 3N
coordinates, times √(3N), so that `E[v vᵀ] = I` for each structure.

`half`: one Rademacher pair for half of the groups, none for the others: training data of a committee.

`disagreement`: the same pairs for this half. For the others the direction in which the committee disagrees, found by
one step of the power method from random signs z: `v = c Σ_m a_m (H_m − mean H) z` with normal random numbers a_m,
whose second moment is that of the deviations of the members' Hessians. The factor c gives products of the usual size
for the typical Hessian (`hesse.datasets.draw_fixed_probes`). Labels: one product per structure, as for all designs.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray as Array
from torch import Tensor

import hesse
from hesse.datasets import Dataset, draw_fixed_probes, read_dataset, write_dataset
from hesse.engines import EngineLike
from hesse.harmonic.hessian_prior import typical_hessian
from hesse.structures import Structure, segment_ids
from hesse.studies import nested_part

COMMITTEE_SEED = 1000
"""Added to the seed for the random signs that the committee multiplies."""


def complementary_probes(structures: Sequence[Structure], seed: int = 0) -> Float[Tensor, "1 atoms 3"]:
    """Directions that are orthogonal within each group of structures with the same atoms.

    Args:
        structures: one or more; structures without a group stand alone.
        seed: seed of the random rotations.

    Returns:
        The directions, in the order of the structures.
    """
    drawn: dict[tuple[str, bytes], tuple[Structure, list[Array]]] = {}
    result = []
    for structure in structures:
        key = (structure.group or f"id:{structure.id}", structure.numbers.tobytes())
        if key not in drawn:
            drawn[key] = (structure, list(random_rotation(3 * len(structure), zlib.crc32(key[0].encode()), seed)))
        reference, rows = drawn[key]
        common = rows.pop().reshape(-1, 3) * np.sqrt(3 * len(structure))
        result.append(common @ superposition(structure.positions, reference.positions).T)
    return torch.from_numpy(np.concatenate(result))[None]


def random_rotation(size: int, *seeds: int) -> Float[Array, "size size"]:
    """A random orthogonal matrix, uniform (QR of normal numbers with positive diagonal)."""
    q, r = np.linalg.qr(np.random.default_rng(seeds).normal(size=(size, size)))
    return np.asarray((q * np.sign(np.diag(r))).T)


def superposition(positions: Float[Array, "n 3"], reference: Float[Array, "n 3"]) -> Float[Array, "3 3"]:
    """The rotation R for which `positions @ R` is nearest to the reference (Kabsch, Acta Cryst. A 32, 922 (1976))."""
    u, _, vt = np.linalg.svd((positions - positions.mean(0)).T @ (reference - reference.mean(0)))
    return np.asarray(u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt)


def disagreement_probes(
    structures: Sequence[Structure], models: Sequence[EngineLike], seed: int = 0
) -> Float[Tensor, "1 atoms 3"]:
    """Directions along which potentials disagree about curvature.

    Args:
        structures: molecules.
        models: two potentials or more, or their files.
        seed: seed of the random numbers.

    Returns:
        The directions; each multiplied with the typical Hessian is as long as a product of random signs.
    """
    sizes = [len(s) for s in structures]
    z = draw_fixed_probes(structures, "rademacher", seed=seed + COMMITTEE_SEED)
    products = torch.stack([hesse.compute(structures, model, probes=z).hvp[0] for model in models])  # type: ignore[index]
    factors = torch.from_numpy(np.random.default_rng(seed).normal(size=(len(models), len(structures))))
    per_atom = factors[:, torch.repeat_interleave(torch.tensor(sizes))][..., None]
    directions = (per_atom * (products - products.mean(0))).sum(0)
    scaled = []
    for structure, v in zip(structures, directions.double().split(sizes), strict=True):
        hessian = torch.from_numpy(typical_hessian(structure).mean)
        scaled.append(v * (hessian.norm() / (hessian @ v.reshape(-1)).norm()))
    return torch.cat(scaled)[None]


def half_mask(data: Dataset) -> Bool[Tensor, "structures"]:
    """The structures of half of the groups, the same as those of `data_fraction: 0.5` of a study."""
    first = set(nested_part(data, 0.5).ids)
    return torch.tensor([name in first for name in data.ids])


def with_pairs(data: Dataset, directions: Float[Tensor, "1 atoms 3"], mask: Bool[Tensor, "structures"]) -> Dataset:
    """The data with one pair for each structure in the mask."""
    absent = ~mask[segment_ids(data.labels.n_atoms)][None, :, None]
    labels = data.labels.replace(
        probes=directions.masked_fill(absent, torch.nan),
        hvp=data.labels.hessian_matvec(directions).masked_fill(absent, torch.nan),
        hvp_mask=mask[None].clone(),
        hvp_error=None,
    )
    return Dataset(data.structures, labels, metadata=data.metadata, source=data.source)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("design", choices=("complementary", "half", "disagreement"))
    parser.add_argument("train", type=Path, help="data set with Hessians")
    parser.add_argument("output", type=Path)
    parser.add_argument("--models", nargs="+", type=Path, default=[], help="disagreement: the committee, two or more")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    data = read_dataset(options.train)
    everywhere, first = torch.ones(len(data), dtype=torch.bool), half_mask(data)
    if options.design == "complementary":
        result = with_pairs(data, complementary_probes(data.structures, options.seed), everywhere)
    else:
        directions = draw_fixed_probes(data.structures, "rademacher", seed=options.seed)
        if options.design == "disagreement":
            if len(options.models) < 2:
                parser.error("disagreement: give two models or more, --models A B")
            rest = data.select((~first).nonzero()[:, 0].tolist())
            chosen = disagreement_probes(rest.structures, [str(m) for m in options.models], options.seed)
            directions[:, ~first[segment_ids(data.labels.n_atoms)]] = chosen
        result = with_pairs(data, directions, first if options.design == "half" else everywhere)
    write_dataset(options.output, result)
    print(f"{options.output}: {int(result.labels.mask('hvp').sum())} of {len(result)} structures have a pair")


if __name__ == "__main__":
    main()
