"""What a training step costs when several processes share it.

    python benchmarks/processes.py --kind hipnn
    torchrun --standalone --nproc-per-node 2 benchmarks/processes.py --kind hipnn

The step is that of `hesse train`: deal out, fetch, energies, forces and one H v per structure, loss, gradients, sums
over processes; no optimiser. Molecules of 8 to 14 atoms with random labels, float32. Each process has one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from hesse.models import build_model
from hesse.recipes.timing import timed
from hesse.recipes.workloads import labelled_at_random, molecules_between
from hesse.training import TrainConfig
from hesse.training.feed import Feed
from hesse.training.processes import Processes, joined
from hesse.training.shared_step import SharedStep
from hesse.training.step import GradientStep


class _Timed(Processes):
    """Processes that look at the clock while they talk."""

    def __init__(self, real: Processes) -> None:
        super().__init__(real.place, group=real.group, store=real.store)
        self.talking = 0.0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        begin = time.perf_counter()
        answer = super().sum(values)
        self.talking += time.perf_counter() - begin
        return answer


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--kind", default="hipnn", choices=["hipnn", "ani", "equivariant"])
    options.add_argument("--structures", type=int, default=64)
    options.add_argument("--steps", type=int, default=15)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    config = TrainConfig.model_validate(
        {"model": {"kind": chosen.kind}, "batch": {"structures": chosen.structures, "atoms": 10**6}}
    )
    data = labelled_at_random(molecules_between(8, 14, chosen.structures))
    torch.manual_seed(0)
    model = build_model(config.model, data.elements, None)
    feed = Feed(data, config, model.cutoff)
    weights, sizes = config.weights.model_dump(), data.n_atoms.tolist()
    with joined("cpu") as job:
        processes = _Timed(job)
        shared = SharedStep(GradientStep(model), processes)

        def step(number: int) -> None:
            model.zero_grad(set_to_none=True)
            (whole,) = feed.epoch(number)
            shared(feed.fetch(processes.share(whole, sizes), number, whole), weights)

        for number in range(3):
            step(number)
        processes.talking = 0.0
        walls, works = [], []
        for number in range(chosen.steps):
            wall, work, _ = timed(lambda number=number: step(number), torch.device("cpu"))
            walls.append(1e3 * wall)
            works.append(1e3 * work)
        mine = statistics.median(works)
        total = processes.sum_named({"work": mine})["work"]
        slowest = processes.largest(round(1e3 * mine)) / 1e3
        if processes.first:
            waits = 1e3 * processes.talking / chosen.steps
            print(f"{chosen.kind}, {chosen.structures} structures, {processes.size} processes; ms a step:")
            print(
                f"  wall {statistics.median(walls):.1f}, at best {min(walls):.1f}; in sums, with waiting, {waits:.1f}"
            )
            print(f"  processor time of the busiest process {slowest:.1f}, of all {total:.1f}")


if __name__ == "__main__":
    main()
