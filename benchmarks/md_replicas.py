"""Replicas of molecular dynamics together against one at a time: replicas x steps per second, and their ratio.

    python benchmarks/md_replicas.py MODEL.hesse [--steps 200] [--repeats 3]

One thread, process time, Langevin dynamics at 300 K of G2 molecules (mean 8 atoms), after a warm-up. "ASE" is ASE's
Langevin with `HesseCalculator` (which also compares each geometry with the training data), one replica after the other;
"alone" the own integrator with one replica at a time; the others are batches of that many replicas. All take turns, so
that a load of the machine meets each of them; the median counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from ase import Atoms, units
from ase.md.langevin import Langevin

from hesse import HesseCalculator, Structure, as_engine, g2_molecules, to_ase
from hesse.engines import Engine
from hesse.pes import ReplicaSettings
from hesse.pes.md_replicas import Replica, ReplicaRun, advance_replicas

NAMES = ("CH3CH2OH", "CH3CHO", "C3H8", "CH3CN", "HCOOCH3", "H3CNH2", "CH3NO2", "C2H4")


def replicas(count: int, molecules: Sequence[Structure], steps: int) -> tuple[list[ReplicaRun], ReplicaSettings]:
    """The replicas of one measurement."""
    settings = ReplicaSettings(temperature=300.0, time=steps * 0.5e-3, time_step=0.5, relax=False, stride=0)
    chosen = [molecules[k % len(molecules)] for k in range(count)]
    return [ReplicaRun.begin(Replica(m, k), settings) for k, m in enumerate(chosen)], settings


def own(engine: Engine, molecules: Sequence[Structure], count: int, steps: int, *, alone: bool = False) -> float:
    """Replica steps per second of the own integrator, process time."""
    runs, settings = replicas(count, molecules, steps)
    start = time.process_time()
    for group in [[run] for run in runs] if alone else [runs]:
        advance_replicas(group, engine, settings, on_finished=lambda run: None, max_atoms=10**6)
    return sum(run.step for run in runs) / (time.process_time() - start)


def with_ase(calculator: HesseCalculator, molecules: Sequence[Structure], count: int, steps: int) -> float:
    """Replica steps per second of ASE's integrator, process time."""
    atoms: list[Atoms] = [to_ase(molecules[k % len(molecules)]) for k in range(count)]
    start = time.process_time()
    for item in atoms:
        item.calc = calculator
        Langevin(item, 0.5 * units.fs, temperature_K=300, friction=0.01 / units.fs, fixcm=False).run(steps)
    return count * steps / (time.process_time() - start)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 4, 16, 64])
    options = parser.parse_args()
    torch.set_num_threads(1)
    engine = as_engine(options.model)
    calculator = HesseCalculator(options.model)
    known = {m.id: m for m in g2_molecules()}
    molecules = [known[name] for name in NAMES if name in known]
    steps, n_alone = options.steps, len(molecules)
    subjects: dict[str, Callable[[], float]] = {
        "ASE": lambda: with_ase(calculator, molecules, n_alone, steps),
        "alone": lambda: own(engine, molecules, n_alone, steps, alone=True),
        **{f"{n}": lambda n=n: own(engine, molecules, n, steps) for n in options.counts},  # type: ignore[misc]
    }
    own(engine, molecules, 2, 20)
    speeds: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(options.repeats):
        for name, measure in subjects.items():
            speeds[name].append(measure())
    base = statistics.median(speeds["ASE"])
    print("| replicas together | replica steps a second | against ASE one at a time |\n|---|---|---|")
    for name, values in speeds.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.0f} ({min(values):.0f} to {max(values):.0f}) | {median / base:.2f} |")


if __name__ == "__main__":
    main()
