"""A complete run on large periodic cells: label with a teacher, write, read, check, train on Hessian-vector products.

    python benchmarks/performance/large_cells.py --atoms 1000 --kind hessenet

Four cells of rock salt MgO with atoms displaced at random; energies, forces and one Hessian-vector product each from a
teacher (a network of the same kind with other random weights). Prints the time of each stage and the largest resident
memory of the process so far, then the training losses.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import hesse
from hesse.bench import untrained_network
from hesse.bench.named_potentials import parse_network_config
from hesse.bench.workloads import rocksalt_cell
from hesse.curvature import evaluate
from hesse.datasets import Dataset, read_dataset, write_dataset
from hesse.probes import ProbeSeed, make_probe
from hesse.structures import Properties, Request, Structure, collate
from hesse.training import BatchConfig, OptimizerConfig, ScheduleConfig, read_log

CELLS = 4


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Print the time of the stage, and the maximum resident memory of the process so far."""
    start = time.perf_counter()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:<28} {time.perf_counter() - start:8.1f} s   resident at most {peak:8.0f} MiB", flush=True)


def labeled(structure: Structure, teacher: hesse.Potential) -> Properties:
    """Labels by the teacher, with the product along one Rademacher probe."""
    batch = collate([structure], teacher.cutoff)
    probes = make_probe("rademacher", 1).draw(batch, ProbeSeed(0))
    return evaluate(teacher, batch, Request(forces=True, probes=probes)).to("cpu", torch.float64)


def main() -> None:
    """Run all stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, default=1000)
    parser.add_argument("--kind", default="hessenet", help="network of teacher and student, as in hesse bench step")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        with stage("cells"):
            cells = [rocksalt_cell(options.atoms, seed=k) for k in range(CELLS)]
            cells = [cell.with_positions(cell.positions, id=f"cell-{k}") for k, cell in enumerate(cells)]
        print(f"{CELLS} cells of {len(cells[0])} atoms")
        with stage("labels of the teacher"):
            teacher = untrained_network(options.kind, (8, 12), seed=1)
            data = Dataset.from_pairs([(cell, labeled(cell, teacher)) for cell in cells], level="teacher")
        file = Path(folder) / "cells.h5"
        with stage("writing"):
            write_dataset(file, data)
        print(f"{file.name}: {file.stat().st_size / 2**20:.1f} MiB")
        with stage("reading and checking"):
            data = read_dataset(file)
        config = hesse.TrainConfig(
            model=parse_network_config(options.kind),
            steps=options.steps,
            batch=BatchConfig(structures=1, atoms=10**6),
            optimizer=OptimizerConfig(learning_rate=3e-4),
            schedule=ScheduleConfig(warmup=2),
            validate_every=options.steps,
            cpu_threads=options.threads,
        )
        with stage(f"{options.steps} steps, E-F-HVP"):
            hesse.train(data.select([0, 1, 2]), data.select([3]), config, output=Path(folder) / "run", quiet=True)
        rows = [row for row in read_log(Path(folder) / "run" / "metrics.jsonl") if row["kind"] == "train"]
        print("losses", *(f"{row['loss']:.4g}" for row in rows))
        spent = [b["seconds"] - a["seconds"] for a, b in itertools.pairwise(rows)]
        print(f"seconds per step: {sorted(spent)[len(spent) // 2]:.2f}")


if __name__ == "__main__":
    main()
