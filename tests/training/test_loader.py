"""Batches of a run: from memory, or through a shuffle buffer from a file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import ORACLE, assert_same_run, config, validation_data
from torch import Tensor

from hesse.datasets import Dataset, StreamingDataset, open_dataset, read_dataset, write_dataset
from hesse.errors import ConfigError, FileFormatError, RequestError
from hesse.training import TrainConfig, train
from hesse.training.loader import TrainingLoader
from hesse.training.shuffle_buffer import ShuffleBuffer, required_labels
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
        epochs = [[run.tolist() for run in feed.epoch(e)] for e in (0, 1)]
        assert epochs == [[run.tolist() for run in other.epoch(e)] for e in (0, 1)]
        assert epochs[0] != epochs[1]
        for epoch in epochs:
            assert sorted(i for run in epoch for i in run) == list(range(90))
            assert max(map(len, epoch)) == 4
    source = ShuffleBuffer(streamed, choices, CUTOFF)
    far = [np.ptp(run) for e in range(5) for run in source.epoch(e) if len(run) == 4]
    assert np.mean(far) > 0.3 * 90  # batches mix parts of the file: 4 of 90 at random span 54 on average
    source.close()


def test_streamed_batches_are_those_in_memory(streamed: StreamingDataset, path: Path) -> None:
    """In the order of the epoch, from its start or its middle (as in a continued run), and through the next one."""
    choices = options(dtype="float32")
    plain = TrainingLoader(read_dataset(path), choices, CUTOFF)
    for start in (0, 11):
        with TrainingLoader(streamed, choices, CUTOFF) as feed:
            for epoch in (0, 1):
                for run in feed.epoch(epoch)[start if epoch == 0 else 0 :]:
                    for streamed_item, item in zip(*feed.load(run, 0), *plain.load(run, 0), strict=True):
                        assert_same_tensors(streamed_item, item)


def test_structures_of_several_buffers_are_refused(streamed: StreamingDataset) -> None:
    source = ShuffleBuffer(streamed, options(), CUTOFF)
    first, *_, last = source.epoch(0)
    with pytest.raises(RequestError, match=r"got structures of 2 buffers .* one batch at a time"):
        source.batch(np.concatenate([first, last]))
    source.close()


def test_reading_of_a_buffer_is_given_up(streamed: StreamingDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """`close`, and a step of another buffer, do not wait until all blocks of a buffer are read."""
    read, began, gate = [0], threading.Event(), threading.Event()
    original = StreamingDataset.packed

    def slow(self: StreamingDataset, *arguments: Any, **options: Any) -> Any:
        read[0] += 1
        began.set()
        gate.wait()
        return original(self, *arguments, **options)

    source = ShuffleBuffer(streamed, options(), CUTOFF)
    assert len(source._plan(0)[0][1]) > 1, "this test needs buffers of several blocks"
    monkeypatch.setattr(StreamingDataset, "packed", slow)
    source._prefetch((0, 1))
    began.wait()
    source._stop_reading.set()
    gate.set()
    source.close()
    assert read == [1]


def assert_same_tensors(one: Any, other: Any) -> None:
    assert vars(one).keys() == vars(other).keys()
    for name, a in vars(one).items():
        b = getattr(other, name)
        same = torch.equal(a.nan_to_num(1e9), b.nan_to_num(1e9)) if isinstance(a, Tensor) else a == b
        assert same, name


def trained(data: Any, folder: Path, **changes: Any) -> None:
    train(data, validation_data(), options(**changes), output=folder, quiet=True)


def test_the_same_losses_as_in_memory(
    streamed: StreamingDataset, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(streamed, tmp_path / "streamed")
    order = ShuffleBuffer(streamed, options(), CUTOFF)
    monkeypatch.setattr(TrainingLoader, "epoch", lambda self, epoch: order.epoch(epoch))
    trained(read_dataset(path), tmp_path / "memory")
    assert_same_run(tmp_path / "streamed", tmp_path / "memory")


class Stop(Exception):
    """An unexpected error."""


@pytest.mark.slow
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
    source = ShuffleBuffer(data, options(), CUTOFF)
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


def hessians_and_products(n: int) -> Dataset:
    """Hessians of the first half, two products of the second, energies and forces of the last structure only."""
    structures = molecules([2 + k % 5 for k in range(n)], seed=4)
    half = n // 2
    parts = [
        labeled(ORACLE, structures[:half], probes=0, hessian=True),
        labeled(ORACLE, structures[half:-1], probes=2),
        labeled(ORACLE, structures[-1:], probes=0),
    ]
    return parts[0] + parts[1] + parts[2]


@pytest.mark.parametrize("n_probes", [1, 3])
@pytest.mark.parametrize("streams", [False, True], ids=["memory", "file"])
def test_fresh_probes_beside_stored_products(n_probes: int, streams: bool, tmp_path: Path) -> None:
    """Structures with a Hessian get new probes in every step; the stored products of all others are used."""
    data: Any = hessians_and_products(90)
    labels = data.labels
    assert labels.hvp is not None
    if streams:
        write_dataset(tmp_path / "mixed.h5", data)
        data = open_dataset(tmp_path / "mixed.h5", memory_mib=LIMIT)
    choices = options(probe={"source": "fresh", "n_probes": n_probes}, batch={"structures": 8})
    seen = dict.fromkeys(("fresh", "stored", "none"), 0)
    with TrainingLoader(data, choices, CUTOFF) as feed:
        for run in feed.epoch(0):
            for _, item in feed.load(run, 3):
                assert item.hvp is not None
                assert item.probes is not None
                assert len(item.hvp) == n_probes
                mask = item.mask("hvp")
                for row, index in enumerate(run.tolist()):
                    atoms, source = item.atom_slice(row), labels.atom_slice(index)
                    if index < 45:
                        expected = torch.einsum("iajb,kjb->kia", labels.hessian_of(index), item.probes[:, atoms])
                        torch.testing.assert_close(item.hvp[:, atoms], expected)
                        assert bool(mask[:, row].all())
                        seen["fresh"] += 1
                    elif index < 89:
                        assert int(mask[:, row].sum()) == min(n_probes, 2)
                        for probe, product in zip(item.probes[:2, atoms], item.hvp[:2, atoms], strict=False):
                            which = [torch.equal(probe, p) for p in labels.probes[:, source]].index(True)
                            assert torch.equal(product, labels.hvp[which, source])
                        seen["stored"] += 1
                    else:
                        assert not bool(mask[:, row].any())
                        seen["none"] += 1
    assert seen == {"fresh": 45, "stored": 44, "none": 1}


def test_training_on_hessians_and_products_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both count in the loss of every step, and in the message about its terms."""
    data = hessians_and_products(12)
    weights = {"energy": 1.0, "forces": 1.0, "hvp": 1.0}
    choices = config(steps=2, probe={"source": "fresh"}, weights=weights, batch={"structures": 12})
    result = train(data, None, choices, output=tmp_path)
    assert "hvp 1 (11 of 12 structures)" in capsys.readouterr().err
    assert np.isfinite(result.training_terms["hvp"])


def test_only_required_labels_are_loaded() -> None:
    data = labeled(ORACLE, molecules([3, 4], seed=1), probes=1, hessian=True)
    stored = options(weights={"energy": 1.0, "forces": 0.0, "hvp": 0.1})
    assert required_labels(data, stored) == ("energy", "hvp", "weight")
    fresh = options(weights={"hvp": 0.1, "hessian": 0.1}, probe={"source": "fresh"})
    assert required_labels(data, fresh) == ("energy", "forces", "hessian", "weight")
    mixed = required_labels(hessians_and_products(6), fresh)
    assert mixed == ("energy", "forces", "hessian", "hvp", "weight")
    assert isinstance(data, Dataset)
    with TrainingLoader(data, options(), CUTOFF) as feed:
        [(_, labels)] = feed.load([1, 0], 0)
    assert labels.hessian is None
    assert labels.hvp is not None


def with_weights(data: Dataset, weights: list[float]) -> Dataset:
    return replace(data, labels=data.labels.replace(weight=torch.tensor(weights, dtype=torch.float64)))


@pytest.mark.parametrize("in_memory", [True, False])
def test_structures_are_drawn_by_weight(path: Path, tmp_path: Path, in_memory: bool) -> None:
    """Each structure weight / mean weight times an epoch, rounded up or down in each epoch (memory) or buffer, right on
    average; none of the weight zero; the weights do not act in the loss; the same epochs again."""
    weights = [0.0 if k < 20 else 0.2 * k for k in range(90)]
    write_dataset(tmp_path / "weighted.h5", with_weights(read_dataset(path), weights))
    data = open_dataset(tmp_path / "weighted.h5", memory_mib=None if in_memory else LIMIT)
    assert isinstance(data, Dataset) is in_memory
    choices = options(batch={"structures": 4, "draw": "by-weight"})
    expected, epochs = np.array(weights) / np.mean(weights), 60
    with TrainingLoader(data, choices, CUTOFF) as feed:
        batches = [feed.epoch(k) for k in range(epochs)]
        counts = np.array([np.bincount(np.concatenate(b), minlength=90) for b in batches])
        ((_, labels),) = feed.load(batches[-1][0], 0)
    assert labels.weight is None
    assert np.abs(counts - expected).max() < (1.0 if in_memory else 2.0)
    assert (counts[:, :20] == 0).all()
    # One offset decides each epoch (or buffer): the standard error of a mean of 60 is at most 0.5/sqrt(60) = 0.065.
    assert np.abs(counts.mean(0) - expected).max() < 5 * 0.065
    assert np.abs(counts.sum(1) - 90).max() <= (0 if in_memory else 10)
    with TrainingLoader(data, choices, CUTOFF) as feed:
        assert [b.tolist() for b in feed.epoch(3)] == [b.tolist() for b in batches[3]]


def test_without_weights_nothing_can_be_drawn_by_them(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch\.draw: by-weight needs weights"):
        trained(read_dataset(path), tmp_path, batch={"structures": 4, "draw": "by-weight"})
