"""Does ensemble distillation help a coarse-grained model of water?

    python bead_distillation.py REFERENCE OUT [--teachers 8] [--seeds 3] [--steps 250] [--time 6] [--skip 1] [--boxes 2]

REFERENCE is the folder that `water_reference.py` writes. Teachers (HIP-NN-TS, l = 2, with a repulsive prior) are
trained by force matching on the frames of one state point, each with another network and other held-out frames; a
student on the mean of their forces (recipe `ensemble-distillation`, `train_on: forces`). Every teacher, their mean and
every student predict the forces of the last fifth of the frames, which none of them saw, and run Langevin dynamics,
whose g(r) and angles are compared with the mapped reference.

OUT receives the recipe, rows.json and table.md. The same command continues; finished models are not repeated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from transferability import MODEL, add_dynamics, make_parser, mapped, of_tags, parse, split

import hesse
from hesse.coarse import explained_forces, fit_prior
from hesse.datasets import write_dataset
from hesse.models import save_model
from hesse.runtime.filesystem import atomic_write_text, write_rows

NUMBERS = {
    "explained": "explained variance of forces",
    "products": "of products",
    "rdf": "error of g(r)",
    "adf": "error of angles",
    "peak": "first peak",
    "failed": "failed runs",
}


def recipe(folder: Path, options: argparse.Namespace) -> Path:
    """Write the configuration of the recipe beside its data."""
    settings: dict[str, Any] = {
        "output": "recipe", "train": "train.h5", "train_on": "forces", "teachers": options.teachers,
        "seeds": list(range(options.seeds)),
        "training": {
            "model": MODEL, "baseline": "prior.hesse", "steps": options.steps, "batch": {"structures": options.batch},
            "optimizer": {"learning_rate": 5e-3, "ema_decay": 0.98}, "compile": "never", "cpu_threads": 1,
            "validate_every": options.steps,
        },
    }  # fmt: skip
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean and range of each kind of model."""
    shown = {key: text for key, text in NUMBERS.items() if any(key in row for row in rows)}
    lines = ["| | " + " | ".join(shown.values()) + " |", "|---" * (len(shown) + 1) + "|"]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        cells = []
        for key in shown:
            values = [row[key] for row in rows if row["kind"] == kind and key in row]
            span = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.3f}{span}" if values else "-")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = make_parser("Ensemble distillation of a coarse-grained model of water.")
    parser.add_argument("--state-point", default="300K 1.000g/cm3")
    parser.add_argument("--teachers", type=int, default=8)
    options = parse(parser)
    data = of_tags(mapped(options.reference, options.out), [options.state_point])
    early, late = split(data)
    if not (options.out / "prior.hesse").exists():
        write_dataset(options.out / "train.h5", early)
        save_model(options.out / "prior.hesse", fit_prior(early).potential)
    result = hesse.run_recipe("ensemble-distillation", recipe(options.out, options), workers=1, quiet=False)
    models = {f"teachers/{k}": "one teacher" for k in range(options.teachers)}
    models |= {"ensemble": "mean of the teachers"} | {f"student/seed-{k}": "student" for k in range(options.seeds)}
    file = options.out / "rows.json"
    done = {row["model"]: row for row in json.loads(file.read_text())} if file.exists() else {}
    for name, kind in models.items():
        if name in done:
            continue
        model = result.file(name, "model.hesse")
        (found,) = explained_forces(model, late)
        row = {"model": name, "kind": kind, "state_point": options.state_point, "explained": found.explained}
        if options.time > 0:
            add_dynamics(row, model, data, options)
        done[name] = row
        write_rows(file, list(done.values()))
        atomic_write_text(options.out / "table.md", table(list(done.values())))
        print(json.dumps(row), flush=True)
    print(table(list(done.values())))


if __name__ == "__main__":
    main()
