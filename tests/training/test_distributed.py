"""Several processes give the numbers of one process up to rounding."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from shared_runs import RUNS, CustomPotential, mixed_data, one_run, weights_of
from tiny_run import OPTIONS, record, tensors, validation_data

from commands_in_process import exit_code
from hesse.datasets import write_dataset
from hesse.errors import ConfigError, ProcessLostError
from hesse.training.config_file import load_config, run_from_config
from hesse.training.distributed import Communicator, init_distributed
from hesse.training.launcher import launch
from hesse.training.rank_info import RankInfo, rank_from_environment

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("shared_runs.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ALONE = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")} | {"OMP_NUM_THREADS": "1"}


# --- rank from the environment ---------------------------------------------------------------------------------------


def test_a_single_process_has_no_rank() -> None:
    assert rank_from_environment({}) is None
    assert rank_from_environment({"RANK": "0", "WORLD_SIZE": "1"}) is None
    batch_script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_NODELIST": "n[1-2]"}
    assert rank_from_environment(batch_script) is None  # commands of the script itself, without srun


def test_the_environment_of_torchrun() -> None:
    environment = {
        "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "n1",
        "MASTER_PORT": "29500", "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "2",
    }  # fmt: skip
    assert rank_from_environment(environment) == RankInfo(
        5, 8, 1, 4, "n1", 29500, external_store=True, restart_count="2"
    )
    plain = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "n1", "MASTER_PORT": "1"}
    assert rank_from_environment(plain) == RankInfo(1, 2, 1, None, "n1", 1)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu07", "gpu07"), ("gpu[03-07,12],big1", "gpu03"), ("a-1,a-2", "a-1"), ("n[8,11]-ib", "n8-ib")],
)
def test_the_environment_of_srun(nodes: str, first: str) -> None:
    environment = {
        "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "3", "SLURM_STEP_NODELIST": nodes,
        "SLURM_JOB_ID": "1234567",
    }  # fmt: skip
    assert rank_from_environment(environment) == RankInfo(3, 8, 3, None, first, 34567)
    explicit = rank_from_environment({**environment, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"})
    assert explicit is not None
    assert (explicit.address, explicit.port) == ("10.0.0.1", 29500)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "1", "WORLD_SIZE": "2"}, "MASTER_ADDR is not set"),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "n", "MASTER_PORT": "1"}, "process 2 of 2"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, 'RANK is set to "one"'),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, "SLURM_JOB_NODELIST is not set"),
    ],
)
def test_an_inconsistent_environment_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rank_from_environment(environment)


def test_devices_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Communicator().device("cpu") == Communicator(RankInfo(1, 2)).device("cpu") == "cpu"
    with pytest.raises(ConfigError, match="cannot be used here"):
        Communicator().device("abacus")
    with pytest.raises(ConfigError, match=r'cannot share it\. Use "cuda"'):
        Communicator(RankInfo(1, 2)).device("cuda:0")
    monkeypatch.setattr("hesse.training.distributed.device_from_name", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert Communicator(RankInfo(6, 8, 2, 4)).device("cuda") == "cuda:2"
    for info in (RankInfo(5, 8, 5, 8), RankInfo(5, 8, 5)):
        with pytest.raises(ConfigError, match="there are 4 on this machine"):
            Communicator(info).device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # a batch system may make one GPU visible to each task
    assert Communicator(RankInfo(6, 8, 2)).device("cuda") == "cuda:0"


# --- one process -----------------------------------------------------------------------------------------------------


def test_the_communicator_of_one_process() -> None:
    alone = Communicator()
    values = torch.tensor([1.0, 2.0])
    assert alone.is_rank_zero
    assert alone.all_reduce_sum(values) is values
    assert alone.all_reduce_sum_dict({"a": 1.0}) == {"a": 1.0}
    assert (alone.all_reduce_max(3), alone.run_on_rank_zero(lambda: 4)) == (3, 4)
    assert alone.partition([4, 2], [1] * 5) == [4, 2]
    assert alone.should_report(ValueError())
    alone.broadcast([values])
    alone.check_equal(1, "never")
    with init_distributed("cpu") as processes:
        assert processes.size == 1


# --- division of structures ------------------------------------------------------------------------------------------


@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=40), count=st.integers(2, 9), data=st.data())
def test_structures_are_divided_evenly(sizes: list[int], count: int, data: Any) -> None:
    indices = data.draw(st.permutations(range(len(sizes))))
    shares = [Communicator(RankInfo(rank, count)).partition(indices, sizes) for rank in range(count)]
    assert sorted(i for share in shares for i in share) == sorted(indices)
    for share in shares:
        assert share == [i for i in indices if i in share]  # in the order of the batch
    loads = [sum(sizes[i] for i in share) for share in shares]
    assert max(loads) - min(loads) <= max(sizes)


# --- two processes, many runs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the results of all `RUNS` in two processes, which torchrun starts once: all processes of pytest-xdist
    read the results of the first of them, for which the others wait."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of the session
    folder = base / "shared"
    with open(base / "shared.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
            folder.mkdir()
            command = [*TORCHRUN, str(SCRIPT), str(folder)]
            done = subprocess.run(command, env=ALONE, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
            (folder / "done").touch()
    return folder


def seen(folder: Path, rank: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"seen-{rank}.json").read_text())
    return content


def assert_same_numbers(one: Path, other: Path, tolerance: float) -> None:
    """The same rows in the same order; numbers are equal up to rounding, texts exactly."""
    for row, other_row in zip(record(one), record(other), strict=True):
        assert row.keys() == other_row.keys()
        numbers = {name for name, value in row.items() if not isinstance(value, str)}
        assert {k: v for k, v in other_row.items() if k not in numbers} == {
            k: v for k, v in row.items() if k not in numbers
        }
        expected = {k: row[k] for k in numbers}
        assert {k: other_row[k] for k in numbers} == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_give_the_numbers_of_one(shared: Path, tmp_path: Path, name: str) -> None:
    result = one_run(tmp_path, name)
    tolerance = 2e-4 if name == "float32" else 1e-10
    assert_same_numbers(tmp_path, shared / name, tolerance)
    one, two = tensors(tmp_path / "checkpoint.safetensors"), tensors(shared / name / "checkpoint.safetensors")
    assert one.keys() == two.keys()  # includes the parameters with a state of the optimizer
    for key in one:
        if "calls" not in key:  # a statistic of the structures of one process
            torch.testing.assert_close(two[key], one[key], rtol=100 * tolerance, atol=100 * tolerance, msg=key)
    for rank in (0, 1):
        seen_by_rank = seen(shared, rank)[name]
        assert seen_by_rank["weights"] == pytest.approx(weights_of(result), rel=100 * tolerance, abs=100 * tolerance)
        assert seen_by_rank["scores"] == pytest.approx(dict(result.scores), rel=100 * tolerance, abs=tolerance)
        assert seen_by_rank["steps"] == result.steps


@pytest.mark.long
def test_two_processes_stream_one_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [*TORCHRUN, str(SCRIPT), str(tmp_path), "streamed"], env=ALONE, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    result = one_run(tmp_path / "one", "streamed")
    assert_same_numbers(tmp_path / "one", tmp_path / "streamed", 1e-10)
    for rank in (0, 1):
        assert seen(tmp_path, rank) == pytest.approx(weights_of(result), rel=1e-8, abs=1e-8)


def test_all_processes_have_bitwise_equal_results(shared: Path) -> None:
    first, second = seen(shared, 0), seen(shared, 1)
    for name in RUNS:
        assert first[name] == second[name], name


def test_some_steps_have_no_structure_for_a_process() -> None:
    """And the custom potential has parameters without gradient in some steps, which these runs test."""
    data = mixed_data()
    assert any(len(batch) == 1 for batch in data.batch_indices(2000, max_structures=3))
    oxygen = [any(z == 8 for z in s.numbers) for s in data.structures]
    assert any(oxygen)
    assert not all(oxygen)
    assert "idle" in dict(CustomPotential().named_parameters())


def test_the_communicator_of_two_processes(shared: Path) -> None:
    for rank in (0, 1):
        words = seen(shared, rank)["words"]
        assert words.pop("share") == [[0], [3, 2, 1]][rank]  # 10 atoms against 8 + 1 + 1
        assert words == {
            "sum": [3, 20],
            "named": {"both": 3.0, "only 0": 2.0, "only 1": 2.0},
            "largest": 5,
            "first": "from 0",
            "copied": [[True, True], [0.0, 0.0, 0.0]],
        }


def test_a_run_is_continued_with_another_number_of_processes(shared: Path, tmp_path: Path) -> None:
    """Two processes until one of them gets a signal, one process until it gets one, two to the end."""
    result = one_run(tmp_path, "mixed labels")
    assert_same_numbers(tmp_path, shared / "interrupted", 1e-10)
    for rank in (0, 1):
        messages, weights = seen(shared, rank)["interrupted"]
        for step, words in zip((6, 9), messages, strict=False):
            assert words == (
                f"InterruptedRunError: stopped by SIGTERM after step {step} of 12; the state is in "
                f"{shared / 'interrupted' / 'checkpoint.safetensors'}. The same command continues the run."
            )
        assert weights == pytest.approx(weights_of(result), rel=1e-9)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in (shared / "interrupted").iterdir()}


def test_errors_reach_all_processes(shared: Path) -> None:
    for rank in (0, 1):
        unwritable, different = seen(shared, rank)["refused"]
        assert unwritable.startswith("WriteError: cannot write")
        assert different == "RequestError: the processes of this job were given different configurations or data"


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "train.h5", mixed_data())
    write_dataset(tmp_path / "judge.h5", validation_data())
    path = tmp_path / "run.yaml"
    files = {"train": "train.h5", "validation": "judge.h5"}
    path.write_text(
        yaml.safe_dump(
            {**OPTIONS, "steps": 60, "validate_every": 7, "checkpoint_every": 1, "data": files, "output": "out"}
        )
    )
    return path


def command(path: Path, *words: str, devices: int = 1) -> list[str]:
    several = ["--devices", str(devices)] if devices > 1 else []
    return [sys.executable, "-m", "hesse", "train", str(path), "--quiet", *several, *words]


def steps_done(folder: Path) -> int:
    log = folder / "metrics.jsonl"
    return log.read_bytes().count(b'"kind": "train"') if log.exists() else 0


def started(path: Path, *words: str, steps: int) -> subprocess.Popen[str]:
    """Start two processes; returns when their record has this number of steps."""
    process = subprocess.Popen(
        command(path, *words, devices=2), env=ALONE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while steps_done(path.parent / "out") < steps and process.poll() is None:
        time.sleep(0.01)
    return process


def children(process: subprocess.Popen[str]) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    except OSError:
        pytest.skip("this system does not list the children of a process")


def assert_killed(path: Path, process: subprocess.Popen[str], rank: int) -> None:
    """Kill one process; the job ends soon, with one message, and all processes exit."""
    victims = children(process)
    os.kill(victims[rank], signal.SIGKILL)
    begin = time.monotonic()
    out, errors = process.communicate(timeout=240)
    assert time.monotonic() - begin < 60  # not the half hour of torch.distributed
    assert (process.returncode, out) == (ProcessLostError.exit_code, "")
    assert errors == (
        f"ProcessLostError: process {rank} of 2 (pid {victims[rank]}) was killed by signal 9 (SIGKILL). The last saved "
        f"state is in {path.parent / 'out' / 'checkpoint.safetensors'}; the same command continues the run.\n"
    )
    assert not any(Path(f"/proc/{pid}").exists() for pid in victims)
    steps = [row["step"] for row in record(path.parent / "out") if row["kind"] == "train"]
    assert steps == list(range(1, len(steps) + 1))


def test_a_job_with_a_killed_process_is_continued_by_one_process(path: Path, tmp_path: Path) -> None:
    assert_killed(path, started(path, steps=4), 1)
    run_from_config(load_config(path), quiet=True)
    run_from_config(load_config(path, [f"output={tmp_path / 'one'}"]), quiet=True)
    assert_same_numbers(tmp_path / "one", tmp_path / "out", 1e-9)


def test_a_process_without_any_structure_takes_part(path: Path, tmp_path: Path) -> None:
    """One training and one validation structure: the second process has neither, in no step and in no validation."""
    write_dataset(tmp_path / "train.h5", mixed_data().select([7]))
    write_dataset(tmp_path / "judge.h5", validation_data().select([0]))
    words = [w for w in command(path, "steps=8", devices=2) if w != "--quiet"]
    done = subprocess.run(words, env=ALONE, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "warning: 2 processes share steps of at most 1 structure: the others wait. Use --devices 1" in done.stderr
    run_from_config(load_config(path, ["steps=8", f"output={tmp_path / 'one'}"]), quiet=True)
    for folder in ("one", "out"):
        rows = [row for row in record(tmp_path / folder) if row["kind"] == "validation"]
        assert [row["step"] for row in rows] == [7, 8]
    one, two = (tensors(tmp_path / folder / "last.hesse") for folder in ("one", "out"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-9, atol=1e-12)


@pytest.mark.long
def test_a_run_of_one_process_is_continued_by_two(path: Path) -> None:
    process = subprocess.Popen(command(path), env=ALONE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while steps_done(path.parent / "out") < 4 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=240)
    last = subprocess.run(command(path, devices=2), env=ALONE, capture_output=True, text=True, timeout=240)
    assert (last.returncode, last.stderr) == (0, "")
    assert last.stdout.count("model.hesse: best of 60 steps") == 1


@pytest.mark.long
def test_a_killed_first_process_is_reported_too(path: Path) -> None:
    assert_killed(path, started(path, steps=4), 0)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("rank", [None, 1])
def test_an_interrupted_job_reports_once(path: Path, number: signal.Signals, rank: int | None) -> None:
    """Signals to the launcher or to one of its processes."""
    process = started(path, "steps=100000", steps=4)
    os.kill(process.pid if rank is None else children(process)[rank], number)
    out, errors = process.communicate(timeout=240)
    assert (process.returncode, out) == (1, "")
    assert errors.count("\n") == errors.count("InterruptedRunError") == 1
    assert f"stopped by {number.name} after step {record(path.parent / 'out')[-1]['step']} of" in errors


@pytest.mark.long
def test_processes_end_with_their_launcher(path: Path) -> None:
    process = started(path, "steps=100000", steps=3)
    orphans = children(process)
    process.kill()
    process.communicate(timeout=240)
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in orphans):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_invalid_requests_start_no_process(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for device, message in [
        ("cuda:1", r'cannot share it\. Use "cuda"'),
        ("cuda", r"there are \d+ on this machine, and --devices requests 99"),
        ("abacus", 'device "abacus" cannot be used here'),
    ]:
        with pytest.raises(ConfigError, match=message):
            launch([], 99, load_config(path, [f"device={device}"]))
    assert not (path.parent / "out").exists()
    for words, message in [
        (["--devices", "2", "steps=0"], "ConfigError"),
        (["--devices", "0"], "Invalid value for '--devices'"),
    ]:
        assert exit_code(monkeypatch, "train", str(path), *words) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setenv("RANK", "0")
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert exit_code(monkeypatch, "train", str(path), "--devices", "2") == 2
    assert "this is one of several already" in capsys.readouterr().err
    assert not (path.parent / "out").exists()


@pytest.mark.long
def test_torchrun_of_the_command(path: Path) -> None:
    done = subprocess.run(
        [*TORCHRUN, "-m", *command(path)[2:], "cpu_threads=1"], env=ALONE, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model.hesse: best of 60 steps") == 1


def tasks(path: Path, *words: str) -> list[subprocess.Popen[str]]:
    """Two tasks as srun would start them."""
    environment = {
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": str(os.getpid()),
    }  # fmt: skip
    return [
        subprocess.Popen(
            command(path, *words), env={**ALONE, **environment, "SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in "01"
    ]  # fmt: skip


@pytest.mark.long
def test_tasks_of_srun(path: Path) -> None:
    first, second = (task.communicate(timeout=240) for task in tasks(path))
    assert first[0].count("model.hesse: best of 60 steps") == 1
    assert (first[1], second) == ("", ("", ""))

    wrong = tasks(path, "seed=1")
    errors = [task.communicate(timeout=240)[1] for task in wrong]
    assert "".join(errors).count("FileFormatError") == 1  # by one of them
    assert [task.returncode for task in wrong] == [2, 2]


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_lost_task_of_srun_ends_the_other(path: Path, rank: int) -> None:
    """The cause is unknown; the other task reports the lost connection."""
    both = tasks(path, "steps=100000")
    while steps_done(path.parent / "out") < 4:
        time.sleep(0.01)
    both[rank].kill()
    both[rank].communicate(timeout=240)
    _, errors = both[1 - rank].communicate(timeout=240)
    assert both[1 - rank].returncode == 1
    last = errors.splitlines()[-1]  # PyTorch has complained of the lost connection before
    assert last.startswith("ProcessLostError: lost another process of this job: it ended, or cannot be reached (")
    assert "checkpoint.safetensors; the same command continues the run." in last
