"""Tasks on a dask cluster behave like tasks in local processes; workers, schedulers and drivers are really killed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

import pytest

import worker_tasks as tools
from hesse.errors import ConfigError, EngineError, ExecutionError, FileFormatError, RequestError
from hesse.runtime.parallel import dask, map_tasks
from loopback_cluster import Cluster, alive, children_of, cluster, wait_for

pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc"),
]


@pytest.fixture(scope="module")
def loopback(tmp_path_factory):
    """A scheduler that gives up a task after two lost workers, and a worker of two threads."""
    folder = tmp_path_factory.mktemp("cluster")
    with cluster(folder, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1") as made:
        made.start_worker()
        yield made


def outcomes(tasks, loopback: Cluster, work=tools.doubling, spec=1, **options):
    results = list(map_tasks(work, spec, tasks, scheduler=loopback.address, **options))
    assert sorted(o.index for o in results) == list(range(len(tasks)))
    return sorted(results, key=lambda o: o.index)


def test_crashes_errors_and_timeouts_fail_only_their_own_task(loopback, capfd):
    tasks = [*range(8), 66, *range(20, 26), 77, 13, 14, 88, 30, 66]
    results = outcomes(tasks, loopback, timeout=2.0)
    assert [tasks[o.index] for o in results if o.failed] == [66, 77, 13, 14, 88, 66]
    assert "SIGKILL" in results[8].error
    assert "exit code 5" in results[15].error
    assert results[16].error == "EngineError: unlucky"
    assert results[17].error == "unexpected KeyError: 'odd'"
    assert "timeout" in results[18].error
    assert all(o.value == 2 * tasks[o.index] + 1 for o in results if not o.failed)
    assert capfd.readouterr().out == ""


def test_worker_processes_run_one_thread_in_the_folder_of_the_driver(loopback, tmp_path):
    assert {o.value for o in outcomes([0] * 4, loopback, tools.threads, None)} == {"1"}
    with contextlib.chdir(tmp_path):
        assert {o.value for o in outcomes([0] * 4, loopback, tools.folder, None)} == {str(tmp_path)}
    (code,) = outcomes([1], loopback, tools.returns_code, None)
    assert "cannot be sent by the worker process" in code.error


def test_an_error_in_make_worker_is_raised(loopback):
    with pytest.raises(EngineError, match="no such engine"):
        outcomes([1, 2], loopback, tools.refuses, 0)
    with pytest.raises(ExecutionError, match=r"could not start.*exit code 9"):
        outcomes([1, 2], loopback, tools.dies, 0)


def test_tasks_wait_in_the_driver_and_closing_ends_running_tasks(loopback):
    drawn = []

    def tasks():
        for k in range(100_000):
            drawn.append(k)
            yield k

    running = map_tasks(tools.parent, 0.05, tasks(), scheduler=str(loopback.file))
    worker = next(running).value
    assert len(drawn) < 20
    wait_for(lambda: len(children_of(worker)) == 2)
    processes = children_of(worker)
    start = time.monotonic()
    running.close()
    wait_for(lambda: not any(map(alive, processes)), 5.0)
    assert time.monotonic() - start < 5.0


def test_tasks_of_a_lost_worker_are_done_by_others(loopback):
    running = map_tasks(tools.parent, 0.05, range(30), scheduler=loopback.address)
    first = next(running)
    processes = children_of(first.value)
    os.kill(first.value, signal.SIGKILL)
    rest = list(running)
    assert sorted(o.index for o in [first, *rest]) == list(range(30))
    assert not any(o.failed for o in rest)
    assert rest[-1].value != first.value
    wait_for(lambda: not any(map(alive, processes)), 10.0)


def test_a_task_that_kills_its_dask_worker_fails(loopback):
    """Tasks beside it are lost with it, more than once, and are done in the end."""
    results = outcomes([99, 1, 2], loopback, tools.parent, 0.1)
    assert results[0].error == "4 workers of the cluster were lost while they had this task"
    assert not results[1].failed
    assert not results[2].failed


def test_workers_with_another_version_are_refused(tmp_path):
    foreign = tmp_path / "hesse"
    foreign.mkdir()
    (foreign / "__init__.py").write_text('__version__ = "9.9"\n')
    with cluster(tmp_path) as made:
        made.start_worker(PYTHONPATH=str(tmp_path))
        messages = []
        with pytest.raises(RequestError, match=r"worker of the cluster runs Hesse 9\.9.*this program Hesse"):
            list(map_tasks(tools.doubling, 1, [1], scheduler=made.address, on_message=messages.append))
        assert all("has no worker" in item for item in messages)


def test_a_lost_scheduler_is_reported(tmp_path, monkeypatch, capfd):
    with cluster(tmp_path) as made:
        made.start_worker()
        running = map_tasks(tools.doubling, 1, [1, 88, 88, 88], scheduler=str(made.file))
        assert next(running).value == 3
        made.scheduler.kill()
        with pytest.raises(ExecutionError, match="lost the scheduler at tcp"):
            list(running)
        monkeypatch.setattr(dask, "_CONNECT_TIMEOUT", 0.5)
        with pytest.raises(ExecutionError, match="no scheduler responds at tcp"):
            list(map_tasks(tools.doubling, 1, [1], scheduler=str(made.file)))
    assert capfd.readouterr().err == ""


def test_wrong_addresses(tmp_path):
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}")
    for scheduler, error, words in (
        ("nonsense", ConfigError, "neither the address of a scheduler"),
        ("htp://127.0.0.1:80", ConfigError, "unknown address scheme"),
        (str(wrong), FileFormatError, "not a scheduler file"),
    ):
        with pytest.raises(error, match=words):
            list(map_tasks(tools.doubling, 1, [1], scheduler=scheduler))
    assert list(map_tasks(tools.doubling, 1, [], scheduler="tcp://127.0.0.1:1")) == []
    with pytest.raises(ConfigError, match="not both"):
        list(map_tasks(tools.doubling, 1, [1], scheduler="tcp://127.0.0.1:1", workers=2))
