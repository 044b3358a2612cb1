"""What the loss does to energies, forces, Hessians, soft modes and free energies: schemes compared on several seeds.

    python benchmarks/reactions/loss_study.py OUT                               # tiny committed data, a few steps
    python benchmarks/reactions/loss_study.py OUT --data FOLDER --steps 2000 --batch 8 --seed 0 --seed 1 --seed 2
    python benchmarks/reactions/loss_study.py OUT ... --scheme E-F-HVP --scheme 'half={"weights": {"hvp": 0.075}}'

FOLDER contains `rtp-train.h5`, `rtp-validation.h5` and the test sets, as `benchmarks/reactions/build.py` writes them. A
scheme is a change of the configuration of a run: the name of one of `SCHEMES`, or NAME=JSON. All schemes make the same
number of steps on the same batches from the same initial network of each seed; a scheme called "..., equal time" makes
as many as the reference scheme, E-F-HVP, in the same processor time. Training never looks at validation or test data:
the last, averaged parameters are evaluated.

Energies, forces and products are compared on all sets, Hessians and harmonic vibrations on `rtp-test.h5`, at the
geometries of the reference (see `mode_errors.py`). Seconds per step are processor time, measured interleaved.

The same command continues an interrupted study; finished runs are read from their folders. The report is
`summary.json` and `tables.md`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from accuracy_per_second import TINY, configuration, random_subset, read_training, step_costs, write_json
from mode_errors import RAISED_TO, RANGE_NAMES, SOFT, compare_all, summarize

import hesse
from hesse.datasets import Dataset, read_dataset
from hesse.evaluation import evaluate_model
from hesse.runtime.devices import disable_malloc_trim
from hesse.runtime.filesystem import atomic_write
from hesse.training import TrainConfig

REFERENCE = "E-F-HVP"
EQUAL_TIME = ", equal time"
SCHEMES: Mapping[str, Mapping[str, Any]] = {
    "E-F": {"weights": {"hvp": 0.0}},
    REFERENCE: {},
    "every 2": {"curvature": {"every_n_steps": 2}},
    "every 2, equal time": {"curvature": {"every_n_steps": 2}},
    "balance": {"weights": "balance"},
    "fresh": {"probe": {"source": "fresh"}},
    "soft": {"probe": {"source": "fresh", "weighting": "soft-modes"}},
    "soft, 5 times the weight": {"probe": {"source": "fresh", "weighting": "soft-modes"}, "weights": {"hvp": 0.75}},
}
FIXED = {"compile": "never", "dtype": "float32", "cpu_threads": 1, "checkpoint_every": 500}
SETS = {"rtp-validation": False, "rtp-test": True, "irc": False, "nms": False}
"""Sets of the evaluation, and whether Hessians are computed."""

Columns = Mapping[str, str]
TABLES: Mapping[str, Columns] = {
    "Errors per step on the validation set": {
        "rtp-validation/energy_per_atom": "energy, meV/atom",
        "rtp-validation/forces": "forces, eV/Å",
        "rtp-validation/hvp": "H v, eV/Å²",
    },
    "Energies, forces and Hessians of the test sets (RMSE)": {
        **{f"{name}/energy_per_atom": f"{name}: energy, meV/atom" for name in ("rtp-test", "irc", "nms")},
        **{f"{name}/forces": f"{name}: forces, eV/Å" for name in ("rtp-test", "irc", "nms")},
        "rtp-test/hessian": "rtp-test: Hessian, eV/Å²",
    },
    "Frequencies of the minima (MAE, cm⁻¹)": {
        "frequencies all": "all",
        **{f"frequencies below {limit:g}": f"below {limit:g}" for limit in SOFT},
        **{f"matched frequencies below {limit:g}": f"below {limit:g}, matched" for limit in SOFT},
        f"overlap below {SOFT[0]:g}": f"overlap² below {SOFT[0]:g}",
        "false imaginary structures": "minima with false imaginary modes",
    },
    "Vibrational free energies (MAE, kcal/mol)": {
        f"free energy, {RAISED_TO[0]:g}": f"minima, raised to {RAISED_TO[0]:g} cm⁻¹",
        f"free energy bias, {RAISED_TO[0]:g}": "its mean signed error",
        f"free energy, {RAISED_TO[1]:g}": f"minima, raised to {RAISED_TO[1]:g} cm⁻¹",
        "zero-point energy": "zero-point energy",
        "thermal part": "thermal part",
        "activation free energy": "activation",
    },
    "Saddle points": {
        "imaginary frequency": "imaginary frequency, MAE, cm⁻¹",
        "one imaginary mode": "with one imaginary mode",
        "reaction mode overlap": "overlap² of the reaction mode",
    },
    "Share of the squared Hessian error, %, by reference frequency, cm⁻¹": {
        f"cartesian share {name}": name for name in (*RANGE_NAMES, "rest")
    },
    "Share of the squared mass-weighted Hessian error, %, by reference frequency, cm⁻¹": {
        f"mass-weighted share {name}": name for name in (*RANGE_NAMES, "rest")
    },
}
COMPARED = {
    "rtp-validation/hvp": "validation H v",
    "rtp-test/energy_per_atom": "energy",
    "rtp-test/forces": "forces",
    "nms/energy_per_atom": "nms energy",
    "nms/forces": "nms forces",
    "rtp-test/hessian": "Hessian",
    "frequencies all": "frequencies",
    **{f"frequencies below {limit:g}": f"below {limit:g}" for limit in SOFT},
    f"matched frequencies below {SOFT[0]:g}": f"below {SOFT[0]:g}, matched",
    f"free energy, {RAISED_TO[0]:g}": "free energy",
    "thermal part": "its thermal part",
    "activation free energy": "activation free energy",
}
"""Columns of the paired changes."""
CONTROLS = {REFERENCE: None, "fresh": ("soft", "soft, 5 times the weight")}
"""Schemes that others are compared with in pairs of the same seed, and which others; None: all."""


def folder_of(output: Path, name: str, seed: int) -> Path:
    return output / ("".join(c if c.isalnum() else "-" for c in name) + f"-seed{seed}")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def add_costs(path: Path, configs: Mapping[str, TrainConfig], data: Dataset, repeats: int) -> dict[str, float]:
    """Seconds of a step of every scheme. Missing ones are measured beside the reference and scaled by its time."""
    costs: dict[str, float] = read_json(path) if path.exists() else {}
    missing = {name: config for name, config in configs.items() if name not in costs and EQUAL_TIME not in name}
    if missing:
        if REFERENCE in configs:
            missing[REFERENCE] = configs[REFERENCE]
        measured = step_costs(missing, data, repeats)
        scale = costs[REFERENCE] / measured[REFERENCE] if REFERENCE in costs else 1.0
        costs = {name: scale * seconds for name, seconds in measured.items()} | costs
        write_json(path, costs)
    return costs


def steps_of(name: str, steps: int, costs: Mapping[str, float]) -> int:
    """Number of steps of a scheme."""
    base, equal_time, _ = name.partition(EQUAL_TIME)
    return round(steps * costs[REFERENCE] / costs[base]) if equal_time else steps


def train_one(name: str, config: TrainConfig, training: Dataset, folder: Path) -> None:
    """Train one scheme, unless it is finished."""
    if (folder / "run.json").exists():
        return
    processor, wall = time.process_time(), time.monotonic()
    result = hesse.train(training, None, config, output=folder, quiet=True)
    run = {
        "name": name,
        "seed": config.seed,
        "steps": result.steps,
        "processor_seconds": time.process_time() - processor,  # of this session, if the run was interrupted
        "wall_seconds": time.monotonic() - wall,
        "config": config.model_dump(mode="json"),
    }
    write_json(folder / "run.json", run)


def evaluate_one(folder: Path, sets: Mapping[str, Dataset]) -> None:
    """Evaluate a trained model, unless its errors are in the folder already."""
    if (folder / "errors.json").exists():
        return
    numbers: dict[str, float] = {}
    for name, dataset in sets.items():
        hessian = SETS[name]
        evaluation = evaluate_model(folder / "model.hesse", dataset, name=name, by_tag=False, hessian=hessian)
        numbers |= {f"{name}/{row.property}": row.value for row in evaluation.rows if row.metric == "rmse"}
        if hessian:
            numbers |= summarize(compare_all(evaluation))
    write_json(folder / "errors.json", numbers)


def collect(output: Path, names: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Numbers of all finished runs: by scheme and seed, and changes to the controls of the same seed in %."""
    values: dict[str, dict[int, dict[str, float]]] = {}
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for name in names:
        folders = {seed: folder_of(output, name, seed) for seed in seeds}
        finished = {seed: folder for seed, folder in folders.items() if (folder / "errors.json").exists()}
        if finished:
            values[name] = {seed: read_json(folder / "errors.json") for seed, folder in finished.items()}
            runs[name] = {seed: read_json(folder / "run.json") for seed, folder in finished.items()}
    changes = {
        control: {
            name: {
                seed: changes_of(run, values[control][seed]) for seed, run in runs_of.items() if seed in values[control]
            }
            for name, runs_of in values.items()
            if name != control and (others is None or name in others)
        }
        for control, others in CONTROLS.items()
        if control in values
    }
    return {"costs": read_json(output / "costs.json"), "runs": runs, "values": values, "changes": changes}


def changes_of(new: Mapping[str, float], old: Mapping[str, float]) -> dict[str, float]:
    """Changes of the compared numbers in %."""
    return {key: 100.0 * (new[key] / old[key] - 1.0) for key in COMPARED if key in new and old.get(key)}


def cost_table(summary: Mapping[str, Any]) -> str:
    """Steps, and processor time of a step."""
    costs = summary["costs"]
    lines = []
    for name, by_seed in summary["runs"].items():
        seconds = costs[name.partition(EQUAL_TIME)[0]]
        steps = next(iter(by_seed.values()))["steps"]
        ratio = f"{seconds / costs['E-F']:.2f}" if "E-F" in costs else ""
        relative = (
            f"{steps * seconds / (costs[REFERENCE] * reference_steps(summary)):.2f}" if REFERENCE in costs else ""
        )
        lines.append([name, str(steps), f"{1e3 * seconds:.1f}", ratio, relative, str(len(by_seed))])
    head = ["scheme", "steps", "ms per step", "of an E-F step", f"whole run, of {REFERENCE}", "seeds"]
    return markdown("Cost", head, lines)


def reference_steps(summary: Mapping[str, Any]) -> int:
    """Number of steps of the reference scheme, or of the first one without it."""
    runs = summary["runs"]
    by_seed = runs.get(REFERENCE) or next(iter(runs.values()))
    return int(next(iter(by_seed.values()))["steps"])


def value_table(title: str, columns: Columns, summary: Mapping[str, Any]) -> str:
    """One line per scheme: mean over seeds, and the smallest and largest value."""
    lines = [
        [name, *(mean_and_range([scaled(key, run[key]) for run in by_seed.values() if key in run]) for key in columns)]
        for name, by_seed in summary["values"].items()
    ]
    return markdown(title, ["scheme", *columns.values()], lines)


def change_table(control: str, summary: Mapping[str, Any]) -> str:
    """Changes to a control in %; bold where all seeds agree in the sign."""
    lines = []
    for name, by_seed in summary["changes"][control].items():
        cells = [[run[key] for run in by_seed.values() if key in run] for key in COMPARED]
        lines.append([name, *(signed_range(cell) for cell in cells)])
    return markdown(f"Change from {control} of the same seed, %", ["scheme", *COMPARED.values()], lines)


def scaled(key: str, value: float) -> float:
    """The value in the unit of the tables."""
    return value * (1e3 if key.endswith("energy_per_atom") else 100.0 if " share " in key else 1.0)


def mean_and_range(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = f"{float(np.mean(values)):.3g}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3g} to {max(values):.3g})"


def signed_range(values: Sequence[float]) -> str:
    if not values:
        return ""
    text = f"{float(np.mean(values)):+.0f}"
    if len(values) == 1:
        return text
    agreed = min(values) > 0 or max(values) < 0
    return (f"**{text}**" if agreed else text) + f" ({min(values):+.0f} to {max(values):+.0f})"


def markdown(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [f"| {' | '.join(cells)} |" for cells in (head, *lines)]
    return "\n".join([f"### {title}", "", rows[0], "|" + "---|" * len(head), *rows[1:], ""])


def report(output: Path, names: Sequence[str], seeds: Sequence[int]) -> str:
    """Write `summary.json` and `tables.md`; returns the tables."""
    summary = collect(output, names, seeds)
    if not summary["values"]:
        return "no run is finished"
    write_json(output / "summary.json", summary)
    tables = [cost_table(summary), *(value_table(title, columns, summary) for title, columns in TABLES.items())]
    tables += [change_table(control, summary) for control, changes in summary["changes"].items() if changes]
    text = "\n".join(tables)
    with atomic_write(output / "tables.md") as aside:
        Path(aside).write_text(text, encoding="utf-8")
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder of runs and results")
    parser.add_argument("--data", type=Path, default=TINY, help="folder of the reaction benchmark (default: the tiny)")
    parser.add_argument("--scheme", action="append", help="name of a scheme, or NAME=JSON (default: all of SCHEMES)")
    parser.add_argument("--seed", action="append", type=int)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8, help="structures in a step")
    parser.add_argument("--model", default='{"kind": "hessenet"}', help="JSON of the network")
    parser.add_argument("--displaced", type=int, default=150, help="maximum number of structures of irc and of nms")
    parser.add_argument("--repeats", type=int, default=9, help="blocks of steps timed of each scheme")
    parser.add_argument("--only", choices=("train", "evaluate", "report"), help="one part of the work")
    options = parser.parse_args(arguments)
    try:
        pairs = [text.partition("=") for text in options.scheme or SCHEMES]
        changes = {name: json.loads(change) if equals else SCHEMES[name] for name, equals, change in pairs}
        base = FIXED | {"model": json.loads(options.model), "batch": {"structures": options.batch}}
        configs = {name: configuration(base, change) for name, change in changes.items()}
    except KeyError as error:
        parser.error(f"no scheme {error}: expected one of {', '.join(SCHEMES)}, or NAME=JSON")
    except ValueError as error:
        parser.error(f'expected --model JSON and --scheme NAME or NAME={{"option": ...}}: {error}')
    if REFERENCE not in configs and any(EQUAL_TIME in name for name in configs):
        parser.error(f'a scheme "{EQUAL_TIME}" needs the scheme {REFERENCE} beside it')
    torch.set_num_threads(1)
    disable_malloc_trim()  # as training does
    options.output.mkdir(parents=True, exist_ok=True)
    seeds = options.seed or [0]
    runs = [(name, seed) for seed in seeds for name in configs]
    if options.only in (None, "train"):
        training = read_training(options.data / "rtp-train.h5")
        costs = add_costs(options.output / "costs.json", configs, training, options.repeats)
        for name, seed in runs:
            steps = steps_of(name, options.steps, costs)
            config = configuration(base, changes[name], steps=steps, seed=seed)
            train_one(name, config, training, folder_of(options.output, name, seed))
    if options.only in (None, "evaluate"):
        sets = {name: read_dataset(options.data / f"{name}.h5") for name in SETS}
        sets |= {name: random_subset(sets[name], options.displaced) for name in ("irc", "nms")}
        for folder in (folder_of(options.output, name, seed) for name, seed in runs):
            if (folder / "run.json").exists():
                evaluate_one(folder, sets)
    if options.only in (None, "report"):
        print(report(options.output, list(configs), seeds))


if __name__ == "__main__":
    main()
