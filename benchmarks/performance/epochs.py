"""Seconds per epoch of the training published with Projected Hessian Learning, on any device.

    python benchmarks/performance/epochs.py --device cuda --json epochs.json     (under 8 minutes)
    python benchmarks/performance/epochs.py --scale 0.01                          (on a laptop)

28,069 structures of H, C, N, O, median 14 atoms, batches of 400, an ANI network: arXiv 2603.04523 reports 4 s (E-F),
13.3 s (E-F-HVP) and 326.5 s (E-F-H) per epoch, in float64 on an NVIDIA A6000. The structures here are random molecules
of the same sizes with random labels, which take the same time. Every epoch is one of `hesse.train`, including the data
path and the training log. An epoch that would take longer than its share of the time is extrapolated from fewer steps,
and marked; E-F-H uses smaller batches if the memory of the device is too small. At the end, a profile of single steps.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from syncs import HostSyncs

import hesse
from hesse.bench import untrained_network
from hesse.bench.cases import SCHEME_WEIGHTS, HesseCase, StepSpec
from hesse.bench.named_potentials import parse_network_config
from hesse.bench.timing import silence_profiler
from hesse.bench.workloads import random_molecules, with_random_labels
from hesse.datasets import Dataset
from hesse.structures import Structure
from hesse.training import TrainConfig, read_log

STRUCTURES, BATCH = 28_069, 400
PUBLISHED = {"ef": 4.0, "ef_hvp": 13.3, "ef_h": 326.5}
"""Seconds of an epoch, float64, A6000."""
UNCOUNTED = 3
"""Steps at the start of a run that are not timed, because they include setup."""
FEW = UNCOUNTED + 2
"""Steps of the first run, which estimates the time of a step."""


@dataclass(frozen=True)
class Epoch:
    """One measurement.

    Attributes:
        scheme, dtype, mode, device: labels in the loss, floating-point type, eager or compiled, device.
        structures, batch: structures of the epoch and of a step.
        steps, timed_steps: steps of the whole epoch, and steps that were timed.
        seconds: time of an epoch.
        extrapolated: whether fewer steps than those of an epoch were timed.
        published: seconds per epoch on the A6000 in float64.
        peak_mib: peak memory of the device's allocator, MiB; None on a CPU.
    """

    scheme: str
    dtype: str
    mode: str
    device: str
    structures: int
    batch: int
    steps: int
    timed_steps: int
    seconds: float
    extrapolated: bool
    published: float
    peak_mib: float | None


def sizes(count: int) -> list[int]:
    """Atoms of each molecule: median 14, most between 8 and 20."""
    drawn = np.random.default_rng(0).normal(14.0, 3.0, size=count)
    return np.clip(np.round(drawn), 4, 26).astype(int).tolist()


def configured(kind: str, scheme: str, dtype: str, device: str, batch: int, steps: int, compile: str) -> TrainConfig:
    """Configuration of the run."""
    settings = {
        "model": parse_network_config(kind),
        "weights": dict(SCHEME_WEIGHTS[scheme]),
        "batch": {"structures": batch, "atoms": 10**7},
        "steps": steps,
        "checkpoint_every": 10**6,
        "optimizer": {"learning_rate": 1e-5},
        "dtype": dtype,
        "device": device,
        "compile": compile,
    }
    return TrainConfig.model_validate(settings)


def seconds_a_step(data: Dataset, config: TrainConfig) -> float:
    """Mean over the steps of a run, without the first."""
    with tempfile.TemporaryDirectory() as folder:
        hesse.train(data, config=config, output=folder, quiet=True)
        rows = [row for row in read_log(Path(folder) / "metrics.jsonl") if row["kind"] == "train"]
    ends = [row["seconds"] for row in rows]
    return (ends[-1] - ends[UNCOUNTED - 1]) / (len(ends) - UNCOUNTED)


def epoch_time(
    structures: list[Structure], n_structures: int, scheme: str, dtype: str, compile: str, options: Any, share: float
) -> Epoch:
    """Time of an epoch in one scheme and floating-point type, measured in about `share` seconds."""
    device, batch = options.device, min(options.batch, len(structures))
    if device != "cpu":
        torch.accelerator.reset_peak_memory_stats()
    while True:
        needed = structures[: 4 * batch] if scheme == "ef_h" else structures  # Hessians are large
        data = with_random_labels(needed, probes=0 if scheme == "ef_h" else 1, hessian=scheme == "ef_h")
        try:
            few = seconds_a_step(data, configured(options.kind, scheme, dtype, device, batch, FEW, compile))
            break
        except torch.OutOfMemoryError:
            if batch <= 8:
                raise
            batch //= 2
            torch.accelerator.empty_cache()
    steps = math.ceil(n_structures / batch)
    timed, step = FEW, few
    if share > FEW * few:
        timed = min(steps + UNCOUNTED, int(share / few))
        step = seconds_a_step(data, configured(options.kind, scheme, dtype, device, batch, timed, compile))
    peak = None if device == "cpu" else torch.accelerator.max_memory_allocated() / 2**20
    return Epoch(
        scheme=scheme,
        dtype=dtype,
        mode="eager" if compile == "never" else "compiled",
        device=device if device == "cpu" else torch.cuda.get_device_name(),
        structures=n_structures,
        batch=batch,
        steps=steps,
        timed_steps=timed - UNCOUNTED,
        seconds=step * steps,
        extrapolated=timed - UNCOUNTED < steps,
        published=PUBLISHED[scheme],
        peak_mib=peak,
    )


def print_table(epochs: list[Epoch]) -> None:
    """Print the table."""
    print("| loss of | type | mode | batch | epoch, s | published, s | ms a step | peak, MiB | timed |")
    print("|---|---|---|---:|---:|---:|---:|---:|---|")
    for e in epochs:
        timed = f"{e.timed_steps} of {e.steps} steps, extrapolated" if e.extrapolated else "whole epoch"
        published = f"{e.published:g}" if e.dtype == "float64" else "–"
        peak = "–" if e.peak_mib is None else f"{e.peak_mib:.0f}"
        print(
            f"| {e.scheme} | {e.dtype} | {e.mode} | {e.batch} | {e.seconds:.3g} | {published} | "
            f"{1e3 * e.seconds / e.steps:.3g} | {peak} | {timed} |"
        )


def profile(structures: list[Structure], options: Any) -> None:
    """Top operators, kernel launches and host syncs of single steps in float32."""
    device = torch.device(options.device)
    silence_profiler()
    data = with_random_labels(structures[: options.batch])
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    elements = sorted({int(z) for s in structures[: options.batch] for z in s.numbers})
    subject = HesseCase(options.kind, untrained_network(options.kind, elements))
    for scheme in ("ef", "ef_hvp"):
        work = subject.make_step(StepSpec(data, scheme, device=device))
        work()
        with HostSyncs() as syncs:
            work()
        waits = statistics.median(_call_seconds(work, device) for _ in range(3))
        with torch.profiler.profile(activities=activities) as profiled:
            work()
            _wait(device)
        events = profiled.key_averages()
        launches = sum(e.count for e in events if "LaunchKernel" in e.key)
        stops = {e.key: e.count for e in events if "Synchronize" in e.key or e.key.startswith("cudaMemcpy")}
        print(
            f"\n{scheme}, float32, {len(data)} structures, batch ready: {1e3 * waits:.1f} ms, {syncs.operations} "
            f"operations, {launches} kernel launches, {syncs.waits.total()} host syncs, {stops}"
        )
        for location, count in syncs.waits.most_common():
            print(f"    {count}  {location}")
        order = "self_cpu_time_total" if device.type == "cpu" else "self_device_time_total"
        print(events.table(sort_by=order, row_limit=12, max_name_column_width=60))


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def _call_seconds(work: Any, device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def main() -> None:
    """All measurements, then the profile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--kind", default="ani", help="network, with options as in hesse bench step")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the 28,069 structures")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--minutes", type=float, default=7.0, help="for everything except setup")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"], choices=["float32", "float64"])
    parser.add_argument("--no-compile", action="store_true", help="eager steps only")
    parser.add_argument("--no-profile", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    started = time.perf_counter()
    structures = random_molecules(sizes(max(1, round(options.scale * STRUCTURES))))
    middle = statistics.median(len(s) for s in structures)
    print(f"{len(structures)} structures, median {middle:g} atoms, created in {time.perf_counter() - started:.0f} s")
    measurements = [(scheme, dtype, "never") for dtype in options.dtypes for scheme in PUBLISHED]
    if not options.no_compile:
        measurements += [(scheme, options.dtypes[0], "always") for scheme in ("ef", "ef_hvp")]
    epochs: list[Epoch] = []
    for k, (scheme, dtype, compile) in enumerate(measurements):
        left = 60.0 * options.minutes - (time.perf_counter() - started)
        if left <= 0:
            print("no time left for", *(", ".join(one) for one in measurements[k:]), sep="\n    ")
            break
        share = left / (len(measurements) - k)
        print(f"{scheme}, {dtype}, {'compiled' if compile == 'always' else 'eager'}: {share:.0f} s", flush=True)
        # Half of it, because labels, untimed steps and compilation take time too.
        epochs.append(epoch_time(structures, len(structures), scheme, dtype, compile, options, max(share / 2, 1.0)))
    print_table(epochs)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(e) for e in epochs], indent=1) + "\n", encoding="utf-8")
    if not options.no_profile:
        profile(structures, options)
    print(f"\n{(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
