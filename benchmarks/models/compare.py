"""Accuracy of networks against the time of their steps, on the same data with the same steps.

    python benchmarks/models/compare.py OUT                                  # all networks, tiny committed data
    python benchmarks/models/compare.py OUT --data FOLDER --steps 6000 --seed 0 --seed 1
    python benchmarks/models/compare.py OUT --data FOLDER --steps 6000 --model 'wide={"kind": "hipnn", "features": 128}'

FOLDER contains `rtp-train.h5`, `rtp-validation.h5` and the test sets, as `benchmarks/reactions/build.py` writes them.
Every network is trained by `hesse.train` with the defaults of its kind (options are JSON behind its name) on one stored
product per structure, and evaluated on every test set: energies, forces, products and Hessians.

The same command continues an interrupted comparison; complete runs are read from their folders. Several processes may
share OUT if each trains other models or seeds (`--only train`); the last command, without it, collects the results.
Times are measured interleaved in one process on the same batches: processor and wall time, medians. The
report is `rows.json`, `table.md` and `accuracy-time.png`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

import hesse
from hesse.curvature import evaluate
from hesse.datasets import Dataset, read_dataset, select_probes
from hesse.losses import LossWeights, default_loss, weighted_loss
from hesse.models import ModelConfig, build_model
from hesse.reports.figure_style import figure_style, log_axis, new_figure, to_png
from hesse.runtime.filesystem import atomic_write
from hesse.training import BatchConfig, OptimizerConfig, TrainConfig
from hesse.training.step import request_for_loss

TINY = Path(__file__).parents[1] / "reactions" / "tiny"
OWN = ('hipnn={"kind": "hipnn"}', 'ani={"kind": "ani"}', 'hessenet={"kind": "hessenet"}')
SCHEMES = {"E-F": LossWeights(hvp=0.0), "E-F-HVP": LossWeights()}
SHOWN = ("energy_per_atom", "forces", "hvp", "hessian")
COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1c2126")


@dataclass(frozen=True)
class NamedModel:
    """A network and its name."""

    name: str
    config: Any

    @classmethod
    def parse(cls, text: str) -> NamedModel:
        """Parse `NAME=JSON`. Raises ValueError with the reason."""
        name, equals, options = text.partition("=")
        if not equals or not name:
            raise ValueError(f'expected NAME={{"kind": ..., options}}, got {text!r}')
        return cls(name, TypeAdapter(ModelConfig).validate_json(options))


@dataclass(frozen=True)
class Data:
    """Training, validation and test data."""

    training: Dataset
    validation: Dataset
    tests: Mapping[str, Dataset]

    @classmethod
    def read(cls, folder: Path, train: Path | None, validation: Path | None, tests: Sequence[str]) -> Data:
        """One stored product per structure for training (the first pair); test sets are not changed."""

        def one_pair(path: Path) -> Dataset:
            dataset = read_dataset(path)
            return select_probes(dataset, [0]) if len(dataset.labels.probes) > 1 else dataset

        return cls(
            one_pair(train or folder / "rtp-train.h5"),
            one_pair(validation or folder / "rtp-validation.h5"),
            {name: read_dataset(folder / f"{name}.h5") for name in tests},
        )


def train_all(models: Sequence[NamedModel], data: Data, options: argparse.Namespace) -> None:
    """Train and evaluate the networks that are missing, one folder each."""
    for seed in options.seed:
        for model in models:
            folder = options.output / f"{model.name}-seed{seed}"
            config = TrainConfig(
                model=model.config, steps=options.steps, seed=seed, cpu_threads=options.threads,
                batch=BatchConfig(structures=options.batch), validate_every=max(options.steps // 12, 1),
                optimizer=OptimizerConfig(learning_rate=options.learning_rate),
            )  # fmt: skip
            start = time.process_time()
            result = hesse.train(data.training, data.validation, config, output=folder, quiet=options.quiet)
            spent = time.process_time() - start
            if (folder / "errors.json").exists():
                continue
            rows = []
            for name, dataset in data.tests.items():
                evaluation = hesse.evaluate(result.potential, dataset, name=name, by_tag=False)
                rows += [asdict(row) for row in evaluation.rows]
            write_json(
                folder / "errors.json",
                {
                    "name": model.name,
                    "seed": seed,
                    "steps": result.steps,
                    "config": model.config.model_dump(mode="json"),
                    "parameters": sum(p.numel() for p in result.potential.parameters()),
                    "wall_seconds": result.seconds,
                    "processor_seconds": spent,
                    "validation": dict(result.scores),
                    "rows": rows,
                },
            )


def step_times(models: Sequence[NamedModel], data: Data, structures: int, repeats: int) -> dict[str, Any]:
    """Median time of one step, ms: `{network: {scheme: {"processor": ..., "wall": ...}}}`.

    A step consists of batch, prediction, loss and its gradient, without the optimizer.
    """
    elements = data.training.elements
    generator = torch.Generator().manual_seed(0)
    networks = {}
    for model in models:
        torch.manual_seed(0)
        networks[model.name] = build_model(model.config, elements).float()
    milliseconds: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for repeat in range(repeats + 2):
        indices = torch.randperm(len(data.training), generator=generator)[:structures].tolist()
        for name, network in networks.items():
            for scheme, weights in SCHEMES.items():
                processor, wall = time.process_time(), time.perf_counter()
                batch, labels = data.training.batch(indices, network.cutoff, dtype=torch.float32, device="cpu")
                request = request_for_loss(default_loss(), labels, weights.by_name())
                predictions = evaluate(network, batch, request, create_graph=True)
                # With respect to parameters only, as in training.
                weighted_loss(predictions, labels, weights)[0].backward(inputs=list(network.parameters()))
                spent = (1e3 * (time.process_time() - processor), 1e3 * (time.perf_counter() - wall))
                network.zero_grad(set_to_none=True)
                if repeat >= 2:  # the first two are warm-up
                    milliseconds.setdefault((name, scheme), []).append(spent)
    medians: dict[str, Any] = {name: {} for name in networks}
    for (name, scheme), times in milliseconds.items():
        processor, wall = np.median(np.array(times), axis=0)
        medians[name][scheme] = {"processor": float(processor), "wall": float(wall)}
    return medians


# --- results ---------------------------------------------------------------------------------------------------------


def collect_rows(models: Sequence[NamedModel], options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per network, test set and property: RMSE (mean and standard deviation over seeds), times of a step."""
    times = json.loads((options.output / "times.json").read_text(encoding="utf-8"))
    rows = []
    for model in models:
        runs = [
            json.loads((options.output / f"{model.name}-seed{seed}" / "errors.json").read_text(encoding="utf-8"))
            for seed in options.seed
        ]
        expected = {"config": model.config.model_dump(mode="json"), "steps": options.steps}
        for run in runs:
            actual = {key: run[key] for key in expected}
            if actual != expected:
                raise SystemExit(
                    f"{model.name}-seed{run['seed']} is of other settings: expected {expected}, got {actual}. Give "
                    "the model as it was trained (--model, --steps), or remove that folder to train it again."
                )
        for first in runs[0]["rows"]:
            if first["metric"] != "rmse":
                continue
            values = [
                row["value"]
                for run in runs
                for row in run["rows"]
                if all(row[key] == first[key] for key in ("dataset", "property", "metric"))
            ]
            rows.append(
                {
                    "name": model.name,
                    "parameters": runs[0]["parameters"],
                    "steps": runs[0]["steps"],
                    "seeds": len(runs),
                    "dataset": first["dataset"],
                    "property": first["property"],
                    "rmse": float(np.mean(values)),
                    "spread": float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
                    "unit": first["unit"],
                    "times": times[model.name],
                }
            )
    return rows


def by_name(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for name in dict.fromkeys(row["name"] for row in rows):
        yield name, [row for row in rows if row["name"] == name]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown: one line per network and set."""
    lines = [
        "| network | parameters | E-F / E-F-HVP step, ms | set | energy, meV/atom | forces, eV/Å | H v, eV/Å² "
        "| Hessian, eV/Å² |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, model_rows in by_name(rows):
        times = model_rows[0]["times"]
        clock = " / ".join(f"{times[scheme]['processor']:.0f}" for scheme in SCHEMES)
        for index, dataset in enumerate(dict.fromkeys(row["dataset"] for row in model_rows)):
            values = {row["property"]: row for row in model_rows if row["dataset"] == dataset}
            cells = [shown(values.get(prop)) for prop in SHOWN]
            head = f"{name} | {model_rows[0]['parameters']:,} | {clock}" if index == 0 else "| |"
            lines.append(f"| {head} | {dataset} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    scale = 1e3 if row["property"] == "energy_per_atom" else 1.0
    value, spread = scale * row["rmse"], scale * row["spread"]
    return (f"{value:.3g}" if value < 999.5 else f"{value:.0f}") + ("" if math.isnan(spread) else f" ± {spread:.1g}")


def figure(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Hessian error against the time of an E-F-HVP step, one point per network and set."""
    markers = "os^Dv"
    with figure_style():
        canvas, axes = new_figure(5.4, 3.6)
        sets = list(dict.fromkeys(row["dataset"] for row in rows))
        hessian_rows = [row for row in rows if row["property"] == "hessian"]
        for color, (name, model_rows) in zip(COLORS * 4, by_name(hessian_rows), strict=False):
            x = [row["times"]["E-F-HVP"]["processor"] for row in model_rows]
            axes.plot(x, [row["rmse"] for row in model_rows], color=color, linewidth=0.8, zorder=1)
            for row, position in zip(model_rows, x, strict=True):
                marker = markers[sets.index(row["dataset"]) % len(markers)]
                axes.plot([position], [row["rmse"]], marker, color=color, markersize=6, zorder=2)
            axes.annotate(
                name, (x[0], min(row["rmse"] for row in model_rows)), (8, -3), textcoords="offset points",
                color=color, fontsize=9,
            )  # fmt: skip
        for index, dataset in enumerate(sets):
            axes.plot([], [], markers[index % len(markers)], color="#8a9199", label=dataset)
        values = [row["rmse"] for row in hessian_rows]
        times = [row["times"]["E-F-HVP"]["processor"] for row in hessian_rows]
        axes.set_yscale("log")
        axes.set_xlim(0, 1.35 * max(times))
        axes.set_ylim(min(values) / 1.3, max(values) * 1.5)
        log_axis(axes.yaxis, min(values), max(values))
        axes.set_xlabel("one E-F-HVP step, ms of processor time")
        axes.set_ylabel("Hessian RMSE, eV/Å²")
        axes.legend()
        to_png(canvas, path)


def write_json(path: Path, value: Any) -> None:
    with atomic_write(path) as aside:
        Path(aside).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder of runs and results")
    parser.add_argument("--data", type=Path, default=TINY, help="folder of the reaction benchmark (default: the tiny)")
    parser.add_argument("--train", type=Path, help="another training file")
    parser.add_argument("--validation", type=Path, help="another validation file")
    parser.add_argument("--test", action="append", help="names of the test sets (default: rtp-test, irc, nms)")
    parser.add_argument("--model", action="append", help="NAME=JSON of a configuration (default: all networks)")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", action="append", type=int)
    parser.add_argument("--learning-rate", type=float, default=5e-3, help="(default: that of training)")
    parser.add_argument("--batch", type=int, default=16, help="structures of a step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15, help="steps timed of each network and scheme")
    parser.add_argument("--only", choices=("train", "times", "report"), help="one part of the work")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args(arguments)
    options.seed = options.seed or [0]
    try:
        models = [NamedModel.parse(text) for text in options.model or OWN]
    except ValueError as error:
        parser.error(str(error))
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    if options.only != "report":
        data = Data.read(options.data, options.train, options.validation, options.test or ["rtp-test", "irc", "nms"])
    if options.only in (None, "train"):
        train_all(models, data, options)
    if options.only in (None, "times"):
        times = step_times(models, data, options.batch, options.repeats)
        write_json(options.output / "times.json", times)
    if options.only in (None, "report"):
        rows = collect_rows(models, options)
        write_json(options.output / "rows.json", rows)
        text = table(rows)
        (options.output / "table.md").write_text(text + "\n", encoding="utf-8")
        figure(rows, options.output / "accuracy-time.png")
        print(text)


if __name__ == "__main__":
    main()
