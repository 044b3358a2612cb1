"""Errors against seconds of training, for curvature terms on all or on a part of the work.

    python benchmarks/accuracy_per_second.py OUT                              # tiny committed data, a few steps
    python benchmarks/accuracy_per_second.py OUT --data FOLDER --budget 40 --budget 80 --budget 160
    python benchmarks/accuracy_per_second.py OUT ... --setting 'half={"curvature": {"fraction": 0.5}}'

FOLDER contains `rtp-train.h5`, `rtp-validation.h5` and the test sets, as `benchmarks/reactions/build.py` writes them. A
setting is a change of the configuration of a run (JSON); `--base` is the part that all settings have in common.

Time is processor time, so that other load on the machine has little effect. First the cost of a step is measured for
all settings, interleaved in one process on the same batches (the median of blocks of one period of
`curvature.every_n_steps`). Then every setting gets as many steps as fit into each budget at that cost, so that each run
ends its own learning-rate schedule with the budget. There is no validation: the last, averaged weights are evaluated.

The same command continues an interrupted measurement; complete runs are read from their folders. The report is
`rows.json`, `table.md` and `accuracy-per-second.png`.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hesse
from hesse.datasets import Dataset, read_dataset, select_probes
from hesse.evaluation import evaluate_model
from hesse.reports.figure_style import figure_style, log_axis, to_png
from hesse.runtime.devices import disable_malloc_trim
from hesse.runtime.filesystem import atomic_write
from hesse.training import TrainConfig
from hesse.training.initial_model import build_initial_potential
from hesse.training.loader import TrainingLoader
from hesse.training.schedules import loss_weights_at
from hesse.training.step import LossAndGradient

TINY = Path(__file__).parent / "reactions" / "tiny"
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "E-F": {"weights": {"hvp": 0.0}},
    "E-F-HVP": {},
    "fraction 1/2": {"curvature": {"fraction": 0.5}},
    "fraction 1/4": {"curvature": {"fraction": 0.25}},
    "every 2": {"curvature": {"every_n_steps": 2}},
    "every 4": {"curvature": {"every_n_steps": 4}},
    "fresh, 1 probe": {"probe": {"source": "fresh"}},
    "fresh, 4 probes": {"probe": {"source": "fresh", "n_probes": 4}},
}
COLORS = ("#8a9199", "#1c2126", "#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#000000")
MARKERS = "osv^DXP*"
SHOWN = {"hessian": "Hessian, eV/Å²", "forces": "forces, eV/Å", "energy_per_atom": "energy, meV/atom"}


def configuration(base: Mapping[str, Any], change: Mapping[str, Any], **rest: Any) -> TrainConfig:
    """Configuration of a run: `base` with the values of `change`, merged one level deep."""
    merged = copy.deepcopy(dict(base))
    for name, value in change.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = {**merged[name], **value} if both else value
    return TrainConfig.model_validate({**merged, **rest})


def step_costs(settings: Mapping[str, TrainConfig], data: Dataset, repeats: int) -> dict[str, float]:
    """Processor seconds of one step of every setting (data, loss, gradient, optimizer), measured interleaved."""
    runs = {}
    for name, config in settings.items():
        torch.manual_seed(0)
        model = build_initial_potential(config, data, None)
        # With a learning rate of zero all repetitions do the same work.
        runs[name] = (
            config,
            LossAndGradient(model),
            TrainingLoader(data, config, model.cutoff),
            torch.optim.AdamW(model.parameters(), lr=0.0),
        )
    rounds = math.lcm(*(config.curvature.every_n_steps for config in settings.values()))
    seconds: dict[str, list[float]] = {name: [] for name in settings}
    for turn in range(repeats + 1):
        for name, (config, gradient, loader, optimizer) in runs.items():
            order = loader.epoch(0)
            start = time.process_time()
            for step in range(turn * rounds, (turn + 1) * rounds):
                loss = config.make_loss()
                weights = loss_weights_at(loss, loss.weights(), {}, step, 1, config.curvature.every_n_steps)
                optimizer.zero_grad(set_to_none=True)
                gradient(loader.load(order[step % (len(order) - 1 or 1)], step), weights)
                torch.nn.utils.clip_grad_norm_(gradient.potential.parameters(), 1.0)
                optimizer.step()
            if turn:  # the first one is warm-up
                seconds[name].append((time.process_time() - start) / rounds)
    return {name: float(np.median(times)) for name, times in seconds.items()}


def train_one(name: str, config: TrainConfig, training: Dataset, tests: Mapping[str, Dataset], folder: Path) -> None:
    """Train and evaluate one setting, unless its errors are in the folder already."""
    if (folder / "errors.json").exists():
        return
    start = time.process_time()
    result = hesse.train(training, None, config, output=folder, quiet=True)
    spent = time.process_time() - start
    rows = [
        asdict(row)
        for key, dataset in tests.items()
        for row in evaluate_model(result.potential, dataset, name=key, by_tag=False).rows
    ]
    write_json(
        folder / "errors.json",
        {
            "name": name,
            "seed": config.seed,
            "steps": result.steps,
            "processor_seconds": spent,  # of this session, if the run was interrupted
            "config": config.model_dump(mode="json"),
            "rows": [row for row in rows if row["metric"] == "rmse"],
        },
    )


def collect_rows(
    output: Path, settings: Sequence[str], budgets: Sequence[float], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """One row per setting, budget, test set and property with finished runs: mean and standard deviation over seeds."""
    costs = json.loads((output / "costs.json").read_text(encoding="utf-8"))
    rows = []
    for name in settings:
        for budget in budgets:
            files = [folder_of(output, name, budget, seed) / "errors.json" for seed in seeds]
            runs = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
            for first in runs[0]["rows"] if runs else []:
                values = [
                    row["value"]
                    for run in runs
                    for row in run["rows"]
                    if (row["dataset"], row["property"]) == (first["dataset"], first["property"])
                ]
                rows.append(
                    {
                        "name": name,
                        "budget": budget,
                        "steps": runs[0]["steps"],
                        "step_seconds": costs[name],
                        "of_ef": costs[name] / costs["E-F"] if "E-F" in costs else None,
                        "seeds": len(runs),
                        "dataset": first["dataset"],
                        "property": first["property"],
                        "rmse": float(np.mean(values)),
                        "spread": float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
                        "unit": first["unit"],
                    }
                )
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The results as Markdown: one line per budget and setting, RMSE set by set."""
    sets = list(dict.fromkeys(row["dataset"] for row in rows))
    heads = ["s", "setting", "ms a step", "of E-F", "steps", *SHOWN.values(), "seeds"]
    lines = [f"Errors on {', '.join(sets)}.", "", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for budget in sorted({row["budget"] for row in rows}):
        for name in dict.fromkeys(row["name"] for row in rows if row["budget"] == budget):
            subset = [row for row in rows if (row["budget"], row["name"]) == (budget, name)]
            ratio = "" if subset[0]["of_ef"] is None else f"{subset[0]['of_ef']:.2f}"
            cells = [f"{budget:g}", name, f"{1e3 * subset[0]['step_seconds']:.0f}", ratio, str(subset[0]["steps"])]
            for prop in SHOWN:
                values = {row["dataset"]: row for row in subset if row["property"] == prop}
                cells.append(", ".join(shown(values.get(key)) for key in sets))
            lines.append(f"| {' | '.join(cells)} | {subset[0]['seeds']} |")
    return "\n".join(lines)


def shown(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    scale = 1e3 if row["property"] == "energy_per_atom" else 1.0
    return f"{scale * row['rmse']:.3g}" + ("" if math.isnan(row["spread"]) else f" ± {scale * row['spread']:.1g}")


def figure(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Hessian and force errors against the budget, a panel for each set and property."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    sets = list(dict.fromkeys(row["dataset"] for row in rows))
    names = list(dict.fromkeys(row["name"] for row in rows))
    budgets = sorted({row["budget"] for row in rows})
    kinds = ("hessian", "forces")
    with figure_style():
        canvas = Figure(figsize=(2.9 * len(sets) + 1.5, 2.8 * len(kinds)), layout="constrained")
        panels = canvas.subplots(len(kinds), len(sets), squeeze=False)
        for (i, kind), (j, dataset) in ((a, b) for a in enumerate(kinds) for b in enumerate(sets)):
            axes = panels[i][j]
            panel_rows = [row for row in rows if row["property"] == kind and row["dataset"] == dataset]
            for name, color, marker in zip(names, COLORS * 3, MARKERS * 3, strict=False):
                subset = sorted((row for row in panel_rows if row["name"] == name), key=lambda row: row["budget"])
                x, y = [row["budget"] for row in subset], [row["rmse"] for row in subset]
                axes.plot(x, y, f"{marker}-", color=color, markersize=5, alpha=0.85, label=name if not i + j else None)
                for row in subset:
                    if not math.isnan(row["spread"]):
                        ends = [max(row["rmse"] - row["spread"], 1e-12), row["rmse"] + row["spread"]]
                        axes.plot([row["budget"]] * 2, ends, color=color, linewidth=0.8)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.margins(x=0.12)
            log_axis(axes.yaxis, min(row["rmse"] for row in panel_rows), max(row["rmse"] for row in panel_rows))
            axes.set_title(f"{SHOWN[kind].split(',')[0]}, {dataset}")
            if i == len(kinds) - 1:
                axes.set_xlabel("processor seconds")
            if j == 0:
                axes.set_ylabel(f"RMSE, {SHOWN[kind].split(', ')[1]}")
        canvas.legend(loc="outside right center")
        to_png(canvas, path)


def folder_of(output: Path, name: str, budget: float, seed: int) -> Path:
    word = "".join(c if c.isalnum() else "-" for c in name)
    return output / f"{word}-{budget:g}s-seed{seed}"


def write_json(path: Path, value: Any) -> None:
    with atomic_write(path) as aside:
        Path(aside).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def read_training(path: Path) -> Dataset:
    """One stored product per structure (the first pair)."""
    dataset = read_dataset(path)
    n_probes = 0 if dataset.labels.probes is None else len(dataset.labels.probes)
    return select_probes(dataset, [0]) if n_probes > 1 else dataset


def random_subset(dataset: Dataset, count: int) -> Dataset:
    """At most `count` structures, always the same ones."""
    if len(dataset) <= count:
        return dataset
    chosen = np.random.default_rng(0).permutation(len(dataset))[:count]
    return dataset.select(sorted(chosen.tolist()))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder of runs and results")
    parser.add_argument("--data", type=Path, default=TINY, help="folder of the reaction benchmark (default: the tiny)")
    parser.add_argument("--train", type=Path, help="another training file")
    parser.add_argument("--test", action="append", type=Path, help="another test file")
    parser.add_argument("--judge", type=int, default=300, help="maximum number of structures of each test set")
    parser.add_argument("--base", default='{"model": {"kind": "hessenet"}}', help="JSON that all runs have in common")
    parser.add_argument("--setting", action="append", help="NAME=JSON of a change (default: SETTINGS)")
    parser.add_argument("--budget", action="append", type=float, help="processor seconds of a run")
    parser.add_argument("--seed", action="append", type=int)
    parser.add_argument("--repeats", type=int, default=9, help="blocks of steps timed of each setting")
    parser.add_argument("--only", choices=("costs", "train", "report"), help="one part of the work")
    options = parser.parse_args(arguments)
    try:
        base = json.loads(options.base)
        pairs = [text.partition("=") for text in options.setting or []]
        changes = {name: json.loads(change) for name, _, change in pairs} if pairs else dict(SETTINGS)
        settings = {name: configuration(base, change, cpu_threads=1) for name, change in changes.items()}
    except ValueError as error:
        parser.error(f'expected --base JSON and --setting NAME={{"option": ...}}: {error}')
    budgets, seeds = sorted(options.budget or [1.0, 2.0]), options.seed or [0]
    torch.set_num_threads(1)
    disable_malloc_trim()  # as training does
    options.output.mkdir(parents=True, exist_ok=True)
    costs_file = options.output / "costs.json"
    training = read_training(options.train or options.data / "rtp-train.h5")
    if options.only in (None, "costs"):
        costs = json.loads(costs_file.read_text(encoding="utf-8")) if costs_file.exists() else {}
        if set(settings) - set(costs):  # all again, because they are measured interleaved
            write_json(costs_file, step_costs(settings, training, options.repeats))
    if options.only in (None, "train"):
        costs = json.loads(costs_file.read_text(encoding="utf-8"))
        files = options.test or [options.data / f"{name}.h5" for name in ("rtp-test", "irc", "nms")]
        tests = {file.stem: random_subset(read_dataset(file), options.judge) for file in files}
        for budget in budgets:
            for seed in seeds:
                for name, change in changes.items():
                    steps = max(1, round(budget / costs[name]))
                    config = configuration(base, change, cpu_threads=1, steps=steps, seed=seed)
                    train_one(name, config, training, tests, folder_of(options.output, name, budget, seed))
    if options.only in (None, "report"):
        rows = collect_rows(options.output, list(changes), budgets, seeds)
        write_json(options.output / "rows.json", rows)
        text = table(rows)
        (options.output / "table.md").write_text(text + "\n", encoding="utf-8")
        figure(rows, options.output / "accuracy-per-second.png")
        print(text)


if __name__ == "__main__":
    main()
