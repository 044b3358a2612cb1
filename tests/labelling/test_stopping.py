"""Campaigns continue after their workers, schedulers and drivers are really killed, here and on a cluster."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from pathlib import Path

import pytest
from campaign_program import COUNT, SLOW, campaign

import oracles
from forked_processes import ForkedProcess
from hesse.datasets import read_dataset
from hesse.engines import make_engine
from hesse.labelling import label, ledger_path
from loopback_cluster import alive, children_of, cluster, state, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc"),
]


def start_campaign(output: Path, *scheduler: str) -> ForkedProcess:
    """Two processes, forty structures, some 0.1 s each."""
    return ForkedProcess(campaign, str(output), *scheduler, folder=output.parent)


def wait_for_answers(driver: ForkedProcess, output: Path, count: int) -> None:
    """Wait until the ledger of a running campaign has this number of results."""

    def enough() -> bool:
        assert driver.poll() is None, driver.communicate()
        return count_done(output) >= count

    wait_for(enough)


def kill_during_a_label(worker: int, marks: Path) -> None:
    """Kill a worker process while it computes a label: it is halted, and goes on if it was between two of them. (Killed
    between two labels it loses none; killed before it has started it ends the campaign, by design.)"""

    def caught() -> bool:
        os.kill(worker, signal.SIGSTOP)
        wait_for(lambda: state(worker) == "T")
        if (marks / str(worker)).exists():
            return True
        os.kill(worker, signal.SIGCONT)
        return False

    wait_for(caught)
    os.kill(worker, signal.SIGKILL)


def count_done(output: Path) -> int:
    """Number of structures with results in the ledger."""
    if not ledger_path(output).exists():
        return 0
    connection = sqlite3.connect(ledger_path(output), timeout=5.0)
    try:
        return connection.execute("SELECT count(*) FROM attempts WHERE reason = ''").fetchone()[0]
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


def test_killed_and_stopped_campaigns_continue(tmp_path, monkeypatch):
    """kill -9 of a worker, then of the driver, then SIGTERM, then to the end: no record is lost or computed twice, no
    worker is left."""
    output, marks = tmp_path / "out.h5", tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("CALCULATING", str(marks))
    killed = start_campaign(output)
    wait_for_answers(killed, output, 4)
    workers = children_of(killed.pid)
    assert len(workers) == 2
    kill_during_a_label(workers[0], marks)
    wait_for_answers(killed, output, 12)
    workers = children_of(killed.pid)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    wait_for(lambda: not any(alive(w) for w in workers), 60.0)
    first = count_done(output)
    assert first >= 12
    assert not output.exists()

    stopped = start_campaign(output)
    wait_for_answers(stopped, output, first + 4)
    stopped.send_signal(signal.SIGTERM)
    out, err = stopped.communicate(timeout=240)
    second = count_done(output)
    assert stopped.returncode == 1, err
    # One structure has failed: the killed worker had it.
    assert out.startswith(f"InterruptedRunError stopped after {second + 1} of {COUNT} structures")
    assert "the same command continues" in out
    assert first + 4 <= second < COUNT

    # The rest in this process: where the work is done does not matter.
    structures = [oracles.molecule(3, k) for k in range(COUNT)]
    report = label(structures, make_engine(SLOW), output, workers=0, quiet=True)
    assert report.n_reused == second + 1
    (lost,) = report.failures
    assert "SIGKILL" in lost.reason
    report = label(structures, make_engine(SLOW), output, workers=0, retry_failed=True, quiet=True)
    assert (report.n_reused, report.failures) == (COUNT - 1, ())
    assert [s.id for s in read_dataset(output).structures] == [s.id for s in structures]


def test_a_campaign_on_a_cluster_survives_every_kill(tmp_path):
    """kill -9 of a dask worker, of the scheduler (the driver exits with a message and code 1), of the driver; then to
    the end. At most running tasks are computed twice, and nothing fails."""
    pytest.importorskip("distributed")
    output = tmp_path / "out.h5"
    with cluster(tmp_path) as made:
        first_worker = made.start_worker()
        driver = start_campaign(output, made.address)
        wait_for_answers(driver, output, 4)
        (dask_worker,) = [p for p in children_of(first_worker.pid) if children_of(p)]
        os.kill(dask_worker, signal.SIGKILL)
        wait_for_answers(driver, output, 12)
        made.scheduler.kill()
        out, err = driver.communicate(timeout=240)
        assert driver.returncode == 1, (out, err)
        done = count_done(output)
        assert out.startswith(f"ExecutionError lost the scheduler at {made.address}")
        assert f"stopped after {done} of {COUNT} structures, all safe in" in out
        assert out.endswith("the same command continues\n")
        assert err == ""

        made.start_scheduler()
        second_worker = made.start_worker()
        driver = start_campaign(output, str(made.file))
        wait_for_answers(driver, output, done + 4)
        driver.send_signal(signal.SIGKILL)
        driver.communicate()
        assert second_worker.poll() is None
    before = count_done(output)
    structures = [oracles.molecule(3, k) for k in range(COUNT)]
    report = label(structures, make_engine(SLOW), output, workers=0, quiet=True)
    assert (report.n_reused, report.failures) == (before, ())
    assert [s.id for s in read_dataset(output).structures] == [s.id for s in structures]
