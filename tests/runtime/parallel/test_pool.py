"""Work in processes that may die: every task gets one outcome, whatever happens to its worker."""

from __future__ import annotations

import time

import pytest

import worker_tasks as tools
from hesse.errors import ConfigError, EngineError, ExecutionError
from hesse.runtime.parallel import map_tasks


def outcomes(tasks, **options):
    found = list(map_tasks(tools.doubling, 1, tasks, **options))
    assert sorted(o.index for o in found) == list(range(len(tasks)))
    return sorted(found, key=lambda o: o.index)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_task_is_answered_once(workers, capfd):
    tasks = list(range(13))
    assert [o.value for o in outcomes(tasks, workers=workers)] == [2 * t + 1 for t in tasks]
    if workers:
        assert capfd.readouterr().out == "", "what engines print must not reach the results"


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_are_outcomes(workers):
    found = outcomes([1, 13, 2, 14], workers=workers)
    assert [o.failed for o in found] == [False, True, False, True]
    assert found[1].error == "EngineError: unlucky"
    assert found[3].error == "unexpected KeyError: 'odd'"


def test_a_crash_costs_its_own_task_only():
    tasks = [*range(10), 66, *range(20, 30), 77, 30, 66]
    found = outcomes(tasks, workers=2)
    lost = [o.index for o in found if o.failed]
    assert [tasks[k] for k in lost] == [66, 77, 66]
    assert "SIGKILL" in found[10].error
    assert "exit code 5" in found[21].error
    assert all(o.value == 2 * tasks[o.index] + 1 for o in found if not o.failed)


def test_a_task_that_hangs_is_stopped():
    start = time.monotonic()
    found = outcomes([1, 88, 2, 3], workers=1, timeout=0.5)
    assert [o.failed for o in found] == [False, True, False, False]
    assert "timeout" in found[1].error
    assert time.monotonic() - start < 20


def test_what_is_wrong_for_all_tasks_is_raised():
    with pytest.raises(EngineError, match="no such engine"):
        list(map_tasks(tools.refuses, 0, [1, 2], workers=1))
    with pytest.raises(ExecutionError, match=r"could not start.*exit code 9"):
        list(map_tasks(tools.dies, 0, [1, 2], workers=2))
    with pytest.raises(ConfigError, match="workers"):
        list(map_tasks(tools.doubling, 0, [1], workers=-1))


def test_workers_run_one_thread_each_and_no_task_needs_none():
    assert [o.value for o in map_tasks(tools.threads, None, [0], workers=1)] == ["1"]
    assert list(map_tasks(tools.refuses, 0, [], workers=2)) == []


def test_an_answer_that_cannot_leave_its_process_is_a_failure():
    (found,) = map_tasks(tools.returns_code, None, [1], workers=1)
    assert "cannot leave the worker process" in found.error
