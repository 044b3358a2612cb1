"""The demonstration: sample and label small molecules, train two potentials (E-F and E-F-HVP), and compare them.

As in the published protocol, the training data contain geometries near equilibrium only, with one stored pair of a
probe and its Hessian-vector product each. The test data are more difficult: geometries far from equilibrium, and
molecules that are not in the training data.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from hesse._version import __version__
from hesse.datasets import Dataset, write_dataset
from hesse.errors import ConfigError, FileFormatError, WriteError
from hesse.evaluation import Evaluation, evaluate_model
from hesse.labelling import LabelSpec, label
from hesse.models import load_model
from hesse.recipes.molecules import g2_molecules, hold_out
from hesse.recipes.parallel_runs import train_in_parallel
from hesse.runtime.devices import torch_threads
from hesse.runtime.filesystem import atomic_write, atomic_write_text
from hesse.sampling import NormalModeSampling, sample_normal_modes
from hesse.structures import Structure
from hesse.training import read_log

__all__ = ["DemoPlan", "DemoResult", "run_demo"]

TRAIN_KELVIN, TEST_KELVIN = 300.0, 2000.0
"""Temperatures of the training samples and of the test samples, K."""

TEST_SETS = ("far", "unseen")

MODEL_OPTIONS = {"kind": "hessenet", "cutoff": 4.0}
"""The network. Small molecules need no long cutoff (docs/choosing-weights.md)."""

TRAINING_OPTIONS = {"validate_every": 200, "checkpoint_every": 200}
"""Further options of both runs. Curvature terms in every second step would save time, but for the same number of steps
the validation errors of forces and products were 19 to 38 % larger on these data (docs/demonstration.md)."""


@dataclass(frozen=True)
class DemoPlan:
    """Settings of a demonstration.

    Attributes:
        seed: seed of sampling, probes, splits and training.
        engine: name of the engine that makes the labels.
        molecules: names in the G2 collection; empty for all molecules of `g2_molecules`.
        steps: training steps of each potential.
        near: training geometries per molecule at 300 K, in addition to the relaxed one.
        far: test geometries per molecule at 2000 K.
        unseen: number of molecules without any training geometry (see `hold_out`); their relaxed geometries and samples
            at 300 K are test data.
        unseen_samples: geometries of each unseen molecule at 300 K.
        validation: fraction of the training geometries that is held out to select the best model.
        workers: number of processes that sample and label.
        model: options of the network, as in a configuration file.
        training: further options of both runs.
        weights: loss weights of E-F-HVP; E-F uses the same with `hvp` zero.

    Raises:
        ConfigError: a number below one.
    """

    seed: int = 0
    engine: str = "gfn2"
    molecules: tuple[str, ...] = ()
    steps: int = 4000
    near: int = 24
    far: int = 4
    unseen: int = 10
    unseen_samples: int = 6
    validation: float = 0.06
    workers: int = field(default_factory=lambda: min(os.cpu_count() or 1, 8))
    model: dict[str, Any] = field(default_factory=lambda: dict(MODEL_OPTIONS))
    training: dict[str, Any] = field(default_factory=lambda: dict(TRAINING_OPTIONS))
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.steps, self.near, self.far, self.unseen, self.unseen_samples, self.workers) < 1:
            raise ConfigError("a demonstration needs at least one step, sample, unseen molecule and worker")


@dataclass(frozen=True, eq=False)
class DemoResult:
    """Result of a demonstration.

    Attributes:
        plan: the settings.
        facts: data, machine, versions and settings as text, for a report.
        evaluations: evaluations of E-F and E-F-HVP on each test set.
        logs: training logs of both.
        seconds: wall time of each stage.
    """

    plan: DemoPlan
    facts: dict[str, str]
    evaluations: dict[str, tuple[Evaluation, ...]]
    logs: dict[str, list[dict[str, Any]]]
    seconds: dict[str, float]


def run_demo(folder: str | Path, plan: DemoPlan | None = None, *, quiet: bool = False) -> DemoResult:
    """Make the data, train both potentials and evaluate them. If it was interrupted, the same call continues.

    Writes `data/*.h5`, `runs/`, `models/ef.hesse` and `models/ef_hvp.hesse`. (`hesse demo` also writes the report.)

    Args:
        folder: output folder.
        plan: settings; None for the defaults.
        quiet: show no progress.

    Returns:
        Evaluations, training logs and wall times.

    Raises:
        MissingExtraError: the engine's package is not installed (`pip install "hesse[xtb]"`).
        ConfigError: the folder contains a demonstration with other settings; nothing in it is changed.
        WriteError: the folder cannot be created.
        ExecutionError: a stage failed; the message contains the reason.
    """
    plan = plan or DemoPlan()
    folder = Path(folder)
    _check_same_plan(folder / "plan.json", plan)
    try:
        for subfolder in ("data", "runs", "models"):
            (folder / subfolder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the folder {folder}: {error.strerror}") from error
    atomic_write_text(folder / "plan.json", json.dumps(_reproducible_settings(plan), indent=1) + "\n")
    timer = _StageTimer()
    with timer.stage("sampling and labeling"):
        data = _make_datasets(folder / "data", plan, quiet)
    with timer.stage("training"):
        runs = train_in_parallel(_configs(folder, plan), folder / "runs", quiet=quiet)
    evaluations, logs = {}, {}
    # Several threads would wait for each other on a machine with other load.
    with timer.stage("evaluation"), torch_threads(1):
        for file, (name, run) in zip(("ef", "ef_hvp"), runs.items(), strict=True):
            target = folder / "models" / f"{file}.hesse"
            with atomic_write(target) as aside:
                shutil.copyfile(run / "model.hesse", aside)
            potential = load_model(target)
            evaluations[name] = tuple(
                evaluate_model(potential, data[test], name=test, quiet=quiet) for test in TEST_SETS
            )
            logs[name] = read_log(run / "metrics.jsonl")
    return DemoResult(plan, _facts(plan, data, timer, folder), evaluations, logs, timer.seconds)


def _reproducible_settings(plan: DemoPlan) -> dict[str, Any]:
    """The settings that determine the results, as values of JSON."""
    settings: dict[str, Any] = json.loads(json.dumps(asdict(plan)))
    del settings["workers"]
    return settings


def _check_same_plan(path: Path, plan: DemoPlan) -> None:
    if not path.exists():
        return
    try:
        stored = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise FileFormatError(f"{path}: cannot be read as the plan of a demonstration ({error})") from error
    current = _reproducible_settings(plan)
    differences = [
        f"{name} {stored.get(name)}, not {current[name]}" for name in current if stored.get(name) != current[name]
    ]
    if differences:
        raise ConfigError(
            f"{path.parent} contains a demonstration of another plan ({'; '.join(differences)}). Choose another folder "
            "with --out, or delete this one."
        )


# --- stages ----------------------------------------------------------------------------------------------------------


def _make_datasets(folder: Path, plan: DemoPlan, quiet: bool) -> dict[str, Dataset]:
    """Sample, label and write the four data sets."""
    molecules = tuple(m for m in g2_molecules() if not plan.molecules or m.id in plan.molecules)
    held_out = set(hold_out(molecules, plan.unseen, seed=plan.seed))
    sampling = NormalModeSampling(
        temperatures=(TRAIN_KELVIN, TEST_KELVIN), count=max(plan.near, plan.far, plan.unseen_samples), seed=plan.seed
    )
    samples = sample_normal_modes(molecules, plan.engine, sampling, workers=plan.workers, quiet=quiet)
    selected: dict[str, list[Structure]] = {"near": [], "far": [], "unseen": []}
    for structure in samples.structures:
        in_training = structure.group not in held_out
        sample_index = 0 if structure.tag == "relaxed" else int(structure.id.rsplit("/", 1)[1])
        if structure.tag == f"nms-{TEST_KELVIN:g}K":
            if in_training and sample_index < plan.far:
                selected["far"].append(structure)
        elif not in_training and sample_index < plan.unseen_samples:
            selected["unseen"].append(structure)
        elif in_training and sample_index < plan.near:
            selected["near"].append(structure)
    near = _label_structures(selected["near"], folder / "near.h5", plan, hessian=False, quiet=quiet)
    training, validation = near.split(1 - plan.validation, plan.validation, seed=plan.seed, by_group=False)
    # One campaign for both test sets, because starting worker processes takes time.
    tests = _label_structures(
        selected["far"] + selected["unseen"], folder / "tests.h5", plan, hessian=True, quiet=quiet
    )
    datasets = {
        "train": training,
        "validation": validation,
        "far": tests.filter(lambda s: s.group not in held_out),
        "unseen": tests.filter(lambda s: s.group in held_out),
    }
    for name, dataset in datasets.items():
        write_dataset(folder / f"{name}.h5", dataset)
    return datasets


def _label_structures(
    structures: list[Structure], output: Path, plan: DemoPlan, *, hessian: bool, quiet: bool
) -> Dataset:
    spec = LabelSpec(n_probes=1, probe="rademacher", seed=plan.seed, hessian=hessian)
    return label(structures, plan.engine, output, spec=spec, workers=plan.workers, quiet=quiet).dataset


def _configs(folder: Path, plan: DemoPlan) -> dict[str, dict[str, Any]]:
    """Configurations of both runs; they differ in the weight of the Hessian-vector products only."""
    base: dict[str, Any] = {
        "data": {
            "train": str((folder / "data" / "train.h5").resolve()),
            "validation": str((folder / "data" / "validation.h5").resolve()),
        },
        "steps": plan.steps,
        "seed": plan.seed,
        "cpu_threads": 1,
        "model": plan.model,
        **plan.training,
    }
    return {
        "E-F": {**base, "weights": {**plan.weights, "hvp": 0.0}},
        "E-F-HVP": {**base, "weights": plan.weights},
    }


# --- bookkeeping -----------------------------------------------------------------------------------------------------


class _StageTimer:
    """Wall time of each stage, seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start


def _facts(plan: DemoPlan, data: dict[str, Dataset], timer: _StageTimer, folder: Path) -> dict[str, str]:
    import torch

    config = json.loads((folder / "runs" / "E-F-HVP" / "resolved.json").read_text(encoding="utf-8"))
    weights = " : ".join(f"{config['weights'][k]:g}" for k in ("energy", "forces", "hvp"))
    options = ", ".join(f"{name} {value}" for name, value in config["model"].items() if name != "kind")
    return {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "versions": f"Hesse {__version__}, PyTorch {torch.__version__}, Python {platform.python_version()}",
        "labels": f"{data['train'].metadata.get('level', plan.engine)}, one Rademacher probe per structure",
        "data": ", ".join(f"{name} {len(dataset)}" for name, dataset in data.items())
        + f" structures of {len({s.group for dataset in data.values() for s in dataset.structures})} molecules",
        "unseen molecules": ", ".join(sorted({s.group for s in data["unseen"].structures})),
        "data hash (training)": data["train"].content_hash(),
        "potential": f"{config['model']['kind']}: {options} (lengths in Å)",
        "weights E : F : HVP": weights,
        "steps and seed": f"{plan.steps} steps of {config['batch']['structures']} structures, seed {plan.seed}",
        "seconds": ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in timer.seconds.items()),
    }
