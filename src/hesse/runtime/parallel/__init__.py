"""Independent tasks in several processes, here or on a cluster. A crash costs only the task that caused it."""

from hesse.runtime.parallel.dask import scheduler_address
from hesse.runtime.parallel.pool import TaskResult, exit_with_parent
from hesse.runtime.parallel.tasks import map_tasks

__all__ = ["TaskResult", "exit_with_parent", "map_tasks", "scheduler_address"]
