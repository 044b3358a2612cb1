"""Does the curvature of the free energy help a coarse-grained model of water, at equal cost of labels?

    python water_curvature.py REFERENCE OUT [--frames 4] [--weight 1 10] [--steps 250] [--time 6] [--skip 1] [--boxes 2]

REFERENCE is the folder that `water_reference.py` writes: frames with forces and one product with the Hessian between
whole molecules each. A product costs two force calls. Models of one state point (300 K, 1.0 g/cm3) are trained on

- `forces, n frames` and `forces, 3n frames`: forces only;
- `forces and products, n frames`, at the cost of the second line; the covariance of the forces is averaged by distance,
  about the forces of the first model;
- `forces and products, 3n frames`: as many frames as the second line, about the forces of that model.

Judged: explained variance of the forces of the last fifth of the frames, and of the products of these frames (raw ones,
without covariance: a common reference, not the truth), and g(r) and angles of Langevin dynamics.

OUT receives the runs, rows.json and table.md. The same command continues; finished models are not repeated.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bead_distillation import table
from transferability import MODEL, add_dynamics, make_parser, mapped, of_tags, parse, split

import hesse
from hesse.coarse import curvature_labels, explained_forces, fit_prior
from hesse.datasets import Dataset
from hesse.models import save_model
from hesse.runtime.filesystem import atomic_write_text, write_rows

REACH = 7.5
"""Å, the cutoff of the all-atom forces: fluctuations on molecules farther apart are taken as independent."""


def with_products(data: Dataset, reference: Path, name: str) -> Dataset:
    """The frames of a state point with their projected products."""
    with np.load(reference / f"{name}-hvp.npz") as file:
        probes, hvps = (torch.from_numpy(file[key].reshape(1, -1, 3)) for key in ("probes", "hvps"))
    return Dataset(data.structures, data.labels.replace(probes=probes, hvp=hvps), metadata=data.metadata)


def train(data: Dataset, folder: Path, seed: int, weight: float, options: argparse.Namespace) -> Path:
    """Train one model, or find it."""
    model = folder / "run" / "last.hesse"
    if (folder / "done").exists():
        return model
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder / "prior.hesse", fit_prior(data).potential)
    config = {
        "model": MODEL, "baseline": str(folder / "prior.hesse"), "steps": options.steps, "seed": seed,
        "weights": {"energy": 0.0, "forces": 1.0, "hvp": weight}, "batch": {"structures": options.batch},
        "optimizer": {"learning_rate": 5e-3, "ema_decay": 0.98}, "compile": "never", "cpu_threads": 1,
    }  # fmt: skip
    hesse.train(data, None, config, output=folder / "run", restart=True, quiet=True)
    (folder / "done").touch()
    return model


def explained_products(model: Path, data: Dataset) -> float:
    """One minus the mean squared error of products over their mean square."""
    labels = data.labels
    assert labels.hvp is not None
    request = hesse.Request(forces=True, probes=labels.probes)
    found = hesse.evaluate_structures(hesse.load_model(model).double(), data.structures, request).hvp
    assert found is not None
    return 1.0 - float((found - labels.hvp).square().mean() / labels.hvp.square().mean())


def main() -> None:
    """Command line."""
    parser = make_parser("Curvature matching of a coarse-grained model of water.")
    parser.add_argument("--name", default="T300-d1.00", help="state point, as the files are called")
    parser.add_argument("--state-point", default="300K 1.000g/cm3", help="the same, as frames are tagged")
    parser.add_argument("--weight", type=float, nargs="+", default=[1.0], help="of products; forces have 1")
    parser.add_argument("--frames", type=int, default=4, help="n, spread evenly over the first four fifths")
    options = parse(parser)
    beads = of_tags(mapped(options.reference, options.out), [options.state_point])
    data = with_products(beads, options.reference, options.name)
    early, late = split(data)
    sizes = options.frames, 3 * options.frames
    if sizes[1] > len(early):
        parser.error(f"--frames {sizes[0]}: {sizes[1]} frames are compared with them, and there are {len(early)}")
    chosen = [early[np.linspace(0, len(early) - 1, size).round().astype(int).tolist()] for size in sizes]
    file = options.out / "rows.json"
    done: dict[str, dict[str, Any]] = (
        {row["model"]: row for row in json.loads(file.read_text())} if file.exists() else {}
    )

    def judge(kind: str, model: Path) -> None:
        name = str(model.parents[1].name)
        if name in done:
            return
        (found,) = explained_forces(model, late)
        row = {"model": name, "kind": kind, "state_point": options.state_point, "explained": found.explained}
        row["products"] = explained_products(model, late)
        if options.time > 0:
            add_dynamics(row, model, beads, options)
        done[name] = row
        write_rows(file, list(done.values()))
        atomic_write_text(options.out / "table.md", table(list(done.values())))
        print(json.dumps(row), flush=True)

    for seed in range(options.seeds):
        for frames in chosen:
            bare = Dataset(frames.structures, frames.labels.replace(hvp=None, probes=None), metadata=frames.metadata)
            first = train(bare, options.out / f"forces-{len(frames)}-{seed}", seed, 0.0, options)
            judge(f"forces, {len(frames)} frames", first)
            labels = curvature_labels(frames, hesse.load_model(first), reach=REACH)
            for weight in options.weight:
                folder = options.out / f"products-{len(frames)}-weight{weight:g}-{seed}"
                kind = f"forces and products (weight {weight:g}), {len(frames)} frames"
                judge(kind, train(labels, folder, seed, weight, options))
    print((options.out / "table.md").read_text())


if __name__ == "__main__":
    main()
