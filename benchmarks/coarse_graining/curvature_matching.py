"""Does the curvature of the free energy help a model of beads, at equal cost of labels?

    python curvature_matching.py OUT --seeds 0 1 2

A system whose free energy is known: six beads with Morse bonds, U(R, h) = V(R) + Σ_I ½ k |h_I - R_I - a_I(R)|². The
hidden atoms h make the forces on the beads noisy, with correlations between beads; integrated over them, the free
energy is V(R) for any a(R). Frames are drawn from V, hidden atoms from their Gaussians.

For each seed and number of frames n, networks are trained on
  forces        n frames, forces only
  forces-3n     three times as many frames, which cost what n frames with one product (two more force calls) cost
  averaged      n frames, forces and products; covariance averaged by distance, about the forces of the first network
  instantaneous n frames, the same with the covariance of each frame
  exact         n frames, forces and exact products of V: what perfect labels would give
and judged on new configurations by the exact forces and products of V. Results go to OUT/results.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import hesse
from hesse.coarse import curvature_labels
from hesse.datasets import Dataset
from hesse.structures import Properties, Structure, bead_number

BEADS, KT, SPRING = 6, 0.03, 2.0
TEMPERATURE = KT / 8.617330337217213e-05
DEPTH, STEEPNESS, LENGTH = 0.15, 1.3, 3.0
NUMBER = bead_number("A")


def free_energy(x: torch.Tensor) -> torch.Tensor:
    """V(R), eV, for `[frames, beads, 3]`: Morse bonds of all pairs and a weak spring to the center."""
    i, j = np.triu_indices(BEADS, 1)
    r = (x[:, i] - x[:, j]).norm(dim=-1)
    morse = DEPTH * ((1 - torch.exp(-STEEPNESS * (r - LENGTH))) ** 2 - 1)
    return morse.sum(-1) + 0.005 * r.square().sum(-1)


def shift(x: torch.Tensor) -> torch.Tensor:
    """a(R): each hidden atom is pulled towards its neighbors."""
    vectors = x[:, None] - x[:, :, None]
    squared = vectors.square().sum(-1, keepdim=True)
    return 0.6 * (vectors * torch.exp(-squared / 12.0)).sum(2)


def sample(count: int, seed: int) -> torch.Tensor:
    """Configurations of V at kT: many walkers, overdamped Langevin steps corrected by acceptance (MALA)."""
    rng = torch.Generator().manual_seed(seed)
    corners = torch.tensor([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.float64)
    x = 2.1 * corners + 0.1 * torch.randn(count, BEADS, 3, dtype=torch.float64, generator=rng)
    step = 0.01

    def gradient(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.detach().requires_grad_(True)
        energy = free_energy(x)
        return energy.detach(), torch.autograd.grad(energy.sum(), x)[0]

    energy, slope = gradient(x)
    for _ in range(1500):
        noise = torch.randn(x.shape, dtype=x.dtype, generator=rng)
        trial = x - step * slope / KT + (2 * step) ** 0.5 * noise
        new_energy, new_slope = gradient(trial)
        back = (x - trial + step * new_slope / KT).square().sum((1, 2)) / (4 * step)
        forth = noise.square().sum((1, 2)) / 2
        accept = torch.rand(count, dtype=x.dtype, generator=rng).log() < (energy - new_energy) / KT + forth - back
        x = torch.where(accept[:, None, None], trial, x)
        slope = torch.where(accept[:, None, None], new_slope, slope)
        energy = torch.where(accept, new_energy, energy)
    return x.detach()


def dataset(x: torch.Tensor, seed: int, *, exact: bool = False) -> Dataset:
    """Frames with forces and one product each: those of the atoms, or exact ones of the free energy."""
    rng = torch.Generator().manual_seed(seed)
    probes = torch.randint(0, 2, x.shape, generator=rng).double() * 2 - 1
    hidden = x + shift(x) + (KT / SPRING) ** 0.5 * torch.randn(x.shape, dtype=x.dtype, generator=rng)
    x = x.detach().requires_grad_(True)
    energy = free_energy(x)
    if not exact:
        energy = energy + 0.5 * SPRING * (hidden - x - shift(x)).square().sum((1, 2))
    slope = torch.autograd.grad(energy.sum(), x, create_graph=True)[0]
    products = torch.autograd.grad((slope * probes).sum(), x)[0]
    n = len(x)
    structures = tuple(
        Structure(np.full(BEADS, NUMBER), p, id=f"{seed}/{k}", masses=np.ones(BEADS), tag=f"{TEMPERATURE:.4f}K")
        for k, p in enumerate(x.detach().numpy())
    )
    labels = Properties(
        n_atoms=torch.full((n,), BEADS),
        forces=-slope.detach().reshape(-1, 3),
        probes=probes.reshape(1, -1, 3),
        hvp=products.reshape(1, -1, 3),
    )
    return Dataset(structures, labels)


def train(data: Dataset, validation: Dataset, folder: Path, seed: int, steps: int, weight: float) -> hesse.Potential:
    """A small network; the best step by the forces of other frames."""
    config = {
        "model": {"kind": "hipnn", "l_max": 1, "features": 24, "sensitivities": 12, "blocks": 1, "cutoff": 9.0,
                  "shortest": 1.5, "longest": 8.0},
        "weights": {"energy": 0, "forces": 1, "hvp": weight},
        "optimizer": {"learning_rate": 3e-3},
        "batch": {"structures": 32},
        "steps": steps, "validate_every": max(50, steps // 10), "seed": seed, "compile": "never",
    }  # fmt: skip
    return hesse.train(data, validation, config, output=folder, restart=True, quiet=True).potential


def errors(model: hesse.Potential, test: Dataset) -> dict[str, float]:
    """RMSE of exact forces and products, relative to their size."""
    labels = test.labels
    found = hesse.evaluate_structures(model, test.structures, hesse.Request(forces=True, probes=labels.probes))
    return {name: relative_error(found[name].double().cpu(), labels[name]) for name in ("forces", "hvp")}


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """RMS of the difference over that of the exact values."""
    return float(((found - exact).square().mean() / exact.square().mean()).sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--frames", type=int, nargs="+", default=[100])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--weight", type=float, default=1.0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    held_out: dict[int, Dataset] = {}
    test = dataset(sample(300, 999), 999, exact=True)
    for seed in arguments.seeds:
        drawn = dataset(sample(60, 500 + seed), 500 + seed)
        held_out[seed] = Dataset(drawn.structures, drawn.labels.replace(hvp=None, probes=None))
        for n in arguments.frames:
            frames = sample(3 * n, 100 + seed)
            many = dataset(frames, 200 + seed)
            few, perfect = dataset(frames[:n], 200 + seed), dataset(frames[:n], 200 + seed, exact=True)
            mixed = Dataset(few.structures, few.labels.replace(hvp=perfect.labels.hvp, probes=perfect.labels.probes))

            def run(name: str, data: Dataset, weight: float, n: int = n, seed: int = seed) -> hesse.Potential:
                folder = arguments.out / f"{name}-{n}-{seed}"
                model = train(data, held_out[seed], folder, seed, arguments.steps, weight)
                rows.append({"scheme": name, "frames": n, "seed": seed, "weight": weight, **errors(model, test)})
                print(json.dumps(rows[-1]), flush=True)
                return model

            first = run("forces", few, 0.0)
            run("forces-3n", many, 0.0)
            for kind in ("averaged", "instantaneous"):
                labels = curvature_labels(few, first, reach=9.0, covariance=kind)
                run(kind, labels, arguments.weight)
                rows[-1]["label_error"] = relative_error(labels.labels.hvp, perfect.labels.hvp)
            run("exact", mixed, arguments.weight)
            (arguments.out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
