"""Batches of a run: from memory, or through a shuffle buffer from a file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import ORACLE, assert_same_run, config, validation_data
from torch import Tensor

from hesse.datasets import Dataset, StreamingDataset, open_dataset, read_dataset, write_dataset
from hesse.errors import FileFormatError
from hesse.training import TrainConfig, train
from hesse.training.loader import BackgroundTask, InMemorySource, ShuffleBufferSource, TrainingLoader, required_labels
from oracles import labeled, molecules

LIMIT, CUTOFF = 0.12, 4.0


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("supply") / "train.h5"
    write_dataset(path, labeled(ORACLE, molecules([2 + k % 5 for k in range(90)], seed=4), probes=1))
    return path


@pytest.fixture
def streamed(path: Path) -> StreamingDataset:
    data = open_dataset(path, memory_mib=LIMIT)
    assert isinstance(data, StreamingDataset)
    return data


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [t for t in threading.enumerate() if t.name.startswith("hesse")] == []


def options(**changes: Any) -> TrainConfig:
    return config(**{"batch": {"structures": 4}, "steps": 14, **changes})


@pytest.mark.parametrize("size_window", [None, 3])
def test_an_epoch_through_the_shuffle_buffer(streamed: StreamingDataset, size_window: int | None) -> None:
    choices = options(batch={"structures": 4, "size_window": size_window})
    with TrainingLoader(streamed, choices, CUTOFF) as feed, TrainingLoader(streamed, choices, CUTOFF) as other:
        epochs = [list(feed.epoch(e)) for e in (0, 1)]
        assert epochs == [list(other.epoch(e)) for e in (0, 1)]
        assert epochs[0] != epochs[1]
        for epoch in epochs:
            assert sorted(i for run in epoch for i in run) == list(range(90))
            assert max(map(len, epoch)) == 4
    source = ShuffleBufferSource(streamed, choices, CUTOFF)
    far = [np.ptp(run) for e in range(5) for run in source.epoch(e) if len(run) == 4]
    assert np.mean(far) > 0.3 * 90  # batches mix parts of the file: 4 of 90 at random span 54 on average
    source.close()


def test_streamed_batches_are_those_in_memory(streamed: StreamingDataset, path: Path) -> None:
    """In the order of the epoch, from its start or its middle (as in a continued run), and through the next one."""
    choices = options(dtype="float32")
    plain = InMemorySource(read_dataset(path), choices, CUTOFF)
    for start in (0, 11):
        source = ShuffleBufferSource(streamed, choices, CUTOFF)
        for epoch in (0, 1):
            for run in source.epoch(epoch)[start if epoch == 0 else 0 :]:
                for streamed_item, item in zip(source.batch(run), plain.batch(run), strict=True):
                    assert_same_tensors(streamed_item, item)
        source.close()


def test_an_empty_batch_keeps_the_current_buffer(streamed: StreamingDataset) -> None:
    source = ShuffleBufferSource(streamed, options(), CUTOFF)
    source.batch(source.epoch(0)[-1])
    current = source._current
    batch, labels = source.batch([])
    assert len(batch) == len(labels) == len(batch.numbers) == 0
    assert source._current is current
    source.close()


def assert_same_tensors(one: Any, other: Any) -> None:
    for f in fields(one):
        a, b = getattr(one, f.name), getattr(other, f.name)
        same = torch.equal(a.nan_to_num(1e9), b.nan_to_num(1e9)) if isinstance(a, Tensor) else a == b
        assert same, f.name


def trained(data: Any, folder: Path, **changes: Any) -> None:
    train(data, validation_data(), options(**changes), output=folder, quiet=True)


def test_the_same_losses_as_in_memory(
    streamed: StreamingDataset, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(streamed, tmp_path / "streamed")
    order = ShuffleBufferSource(streamed, options(), CUTOFF)
    monkeypatch.setattr(InMemorySource, "epoch", lambda self, epoch: order.epoch(epoch))
    trained(read_dataset(path), tmp_path / "memory")
    assert_same_run(tmp_path / "streamed", tmp_path / "memory")


class Stop(Exception):
    """An unexpected error."""


def test_a_streamed_run_is_continued(
    streamed: StreamingDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(streamed, tmp_path / "through", steps=30)
    fetch, steps = TrainingLoader.load, [0]

    def stopping(self: TrainingLoader, *args: Any, **named: Any) -> Any:
        steps[0] += 1
        if steps[0] in (8, 17):
            raise Stop
        return fetch(self, *args, **named)

    monkeypatch.setattr(TrainingLoader, "load", stopping)
    for _ in range(2):
        with pytest.raises(Stop):
            trained(streamed, tmp_path / "halting", steps=30)
        assert [t for t in threading.enumerate() if t.name.startswith("hesse")] == []
    trained(streamed, tmp_path / "halting", steps=30)
    assert_same_run(tmp_path / "through", tmp_path / "halting")


def test_another_limit_is_another_run(streamed: StreamingDataset, path: Path, tmp_path: Path) -> None:
    trained(streamed, tmp_path)
    with pytest.raises(FileFormatError, match="another configuration or other data"):
        trained(open_dataset(path, memory_mib=1.1 * LIMIT), tmp_path)


def test_a_file_that_disappears_is_reported(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())
    data = open_dataset(copy, memory_mib=LIMIT)
    assert isinstance(data, StreamingDataset)
    source = ShuffleBufferSource(data, options(), CUTOFF)
    source.batch(source.epoch(0)[0])
    assert source._next is not None
    source._next[1].result()  # the second buffer is read, the third is not
    copy.unlink()

    def rest() -> None:
        for epoch in (0, 1):
            for run in source.epoch(epoch):
                source.batch(run)

    with pytest.raises(FileFormatError, match=r"copy\.h5: the file was changed or removed"):
        rest()
    source.close()


def test_runs_with_a_size_window_are_reproducible(path: Path, tmp_path: Path) -> None:
    data = read_dataset(path)
    for name in ("one", "two"):
        trained(data, tmp_path / name, batch={"structures": 4, "size_window": 2})
    assert_same_run(tmp_path / "one", tmp_path / "two")


def test_only_required_labels_are_loaded() -> None:
    assert required_labels(options(weights={"energy": 1.0, "forces": 0.0, "hvp": 0.1})) == ("energy", "hvp")
    fresh = options(weights={"hvp": 0.1, "hessian": 0.1}, probe={"source": "fresh"})
    assert required_labels(fresh) == ("energy", "forces", "hessian")
    data = labeled(ORACLE, molecules([3, 4], seed=1), probes=1, hessian=True)
    assert isinstance(data, Dataset)
    with TrainingLoader(data, options(), CUTOFF) as feed:
        [(_, labels)] = feed.load([1, 0], 0)
    assert labels.hessian is None
    assert labels.hvp is not None


def test_background_tasks() -> None:
    assert BackgroundTask(lambda _: 3, "hesse: test").result() == 3

    def fails(stopped: object) -> int:
        raise Stop

    failing = BackgroundTask(fails, "hesse: test")
    with pytest.raises(Stop):
        failing.result()
    begun = threading.Event()

    def endless(stopped: Any) -> int | None:
        begun.set()
        while not stopped():
            pass
        return None

    work = BackgroundTask(endless, "hesse: test")
    begun.wait()
    work.stop()
