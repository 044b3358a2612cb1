"""Work spread over processes that may die, on this machine or on a cluster: a crash costs the task that caused it and
nothing else. Nothing here knows what the work is."""

from hesse.runtime.parallel.dask import scheduler_address
from hesse.runtime.parallel.pool import TaskResult, exit_with_parent
from hesse.runtime.parallel.tasks import map_tasks

__all__ = ["TaskResult", "exit_with_parent", "map_tasks", "scheduler_address"]
