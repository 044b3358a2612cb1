"""Which state points does a coarse-grained model of water transfer to?

    python transferability.py REFERENCE OUT                      # all that the reference has, three seeds
    python transferability.py REFERENCE OUT --models 300K all --seeds 1 --time 4

REFERENCE is the folder that `water_reference.py` writes. Models (HIP-NN-TS, l = 2, with a repulsive prior) are trained
by force matching on one state point ("300K 1.000g/cm3"), on all ("all"), and on all but one ("without 300K ..."). Each
one then predicts the forces of the last fifth of each state point, which no model is trained on, and runs Langevin
dynamics at each, whose distributions are compared with the mapped reference.

OUT receives beads.h5, the runs, rows.json and table.md. The same command continues; finished models are not repeated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hesse.coarse import compare_beads, explained_forces, fit_prior, map_trajectory, run_beads
from hesse.datasets import Dataset, join_datasets, read_dataset, write_dataset
from hesse.models import save_model
from hesse.runtime.filesystem import atomic_write_text, write_rows
from hesse.training import train

HELD_OUT = 0.2
"""Fraction of the frames of each state point, at its end, on which forces are judged."""
MODEL = {
    "kind": "hipnn", "l_max": 2, "features": 16, "sensitivities": 10, "blocks": 1, "onsite_layers": 2, "cutoff": 6.5,
    "shortest": 2.2, "longest": 6.0,
}  # fmt: skip


def mapped(reference: Path, out: Path) -> Dataset:
    """All state points that are finished, as beads; mapped again when the reference has grown."""
    rows = json.loads((reference / "state_points.json").read_text())
    file = out / "beads.h5"
    if file.exists():
        data = read_dataset(file, check=False)
        if len(data.structures) == sum(row["frames"] for row in rows):
            return data
    parts = []
    for row in rows:
        files = reference / f"{row['name']}.trr", reference / f"water-{row['molecules']}.pdb"
        parts.append(map_trajectory(files[0], topology=files[1], temperature=row["temperature_K"]))
    data, _ = join_datasets(parts, [row["name"] for row in rows])
    write_dataset(file, data)
    return data


def split(data: Dataset) -> tuple[Dataset, Dataset]:
    """The first frames of each state point, and the last ones."""
    tags = np.array([s.tag for s in data.structures])
    late = np.zeros(len(tags), dtype=bool)
    for tag in np.unique(tags):
        members = np.flatnonzero(tags == tag)
        late[members[round((1 - HELD_OUT) * len(members)) :]] = True
    return data[(~late).tolist()], data[late.tolist()]


def of_tags(data: Dataset, tags: Sequence[str]) -> Dataset:
    """The frames of some state points."""
    return data[[s.tag in tags for s in data.structures]]


def subsets(tags: Sequence[str]) -> dict[str, list[str]]:
    """Name of each model and the state points it is trained on."""
    models = {tag: [tag] for tag in tags}
    if len(tags) > 1:
        models["all"] = list(tags)
    if len(tags) > 2:
        models |= {f"without {tag}": [t for t in tags if t != tag] for tag in tags}
    return models


def trained(data: Dataset, folder: Path, seed: int, options: argparse.Namespace) -> Path:
    """Train one model, or find it."""
    model = folder / "run" / "last.hesse"
    if (folder / "done").exists():
        return model
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder / "prior.hesse", fit_prior(data).potential)
    model_options = MODEL | {name: getattr(options, name) for name in ("cutoff", "longest", "features", "blocks")}
    config = {
        "model": model_options, "baseline": str(folder / "prior.hesse"), "steps": options.steps, "seed": seed,
        "weights": {"energy": 0.0, "forces": 1.0, "hvp": 0.0}, "batch": {"structures": options.batch},
        "optimizer": {"learning_rate": 5e-3, "ema_decay": 0.98}, "compile": "never", "cpu_threads": 1,
        "checkpoint_every": 50,
    }  # fmt: skip
    train(data, None, config, output=folder / "run", quiet=True)
    (folder / "done").touch()
    return model


def add_dynamics(row: dict[str, Any], model: Path, data: Dataset, options: argparse.Namespace) -> None:
    """Run dynamics of a model at a state point, and add the comparison with the reference to its row."""
    tag = row["state_point"]
    run = run_beads(
        of_tags(data, [tag]), str(model), model.parent / f"{tag.replace('/', '-').replace(' ', '-')}.h5",
        seeds=options.boxes, time=options.time, time_step=options.time_step, friction=0.005, quiet=True,
        stride=max(1, round(1000 * options.interval / options.time_step)), compile=options.compile,
    )  # fmt: skip
    row["failed"] = sum(not r["survived"] for r in run.rows)
    row["mean_temperature"] = float(np.mean([r["mean_temperature"] for r in run.rows if r["mean_temperature"]]))
    row["bead_steps_per_second"] = run.bead_steps_per_second
    if run.dataset is None or row["failed"]:
        return
    point = compare_beads(run.dataset, of_tags(data, [tag]), skip=options.skip).points[0]
    for curve in point.curves:
        row |= {curve.kind: curve.error, f"{curve.kind}_noise": curve.noise}
    ours, theirs = next(iter(point.peaks.values()))
    row |= {"peak": ours[1], "reference_peak": theirs[1]}
    if np.isfinite(point.speed_up):
        row["speed_up"] = point.speed_up


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments of all experiments with water: folders, training, and dynamics (`add_dynamics`)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("reference", type=Path, help="folder of water_reference.py")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=250, help="of training")
    parser.add_argument("--batch", type=int, default=2, help="frames in a step of training")
    parser.add_argument("--compile", action="store_true", help="dynamics in machine code")
    parser.add_argument("--time", type=float, default=6.0, help="ps of dynamics at each state point; 0: forces only")
    parser.add_argument("--skip", type=float, default=1.0, help="ps of them that are not judged")
    parser.add_argument("--time-step", type=float, default=4.0, help="fs")
    parser.add_argument("--interval", type=float, default=0.1, help="ps between frames")
    parser.add_argument("--boxes", type=int, default=2, help="runs of each state point, which move together")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments; one thread, and the folder OUT."""
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def table(rows: Sequence[Mapping[str, Any]], tags: Sequence[str]) -> str:
    """Rows: models; columns: state points; explained variance, then g(r) and angle differences over their noise."""
    lines = ["| trained on | " + " | ".join(tags) + " |", "|---" * (len(tags) + 1) + "|"]
    for name in dict.fromkeys(row["model"] for row in rows):
        cells = []
        for tag in tags:
            of = [row for row in rows if row["model"] == name and row["state_point"] == tag]
            parts = []
            for key in ("explained", "rdf", "adf"):
                values = [row[key] for row in of if key in row]
                noise = [row[f"{key}_noise"] for row in of if f"{key}_noise" in row]
                spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 2 else ""
                parts.append(f"{np.mean(values):.3f}{spread}" if values else "-")
                if noise:
                    parts[-1] += f" ({np.mean(noise):.3f})"
            cells.append(", ".join(parts))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = make_parser("Transferability of coarse-grained models of water.")
    parser.add_argument("--models", nargs="+", help="only models whose names begin so, such as 300K all without")
    parser.add_argument("--cutoff", type=float, default=MODEL["cutoff"], help="Å")
    parser.add_argument(
        "--longest", type=float, default=MODEL["longest"], help="Å, distance of the last radial function"
    )
    parser.add_argument("--features", type=int, default=MODEL["features"])
    parser.add_argument("--blocks", type=int, default=MODEL["blocks"], help="interaction blocks")
    parser.add_argument("--judge", nargs="+", help="dynamics only at state points whose names begin so")
    parser.add_argument("--unseen", action="store_true", help="dynamics of leave-one-out models at unseen points only")
    options = parse(parser)
    data = mapped(options.reference, options.out)
    early, late = split(data)
    tags = list(dict.fromkeys(s.tag for s in data.structures))
    file = options.out / "rows.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    chosen = {
        # "all" of a reference that has grown is another model.
        f"{name}-of-{len(tags)}" if len(trained_on) > 1 else name: trained_on
        for name, trained_on in subsets(tags).items()
        if not options.models or any(name.startswith(start) for start in options.models)
    }
    by_key = {(row["model"], row["seed"], row["state_point"]): row for row in rows}

    def save(row: Mapping[str, Any]) -> None:
        write_rows(file, list(by_key.values()))
        atomic_write_text(options.out / "table.md", table(list(by_key.values()), tags))
        print(json.dumps(row), flush=True)

    models: dict[tuple[str, int], Path] = {}
    for seed in range(options.seeds):
        for name, trained_on in chosen.items():
            folder = options.out / f"{name.replace('/', '-').replace(' ', '-')}-{seed}"
            models[name, seed] = trained(of_tags(early, trained_on), folder, seed, options)
            if all((name, seed, tag) in by_key for tag in tags):
                continue
            for found in explained_forces(models[name, seed], late):
                row = {"model": name, "seed": seed, "state_point": found.tag, "explained": found.explained}
                row |= {"residual": found.residual, "rms": found.rms}
                save(by_key.setdefault((name, seed, found.tag), row))
    for name, seed in models if options.time > 0 else ():
        left_out = [tag for tag in tags if name.startswith(f"without {tag}")]
        judged = [tag for tag in tags if not options.judge or any(tag.startswith(start) for start in options.judge)]
        for tag in left_out if options.unseen and left_out else judged:
            row = by_key[name, seed, tag]
            if "failed" not in row:
                add_dynamics(row, models[name, seed], data, options)
                save(row)
    rows = list(by_key.values())
    print(table(rows, tags))


if __name__ == "__main__":
    main()
