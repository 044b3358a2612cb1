"""Cost of a training step that several processes share.

    python benchmarks/distributed_step.py --kind hipnn
    torchrun --standalone --nproc-per-node 2 benchmarks/distributed_step.py --kind hipnn

The step is that of `hesse train` without the optimizer: distribution of structures, batch, energies, forces and one
H v per structure, loss, gradients, sums over processes. Molecules of 8 to 14 atoms with random labels, float32. Each
process has one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from hesse.bench.timing import time_once
from hesse.bench.workloads import random_molecules_in_range, with_random_labels
from hesse.models import build_model
from hesse.training import TrainConfig
from hesse.training.distributed import Communicator, init_distributed
from hesse.training.loader import TrainingLoader
from hesse.training.step import LossAndGradient


class _TimedCommunicator(Communicator):
    """A communicator that measures the time of its sums."""

    def __init__(self, real: Communicator) -> None:
        super().__init__(real.rank_info, group=real.group, store=real.store)
        self.sum_seconds = 0.0

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        begin = time.perf_counter()
        result = super().all_reduce_sum(values)
        self.sum_seconds += time.perf_counter() - begin
        return result


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--kind", default="hipnn", choices=["hipnn", "ani", "hessenet"])
    options.add_argument("--structures", type=int, default=64)
    options.add_argument("--steps", type=int, default=15)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    config = TrainConfig.model_validate(
        {"model": {"kind": arguments.kind}, "batch": {"structures": arguments.structures, "atoms": 10**6}}
    )
    data = with_random_labels(random_molecules_in_range(8, 14, arguments.structures))
    torch.manual_seed(0)
    model = build_model(config.model, data.elements, None)
    loss = config.make_loss()
    with init_distributed("cpu") as job:
        communicator = _TimedCommunicator(job)
        loader = TrainingLoader(data, config, model.cutoff, communicator)
        shared = LossAndGradient(model, loss, communicator=communicator)

        def step(number: int) -> None:
            model.zero_grad(set_to_none=True)
            (indices,) = loader.epoch(number)
            shared(loader.load(indices, number), loss.weights())

        for number in range(3):
            step(number)
        communicator.sum_seconds = 0.0
        walls, works = [], []
        for number in range(arguments.steps):
            wall, work, _ = time_once(lambda number=number: step(number), torch.device("cpu"))
            walls.append(1e3 * wall)
            works.append(1e3 * work)
        own = statistics.median(works)
        total = communicator.all_reduce_sum_dict({"work": own})["work"]
        slowest = communicator.all_reduce_max(round(1e3 * own)) / 1e3
        if communicator.is_rank_zero:
            waits = 1e3 * communicator.sum_seconds / arguments.steps
            print(f"{arguments.kind}, {arguments.structures} structures, {communicator.size} processes; ms per step:")
            print(f"  wall {statistics.median(walls):.1f}, shortest {min(walls):.1f}; sums with waiting {waits:.1f}")
            print(f"  processor time of the busiest process {slowest:.1f}, of all {total:.1f}")


if __name__ == "__main__":
    main()
