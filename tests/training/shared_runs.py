"""Runs for tests with several processes. As a script, started in each process, it does all of `RUNS`; imported, it
provides the same runs for a single process."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_run import ORACLE, config, training_data, validation_data

from hesse.datasets import Dataset, StreamingDataset, open_dataset, write_dataset
from hesse.errors import HesseError
from hesse.potential import Potential
from hesse.smooth import masked_norm, smooth_cutoff
from hesse.structures import Batch, Properties
from hesse.training import TrainResult, train, trainer
from hesse.training.distributed import Communicator, init_distributed
from oracles import labeled, molecules

RUNS: dict[str, dict[str, Any]] = {
    # Ten structures in batches of three: the last step of an epoch has one structure, and one process has none.
    "mixed labels": {},
    "float32": {"dtype": "float32"},
    "clipped, plateau": {
        "optimizer": {"max_grad_norm": 0.05},
        "schedule": {"kind": "plateau", "patience": 0, "factor": 0.7},
        "validate_every": 2,
    },
    "early stopping": {"early_stopping": 1, "optimizer": {"learning_rate": 0.2}, "validate_every": 2, "steps": 40},
    "no average": {"optimizer": {"ema_decay": None, "max_grad_norm": None}, "batch": {"structures": 1}},
    "fresh probes, part of the curvature": {
        "probe": {"source": "fresh", "n_probes": 2, "kind": "gaussian"},
        "curvature": {"fraction": 0.5, "every_n_steps": 2},
        "batch": {"structures": 5},
    },
    "full Hessians, penalty": {
        "weights": {"hvp": 0.0, "hessian": 0.2, "regularizer": 0.1},
        "batch": {"structures": 9, "atoms": 12},
    },
    # The roots of means over all structures: means and gradients of the processes do not simply add up.
    "roots, balanced": {
        "loss": [
            {"quantity": "energy", "form": "rmse"},
            {"quantity": "forces", "form": "rmse", "normalization": "components"},
            {"quantity": "forces", "form": "huber", "delta": 0.1, "name": "forces_huber"},
            {"quantity": "hvp", "form": "mae", "weight": 0.1, "mass_weighted": True},
        ],
        "weights": "balance",
    },
    "curvature only": {"weights": {"energy": 0, "forces": 0, "hvp": 1}, "batch": {"structures": 2}},
    "custom potential": {"custom": True},
}
"""Options that differ from those in tiny_run.py."""
STREAMED: dict[str, Any] = {"memory_mib": 0.12, "batch": {"structures": 3}, "steps": 40}


class CustomPotential(Potential):
    """A potential with a parameter that only some batches depend on, an unused one, and a running statistic."""

    cutoff = 4.0

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(0.1, 0.4, 8, dtype=torch.float64))
        self.of_oxygen = torch.nn.Parameter(torch.tensor([[0.3, 0.1], [0.2, 0.5]], dtype=torch.float64))
        self.idle = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch) -> torch.Tensor:
        if self.training:
            self.calls += 1
        r = masked_norm(batch.neighbor_vectors(), batch.neighbor_mask, fill=self.cutoff)
        bells = torch.exp(-3.0 * (r[..., None] - torch.linspace(0.7, 3.5, 8, dtype=r.dtype)).square())
        energies = ((bells @ self.weight) * smooth_cutoff(r, self.cutoff) * batch.neighbor_mask).sum(-1)
        oxygen = batch.numbers == 8
        if bool(oxygen.any()):
            more = (bells[..., :2] @ self.of_oxygen).square().sum(-1) * smooth_cutoff(r, self.cutoff)
            energies = energies + (more * batch.neighbor_mask).sum(-1) * oxygen
        return energies


def mixed_data() -> Dataset:
    """The data of tiny_run.py, some structures without energies and some without forces."""
    data = training_data()
    labels = data.labels
    no_energy = torch.arange(len(data)) % 4 == 1
    no_forces = torch.arange(len(data)) % 3 == 2
    assert labels.energy is not None
    assert labels.forces is not None
    atoms = torch.repeat_interleave(no_forces, labels.n_atoms)
    changed: Properties = labels.replace(
        energy=torch.where(no_energy, torch.nan, labels.energy),
        energy_mask=~no_energy,
        forces=torch.where(atoms[:, None], torch.nan, labels.forces),
        forces_mask=~no_forces,
    )
    return Dataset(data.structures, changed, metadata=data.metadata)


def one_run(folder: Path, name: str, processes: Communicator | None = None) -> TrainResult:
    changes = {"steps": 12, **({**RUNS, "streamed": STREAMED}[name])}
    potential = CustomPotential() if changes.pop("custom", False) else None
    limit = changes.pop("memory_mib", None)
    data = mixed_data() if limit is None else streamed(folder, limit, processes or Communicator())
    return train(
        data,
        validation_data(),
        config(**changes),
        output=folder,
        potential=potential,
        quiet=True,
        communicator=processes,
    )


def streamed(folder: Path, limit: float, processes: Communicator) -> StreamingDataset:
    """Structures of a file that is larger than `limit` MiB: written once, read by every process."""
    path = folder.parent / f"{folder.name}.h5"
    processes.run_on_rank_zero(
        lambda: write_dataset(path, labeled(ORACLE, molecules([2 + k % 5 for k in range(90)], seed=4)))
    )
    data = open_dataset(path, memory_mib=limit)
    assert isinstance(data, StreamingDataset)
    return data


def weights_of(result: TrainResult) -> list[float]:
    return torch.cat([p.detach().double().reshape(-1) for p in result.potential.parameters()]).tolist()


def shared_run(folder: Path) -> None:
    """All runs, then all operations of the communicator; each process writes its results to its own file."""
    seen: dict[str, Any] = {}
    with init_distributed("cpu") as processes:
        for name in RUNS:
            result = one_run(folder / name, name, processes)
            seen[name] = {"weights": weights_of(result), "scores": dict(result.scores), "steps": result.steps}
        seen["words"] = _communicator_results(processes)
        seen["interrupted"] = _interrupted(folder / "interrupted", processes)
        seen["refused"] = _refused(folder / "refused", processes)
        (folder / f"seen-{processes.rank}.json").write_text(json.dumps(seen))


def streamed_run(folder: Path) -> None:
    """The run with streamed data."""
    with init_distributed("cpu") as processes:
        weights = weights_of(one_run(folder / "streamed", "streamed", processes))
        (folder / f"seen-{processes.rank}.json").write_text(json.dumps(weights))


def _communicator_results(processes: Communicator) -> dict[str, Any]:
    rank = processes.rank
    flags = torch.tensor([rank == 0, True])
    numbers = torch.full((3,), float(rank))
    processes.broadcast([flags, numbers])
    return {
        "sum": processes.all_reduce_sum(torch.tensor([rank + 1, 10])).tolist(),
        "named": processes.all_reduce_sum_dict({"both": 1.5, f"only {rank}": 2.0}),
        "largest": processes.all_reduce_max(5 - rank),
        "first": processes.run_on_rank_zero(lambda: f"from {rank}"),
        "copied": [flags.tolist(), numbers.tolist()],
        "share": processes.partition([3, 0, 2, 1], [10, 1, 1, 8]),
    }


def _interrupted(folder: Path, processes: Communicator) -> list[Any]:
    """Two processes until the second gets a signal; the first alone until it gets one; two to the end. Returns the
    messages and the final parameters."""
    messages = [_stopped(folder, processes, step=5, by=1)]
    if processes.is_rank_zero:
        messages.append(_stopped(folder, Communicator(), step=8, by=0))
    processes.check_equal(0, "the second process waits here for the first")
    return [messages, weights_of(one_run(folder, "mixed labels", processes))]


def _stopped(folder: Path, processes: Communicator, *, step: int, by: int) -> str:
    original = trainer.Trainer._step

    def signalled(self: Any) -> Any:
        if self.state.step == step and processes.rank == by:
            signal.raise_signal(signal.SIGTERM)
        return original(self)

    trainer.Trainer._step = signalled  # type: ignore[method-assign]
    try:
        one_run(folder, "mixed labels", processes)
    except HesseError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        trainer.Trainer._step = original  # type: ignore[method-assign]
    return "not stopped"


def _refused(folder: Path, processes: Communicator) -> list[str]:
    """Errors of all processes for an invalid request, and for an error of the first process."""
    messages = []
    (folder / "model.hesse").mkdir(parents=True, exist_ok=True)  # in the way of the first process
    attempts = [
        lambda: one_run(folder, "mixed labels", processes),
        lambda: train(
            mixed_data(), None, config(seed=processes.rank), output=folder / "other", quiet=True, communicator=processes
        ),
    ]
    for attempt in attempts:
        try:
            attempt()
        except HesseError as error:
            messages.append(f"{type(error).__name__}: {error}")
    return messages


if __name__ == "__main__":
    torch.set_num_threads(1)
    (streamed_run if "streamed" in sys.argv[2:] else shared_run)(Path(sys.argv[1]))
