"""The share of a training step that its batch takes, and the time saved by batches of similar sizes.

    python benchmarks/data_path.py                                 # tiny committed data
    python benchmarks/data_path.py DATA.h5 --batch 16 64 --steps 30 --json rows.json

For each network, labels (E-F, E-F-HVP) and batch size: seconds of processor time (on an accelerator: wall time between
points where it has finished) for the batch and for the whole step without the optimizer, as medians over steps. "plain"
is the batch as `Dataset.batch` makes it: all labels, indexed in float64 on the host, then converted and sent. The
bucketed step is the mean over an epoch's worth of batches of similar sizes, taken in turns with batches of any size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hesse.datasets import Dataset, read_dataset
from hesse.runtime.filesystem import atomic_write_text
from hesse.training import TrainConfig
from hesse.training.compiled_step import CompiledLossAndGradient
from hesse.training.initial_model import build_initial_potential
from hesse.training.loader import TrainingLoader
from hesse.training.step import LossAndGradient

TINY = Path(__file__).parent / "reactions" / "tiny" / "rtp-train.h5"
SCHEMES = {"E-F": 0.0, "E-F-HVP": 0.15}


def seconds(work: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Seconds of one call of `work`, and its result."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    start = clock()
    result = work()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return clock() - start, result


def measured(
    data: Dataset, kind: str, hvp: float, structures: int, steps: int, window: int, device: str, mode: str
) -> dict[str, Any]:
    """One row of the table."""

    def options(bucketing: int | None) -> TrainConfig:
        batch = {"structures": structures, "atoms": 10**6, "size_window": bucketing}
        content = {"model": {"kind": kind}, "weights": {"hvp": hvp}, "batch": batch, "device": device}
        return TrainConfig.model_validate(content)

    plain_options = options(None)
    model = build_initial_potential(plain_options, data, None)
    loss = plain_options.make_loss()
    weights = loss.weights()
    compiled = CompiledLossAndGradient(model, loss) if mode == "compiled" else None
    gradient = LossAndGradient(model, loss, compiled=compiled)
    dtype = getattr(torch, plain_options.dtype)
    times: dict[str, list[float]] = {name: [] for name in ("plain", "batch", "step", "bucketed")}
    feeds = {
        "step": TrainingLoader(data, plain_options, model.cutoff),
        "bucketed": TrainingLoader(data, options(window), model.cutoff),
    }
    for number in range(-2, steps):  # two rounds of warm-up
        for name, feed in feeds.items():
            epoch = feed.epoch(max(number, 0) // len(feed.epoch(0)))
            indices = epoch[number % len(epoch)]
            fetching, parts = seconds(partial(feed.load, indices, max(number, 0)), device)
            working, _ = seconds(partial(gradient, parts, weights), device)
            model.zero_grad(set_to_none=True)
            if number >= 0:
                times[name].append(fetching + working)
                times["batch"] += [fetching] if name == "step" else []
            if number >= 0 and name == "step":
                convert = partial(data.batch, indices, model.cutoff, dtype=dtype, device=device)
                converting, _ = seconds(convert, device)
                times["plain"].append(converting)
    batch, step = statistics.median(times["batch"]), statistics.median(times["step"])
    return {
        "model": kind,
        "scheme": next(name for name, value in SCHEMES.items() if value == hvp),
        "mode": mode,
        "structures": structures,
        "device": device,
        "plain_ms": 1e3 * statistics.median(times["plain"]),
        "batch_ms": 1e3 * batch,
        "step_ms": 1e3 * step,
        "share": batch / step,
        "bucketed_step": statistics.mean(times["bucketed"]) / statistics.mean(times["step"]),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| model | labels | structures | batch, plain (ms) | batch (ms) | step (ms) | share | bucketed step / step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['model']} | {r['scheme']} | {r['structures']} | {r['plain_ms']:.2f} | {r['batch_ms']:.2f} | "
        f"{r['step_ms']:.1f} | {100 * r['share']:.1f} % | {r['bucketed_step']:.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write the rows to a file if requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=TINY)
    parser.add_argument("--batch", type=int, nargs="+", default=[16])
    parser.add_argument("--model", nargs="+", default=["hipnn", "ani", "hessenet"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--window", type=int, default=32, help="batches sorted together")
    parser.add_argument("--mode", choices=["eager", "compiled"], default="eager")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    data = read_dataset(options.data)
    rows = [
        measured(data, kind, hvp, structures, options.steps, options.window, options.device, options.mode)
        for kind in options.model
        for structures in options.batch
        for hvp in SCHEMES.values()
    ]
    print(table(rows))
    if options.json is not None:
        atomic_write_text(options.json, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
