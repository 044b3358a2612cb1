"""Stages that several recipes have: a training run, a label campaign, and the errors of trained models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hesse.datasets import Dataset, read_dataset, write_dataset
from hesse.engines.names import path_in_name
from hesse.evaluation import Evaluation
from hesse.labelling import LabelSpec, label
from hesse.models import Ensemble, load_model, save_model
from hesse.recipes.judging import Suite
from hesse.recipes.protocols.stages import Stage, StageWork
from hesse.recipes.protocols.training_runs import train_run
from hesse.recipes.set_errors import SetErrors, evaluate_run
from hesse.runtime.filesystem import write_rows
from hesse.runtime.settings import validate_config
from hesse.training import RunConfig
from hesse.training.run_identity import WITHOUT_EFFECT

__all__ = [
    "MODEL",
    "ensemble_stage",
    "error_table",
    "errors_stage",
    "label_stage",
    "train_stage",
    "weight_option",
    "with_weight",
]

MODEL = "model.hesse"
"""File of the best model in the folder of a training stage."""
LABELS = "labels.h5"
"""File of the labels in the folder of a label stage."""


def train_stage(output: Path, name: str, description: str, options: Mapping[str, Any], *, branch: str = "") -> Stage:
    """A stage that trains one model, as `hesse train` does; its folder is that of a run.

    Args:
        output: folder of the recipe.
        name: name of the stage.
        description: what it is for.
        options: options as for `hesse train`, without output. Data and models of earlier stages need not exist yet.
        branch: its branch, see `Stage`.

    Returns:
        The stage; its product is `model.hesse`.

    Raises:
        ConfigError: an option that does not exist, or a wrong value.
    """
    config = validate_config(RunConfig, {**options, "output": str(output / name)}, source=f"options of {name}")
    start = path_in_name(config.init_from) if config.init_from is not None else None
    models = [Path(path) for path in (start, config.baseline) if path]
    data = config.data
    files = (*data.train_files, *data.validation_files, *data.replay_files, *models)
    settings = config.model_dump(mode="json", exclude={*WITHOUT_EFFECT, "output", "data", "init_from", "baseline"})
    settings["data"] = data.model_dump(mode="json", exclude={"train", "validation", "replay"})

    def work(stage: StageWork) -> dict[str, Any]:
        return train_run(config, quiet=stage.quiet)

    return Stage(name, description, work, settings, files, (MODEL,), branch=branch, run=config)


def ensemble_stage(name: str, models: Sequence[Path], *, branch: str = "") -> Stage:
    """A stage that saves the mean of several models as one.

    Args:
        name: name of the stage.
        models: files of the models.
        branch: its branch, see `Stage`.

    Returns:
        The stage; its product is `model.hesse`.
    """

    def work(stage: StageWork) -> dict[str, Any]:
        members = [load_model(model) for model in models]
        save_model(stage.folder / MODEL, Ensemble(members), {"members": len(members)})
        return {"members": len(members)}

    return Stage(name, "the mean of the models, as one model", work, {}, tuple(models), (MODEL,), branch=branch)


def label_stage(
    name: str,
    description: str,
    structures: Path,
    engine: str,
    spec: LabelSpec,
    *,
    workers: int | None = None,
    branch: str = "",
    weight: float = 1.0,
) -> Stage:
    """A stage that labels structures, as `hesse label` does. Failures of single structures are left out.

    Args:
        name: name of the stage.
        description: what it is for.
        structures: file of the structures.
        engine: name of the engine.
        spec: what to compute.
        workers: number of processes, one thread each.
        branch: its branch, see `Stage`.
        weight: weight of the structures in later training.

    Returns:
        The stage; its product is `labels.h5`.
    """

    def work(stage: StageWork) -> dict[str, Any]:
        report = label(structures, engine, stage.folder / LABELS, spec=spec, workers=workers, quiet=stage.quiet)
        if weight != 1.0:
            write_dataset(stage.folder / LABELS, with_weight(report.dataset, weight))
        return {
            "labeled": len(report.dataset),
            "failed": {failure.id: failure.reason for failure in report.failures},
            "suspect": [suspect.id for suspect in report.suspects],
            "engine_seconds": report.engine_seconds,
        }

    options = {"engine": engine, "labels": vars(spec), **weight_option(weight)}
    return Stage(name, description, work, options, (structures,), (LABELS,), branch=branch)


def with_weight(dataset: Dataset, weight: float) -> Dataset:
    """A data set whose structures have another weight.

    Args:
        dataset: the data set.
        weight: the weight of each structure; 1 leaves the data as they are.

    Returns:
        The data set.
    """
    if weight == 1.0:
        return dataset
    values = torch.full((len(dataset),), weight, dtype=torch.float64)
    return replace(dataset, labels=dataset.labels.replace(weight=values))


def weight_option(weight: float) -> dict[str, float]:
    """The option of a stage that gives labels a weight.

    Args:
        weight: the weight.

    Returns:
        The option; none for the weight 1, as in stages of earlier versions.
    """
    return {} if weight == 1.0 else {"weight": weight}


def errors_stage(
    name: str, runs: Mapping[str, Path], tests: Mapping[str, Path], *, suite: Suite = "basic", device: str = "cpu"
) -> Stage:
    """A stage with the errors of trained models on test sets. They are kept beside the models, so that `hesse compare`
    finds them, and computed again only if a model or a test set changes.

    Args:
        name: name of the stage.
        runs: folders of training stages, by a name of the model; those without a model are left out.
        tests: files of the test sets, by name.
        suite: what is judged.
        device: device of the calculation.

    Returns:
        The stage. Its product is `errors.json`: rows with model, dataset, property, metric, value, unit, n.
    """

    def work(stage: StageWork) -> dict[str, Any]:
        rows = []
        for test, file in tests.items():
            dataset = read_dataset(file)
            for model, run in runs.items():
                if not (run / MODEL).exists():  # of a branch that has ended
                    continue
                errors = evaluate_run(run, dataset, suite=suite, device=device, quiet=True)
                rows += error_rows(model, test, errors)
        write_rows(stage.folder / "errors.json", rows)
        return {"rows": rows}

    return Stage(name, "errors on the test sets", work, products=("errors.json",), always=True)


def error_rows(model: str, test: str, errors: SetErrors | Evaluation) -> list[dict[str, Any]]:
    """Rows of one model on one test set.

    Args:
        model: name of the model.
        test: name of the test set.
        errors: its errors.

    Returns:
        Rows with model, dataset, property, metric, value, unit, n.
    """
    return [
        {"model": model, "dataset": test, "property": row.property, "metric": row.metric, "value": row.value,
         "unit": row.unit, "n": row.n}
        for row in errors.rows
        if math.isfinite(row.value)
    ]  # fmt: skip


def error_table(rows: Sequence[Mapping[str, Any]], metric: str = "rmse") -> str:
    """Rows of `errors_stage` as a table of text.

    Args:
        rows: the rows.
        metric: which metric is shown.

    Returns:
        A line for each model and test set, a column for each property.
    """
    shown = [row for row in rows if row["metric"] == metric]
    columns = list(dict.fromkeys((row["property"], row["unit"]) for row in shown))
    values = {(r["model"], r["dataset"], r["property"]): f"{r['value']:.4g}" for r in shown}
    lines = [("model", "test set", *(f"{name} ({unit})" for name, unit in columns))]
    for model, test in dict.fromkeys((row["model"], row["dataset"]) for row in shown):
        lines.append((model, test, *(values.get((model, test, name), "-") for name, _ in columns)))
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    texts = []
    for line in lines:
        cells = [c.ljust(w) if k < 2 else c.rjust(w) for k, (c, w) in enumerate(zip(line, widths, strict=True))]
        texts.append("  ".join(cells).rstrip())
    return "\n".join(texts)
