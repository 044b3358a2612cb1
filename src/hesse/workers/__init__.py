"""Work spread over processes that may die, on this machine or on a cluster: a crash costs the task that caused it and
nothing else. Nothing here knows what the work is."""

from hesse.workers.cluster import address_of
from hesse.workers.outcome import Outcome
from hesse.workers.process import end_with
from hesse.workers.run import run_tasks

__all__ = ["Outcome", "address_of", "end_with", "run_tasks"]
