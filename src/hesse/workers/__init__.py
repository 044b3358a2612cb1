"""Work spread over processes that may die, on this machine or on a cluster: a crash costs the task that caused it and
nothing else. Nothing here knows what the work is."""

from hesse.workers.cluster import scheduler_address
from hesse.workers.outcome import TaskResult
from hesse.workers.process import exit_with_parent
from hesse.workers.run import map_tasks

__all__ = ["TaskResult", "scheduler_address", "exit_with_parent", "map_tasks"]
