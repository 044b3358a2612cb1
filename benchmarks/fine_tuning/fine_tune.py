"""ANI-1x fine-tuned on reactive structures: what energies, forces and curvature buy, and what is forgotten.

    python benchmarks/fine_tuning/fine_tune.py OUT --ani ani1x.pt --horm horm_sample_dev.npz            # all schemes
    python benchmarks/fine_tuning/fine_tune.py OUT ... --scheme E-F --split 3 --member 0 --member 1     # and their mean
    python benchmarks/fine_tuning/fine_tune.py OUT ... --scheme 'slow={"smooth": true, "train": {"steps": 1000}}'
    python benchmarks/fine_tuning/fine_tune.py OUT --tables                                             # tables only

Structures are split by formula. A scheme is one of `SCHEMES`, or NAME=JSON with the fields of `Scheme`. Finished runs
are kept: the same command continues an interrupted experiment, and another one adds to it. Nothing is selected: the
averaged parameters after the last step are judged, on the test structures of the split, and on ordinary molecules
labeled by the ensemble of ANI-1x (see `prepare.py`). `tables.md` and `results.json` hold all that was run in OUT.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from judge import judge
from prepare import by_formula, prepare, starting_point

import hesse
from hesse.runtime.filesystem import atomic_write

BASE: Mapping[str, Any] = {
    "steps": 400,
    "batch": {"structures": 8},
    "optimizer": {"learning_rate": 1e-3, "ema_decay": 0.98},
    "compile": "never",
    "cpu_threads": 1,
    "checkpoint_every": 400,
}
FRESH: Mapping[str, Any] = {"source": "fresh"}


@dataclass(frozen=True)
class Scheme:
    """How a network is fine-tuned.

    Attributes:
        smooth: with the smooth activation instead of the CELU.
        twin: starts from a smooth network that was distilled from all eight members (`prepare.make_twin`).
        replay: ordinary molecules with labels of the ensemble are mixed into the batches, which are then three times as
            large.
        structures: so many training structures of the split only; 0: none, together with `labels`.
        labels: file of further labeled structures for training.
        train: options of the run, in place of those of `BASE`.
    """

    smooth: bool = False
    twin: bool = False
    replay: bool = False
    structures: int | None = None
    labels: str | None = None
    train: Mapping[str, Any] = field(default_factory=dict)


def hvp(*weights: float) -> Mapping[str, Any]:
    """Weights of energy, forces and products."""
    return dict(zip(("energy", "forces", "hvp"), weights, strict=True))


START = "ANI-1x, one member"
SMOOTH_START = "the same, smooth"
TWIN_START = "smooth twin of all members"
"""Schemes without training."""
RECIPE: Mapping[str, Any] = {"weights": hvp(4, 3, 1.5), "probe": FRESH}
SCHEMES: Mapping[str, Scheme] = {
    START: Scheme(),
    SMOOTH_START: Scheme(smooth=True),
    TWIN_START: Scheme(twin=True),
    "E-F": Scheme(train={"weights": hvp(4, 0.3, 0)}),
    "E-F-HVP, default weights": Scheme(train={"weights": hvp(4, 0.3, 0.15)}),
    "E-F-HVP, one stored product": Scheme(train={"weights": hvp(4, 3, 1.5)}),
    "E-F-HVP, fresh probes": Scheme(train=RECIPE),
    "E-F-HVP, fresh, smooth": Scheme(smooth=True, train=RECIPE),
    "E-F-HVP, fresh, smooth, lr 3e-4": Scheme(smooth=True, train={**RECIPE, "optimizer": {"learning_rate": 3e-4}}),
    "E-F-HVP, fresh, smooth, replay": Scheme(smooth=True, replay=True, train=RECIPE),
    "E-F-HVP, fresh, twin": Scheme(twin=True, train=RECIPE),
    "E-F-HVP, fresh, twin, replay": Scheme(twin=True, replay=True, train=RECIPE),
}
COLUMNS: Mapping[str, str] = {
    "test/energy": "energy, eV",
    "test/forces": "forces, eV/Å",
    "test/hessian": "Hessian, eV/Å²",
    "test/median hessian": "median structure, eV/Å²",
    "test/negative modes": "right number of negative modes",
    "ordinary/energy": "ordinary: energy, eV",
    "ordinary/forces": "ordinary: forces, eV/Å",
    "ordinary/hessian": "ordinary: Hessian, eV/Å²",
}
BANDS: Mapping[str, str] = {
    "frequencies": "all",
    "frequencies imaginary": "imaginary",
    "frequencies 0_300": "0-300",
    "frequencies 300_1000": "300-1000",
    "frequencies 1000_2000": "1000-2000",
    "frequencies above_2000": "above 2000",
}


def folder_name(name: str, split: int, member: int) -> str:
    return "".join(c if c.isalnum() else "-" for c in name) + f"-split{split}-member{member}"


def options_of(scheme: Scheme, split: int) -> dict[str, Any]:
    """Options of the run."""
    options = {**BASE, **scheme.train, "seed": split}
    options["optimizer"] = {**BASE["optimizer"], **scheme.train.get("optimizer", {})}
    if scheme.replay:
        options["batch"] = {"structures": 3 * options["batch"]["structures"]}
    return options


def fine_tune(output: Path, name: str, scheme: Scheme, split: int, member: int) -> None:
    """Train and judge once, unless that is done."""
    folder = output / folder_name(name, split, member)
    if (folder / "errors.json").exists():
        return
    data = output / "data"
    horm = hesse.read_dataset(data / "horm.h5")
    train_indices, _ = by_formula(horm, split)
    potential = starting_point(data, member, smooth=scheme.smooth, twin=scheme.twin)
    started = time.process_time()
    if name not in (START, SMOOTH_START, TWIN_START):
        order = np.random.default_rng(7).permutation(train_indices)[: scheme.structures].tolist()
        parts = [horm.select(order)] if order else []
        if scheme.labels is not None:
            parts.append(hesse.read_dataset(scheme.labels))
        training = sum(parts[1:], parts[0])
        if scheme.replay:
            training = training + hesse.read_dataset(data / "replay.h5")
        result = hesse.train(training, None, options_of(scheme, split), output=folder, potential=potential, quiet=True)
        trained = result.potential
        assert isinstance(trained, hesse.Ani)
        potential = trained
    seconds = time.process_time() - started
    folder.mkdir(parents=True, exist_ok=True)
    hesse.save_model(folder / "judged.hesse", potential)
    write_errors(output, folder, potential, {"name": name, "split": split, "member": member, "scheme": asdict(scheme),
                                             "seconds": seconds})  # fmt: skip


def judge_ensemble(output: Path, name: str, split: int, members: Sequence[int]) -> None:
    """Judge the mean of the networks of several members, unless that is done."""
    folder = output / folder_name(f"{name}, mean of {len(members)}", split, members[0])
    if (folder / "errors.json").exists():
        return
    networks = [hesse.load_model(output / folder_name(name, split, member) / "judged.hesse") for member in members]
    record = {"name": f"{name}, mean of {len(members)}", "split": split, "member": list(members), "seconds": 0.0}
    write_errors(output, folder, hesse.Ensemble(networks), record)


def write_errors(output: Path, folder: Path, potential: hesse.Potential, record: Mapping[str, Any]) -> None:
    """Judge a potential on the unseen structures of a split and on ordinary molecules; print and keep the errors."""
    horm = hesse.read_dataset(output / "data" / "horm.h5")
    unseen = horm.select(by_formula(horm, record["split"])[1])
    ordinary = hesse.read_dataset(output / "data" / "ordinary.h5")
    record = {**record, "test": judge(potential, unseen), "ordinary": judge(potential, ordinary)}
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_json(folder / "errors.json", record)
    numbers = ", ".join(f"{k} {number(record, k):.3g}" for k in COLUMNS)
    print(f"{folder.name}: {record['seconds']:.0f} s, {numbers}", flush=True)


def atomic_write_json(path: Path, content: Any) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def number(record: Mapping[str, Any], key: str) -> float:
    """A number of a record, such as test/hessian."""
    section, name = key.split("/")
    value = record[section][name]
    return float("nan") if value is None else float(value)


def cell(values: Sequence[float]) -> str:
    """Mean, with the smallest and largest value."""
    finite = [v for v in values if np.isfinite(v)]
    if not finite:
        return ""
    mean = f"{np.mean(finite):.3g}"
    return mean if len(finite) == 1 else f"{mean} ({min(finite):.3g} to {max(finite):.3g})"


def tables(records: Sequence[Mapping[str, Any]]) -> str:
    """Tables of all schemes, in the order of `SCHEMES`, then by name."""
    order = list(SCHEMES)
    names = sorted({r["name"] for r in records}, key=lambda n: (order.index(n) if n in order else len(order), n))
    lines = []
    for title, columns in (
        ("Errors (RMSE)", COLUMNS),
        ("Frequencies of unseen structures (MAE, cm⁻¹)", {f"test/{k}": v for k, v in BANDS.items()}),
    ):
        lines += [f"### {title}", "", f"| scheme | runs | {' | '.join(columns.values())} |"]
        lines.append("|---" * (len(columns) + 2) + "|")
        for name in names:
            runs = [r for r in records if r["name"] == name]
            cells = [cell([number(r, key) for r in runs]) for key in columns]
            lines.append(f"| {name} | {len(runs)} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def write_tables(output: Path) -> None:
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(output.glob("*/errors.json"))]
    atomic_write_json(output / "results.json", records)
    with atomic_write(output / "tables.md") as temporary:
        temporary.write_text(tables(records), encoding="utf-8")


def parse_scheme(text: str) -> tuple[str, Scheme]:
    """A scheme of the command line."""
    name, is_new, content = text.partition("=")
    if not is_new:
        if name not in SCHEMES:
            raise SystemExit(f"no scheme {name!r}: choose from {', '.join(SCHEMES)}, or write NAME=JSON")
        return name, SCHEMES[name]
    return name, replace(Scheme(), **json.loads(content))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--ani", type=Path, help="state dict of ANI-1x")
    parser.add_argument("--horm", type=Path, help="horm_sample_dev.npz")
    parser.add_argument("--scheme", action="append", default=[], help="by default all")
    parser.add_argument("--split", type=int, action="append", default=[], help="by default 0, 1, 2")
    parser.add_argument("--member", type=int, action="append", default=[], help="of ANI-1x; by default 0")
    parser.add_argument("--tables", action="store_true", help="only write the tables of what was run")
    arguments = parser.parse_args()
    if not arguments.tables:
        if arguments.ani is None or arguments.horm is None:
            raise SystemExit("give --ani and --horm, the files of weights and structures")
        prepare(arguments.output / "data", arguments.ani, arguments.horm)
        chosen = dict(parse_scheme(text) for text in arguments.scheme) or dict(SCHEMES)
        members = arguments.member or [0]
        for split in arguments.split or (0, 1, 2):
            for name, scheme in chosen.items():
                for member in members:
                    fine_tune(arguments.output, name, scheme, split, member)
                    write_tables(arguments.output)
                if len(members) > 1:
                    judge_ensemble(arguments.output, name, split, members)
    write_tables(arguments.output)
    print((arguments.output / "tables.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
