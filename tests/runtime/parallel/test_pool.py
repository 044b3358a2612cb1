"""Tasks in worker processes: every task has one result, whatever happens to its worker."""

from __future__ import annotations

import sys
import time

import pytest

import worker_tasks as tools
from hesse.errors import ConfigError, EngineError, ExecutionError
from hesse.runtime.parallel import map_tasks


def outcomes(tasks, **options):
    results = list(map_tasks(tools.doubling, 1, tasks, **options))
    assert sorted(o.index for o in results) == list(range(len(tasks)))
    return sorted(results, key=lambda o: o.index)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_task_has_one_result(workers, capfd):
    tasks = list(range(13))
    assert [o.value for o in outcomes(tasks, workers=workers)] == [2 * t + 1 for t in tasks]
    if workers:
        assert capfd.readouterr().out == "", "prints of engines must not reach standard output"


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_are_results(workers):
    results = outcomes([1, 13, 2, 14], workers=workers)
    assert [o.failed for o in results] == [False, True, False, True]
    assert results[1].error == "EngineError: unlucky"
    assert results[3].error == "unexpected KeyError: 'odd'"


def test_a_crash_fails_only_its_own_task():
    tasks = [*range(10), 66, *range(20, 30), 77, 30, 66]
    results = outcomes(tasks, workers=2)
    lost = [o.index for o in results if o.failed]
    assert [tasks[k] for k in lost] == [66, 77, 66]
    assert "SIGKILL" in results[10].error
    assert "exit code 5" in results[21].error
    assert all(o.value == 2 * tasks[o.index] + 1 for o in results if not o.failed)


def test_a_crash_in_the_middle_of_a_message_fails_only_its_own_task():
    results = list(map_tasks(tools.dies_while_sending, 2, range(6), workers=2))
    assert sorted(o.index for o in results) == list(range(6))
    assert [(o.index, "SIGKILL" in o.error) for o in results if o.failed] == [(2, True)]


def test_a_task_that_hangs_is_stopped():
    start = time.monotonic()
    results = outcomes([1, 88, 2, 3], workers=1, timeout=0.5)
    assert [o.failed for o in results] == [False, True, False, False]
    assert "timeout" in results[1].error
    assert time.monotonic() - start < 20


def test_an_error_in_make_worker_is_raised():
    with pytest.raises(EngineError, match="no such engine"):
        list(map_tasks(tools.refuses, 0, [1, 2], workers=1))
    with pytest.raises(ExecutionError, match=r"could not start.*exit code 9"):
        list(map_tasks(tools.dies, 0, [1, 2], workers=2))
    with pytest.raises(ConfigError, match="workers"):
        list(map_tasks(tools.doubling, 0, [1], workers=-1))


def test_workers_run_one_thread_and_no_task_needs_no_worker():
    assert [o.value for o in map_tasks(tools.threads, None, [0], workers=1)] == ["1"]
    assert list(map_tasks(tools.refuses, 0, [], workers=2)) == []


def test_a_value_that_cannot_be_pickled_is_a_failure():
    (results,) = map_tasks(tools.returns_code, None, [1], workers=1)
    assert "cannot be sent by the worker process" in results.error


def test_a_process_that_dies_while_it_starts_is_started_again(tmp_path):
    results = list(map_tasks(tools.dies_once_at_the_start, str(tmp_path / "marker"), range(3), workers=1))
    assert [(o.value, o.error) for o in results] == [(0, ""), (1, ""), (2, "")]


def test_processes_import_nothing_from_the_working_folder(tmp_path, monkeypatch):
    for name in ("ast", "yaml", "numpy", "pickle", "threading"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    (result,) = map_tasks(tools.search_path, None, [0], workers=1)
    assert not result.error
    assert "" not in result.value
    assert str(tmp_path) not in result.value
