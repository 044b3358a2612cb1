"""Training runs of a recipe: one after the other, or several at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hesse.errors import ExecutionError, InterruptedRunError
from hesse.runtime.parallel import map_tasks
from hesse.runtime.progress import track
from hesse.runtime.settings import validate_config
from hesse.runtime.signals import StoppedError, stop_signals
from hesse.training import RunConfig
from hesse.training.config_file import run_from_config

__all__ = ["train_run", "train_runs"]


def train_run(config: RunConfig, *, quiet: bool) -> dict[str, Any]:
    """Train one model, as `hesse train` does.

    Args:
        config: its configuration.
        quiet: no progress.

    Returns:
        Steps, the best step and seconds, as JSON values.

    Raises:
        HesseError: see `hesse.train`.
    """
    result = run_from_config(config, quiet=quiet)
    return {"steps": result.steps, "best_step": result.best_step, "seconds": result.seconds}


def train_runs(
    configs: Mapping[str, RunConfig], *, workers: int | None, scheduler: str | None, quiet: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Train models that do not need each other at the same time.

    Args:
        configs: their configurations, by name.
        workers: processes of one thread each on this machine.
        scheduler: a dask cluster instead.
        quiet: no progress.

    Yields:
        Name and results of each run, see `train_run`, in the order in which they finish.

    Raises:
        ExecutionError: a run failed; the others go on first, so that nothing is lost.
        InterruptedRunError: SIGINT or SIGTERM; the runs go on from their last checkpoints in the next call.
        ConfigError: both workers and a scheduler.
    """
    names = list(configs)
    tasks = [config.model_dump(mode="json") for config in configs.values()]
    failures = []
    done = map_tasks(make_trainer, None, tasks, workers=workers, scheduler=scheduler)
    with track("training runs", len(names), quiet=quiet) as advance:
        try:
            with stop_signals():
                for result in done:
                    name = names[result.index]
                    result.raise_if_interrupted()
                    advance(1, f"{name}: {'failed' if result.value is None else 'done'}")
                    if result.value is None:
                        failures.append(f"{name}: {result.error}")
                    else:
                        yield name, result.value
        except StoppedError:
            done.close()
            raise InterruptedRunError(
                f"stopped while {len(names)} runs were trained; the same command continues them from their last "
                "checkpoints"
            ) from None
    if failures:
        raise ExecutionError(f"{len(failures)} of {len(names)} training runs failed; {failures[0]}")


def make_trainer(_: None) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Function of a worker process, which trains one model after the other.

    Args:
        _: nothing.

    Returns:
        A function of the configuration as plain values, which returns the results.
    """
    return lambda config: train_run(validate_config(RunConfig, config, source="training run"), quiet=True)
