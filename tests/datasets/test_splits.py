"""Splits, stored as ids."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hesse.datasets import Dataset, Split
from hesse.errors import FileFormatError, RequestError
from oracles import Morse, labeled, molecules


@pytest.fixture(scope="module")
def data() -> Dataset:
    return labeled(Morse(), molecules([3] * 20))


def test_round_trip(tmp_path: Path, data: Dataset) -> None:
    split = Split.from_dataset(data, train=0.8, test=0.2)
    assert [len(ids) for ids in split.parts.values()] == [16, 4]
    split.write(tmp_path / "split.json")
    assert Split.read(tmp_path / "split.json") == split
    parts = split.apply(data)
    assert parts["test"].content_hash() == data.split(0.8, 0.2)[1].content_hash()
    assert Split.from_dataset(data, **parts).parts == split.parts


def test_a_split_is_valid_for_its_data_only(data: Dataset) -> None:
    split = Split.from_dataset(data, train=0.5, test=0.5)
    changed = replace(data, labels=data.labels.map_tensors(lambda x: x + 1))
    with pytest.raises(RequestError, match="not the data that were split"):
        split.apply(changed)
    # The split stays valid when the file is reordered or labels are added.
    turned = data.select(torch.arange(19, -1, -1))
    ids = [s.id for s in split.apply(turned, same_data=False)["train"].structures]
    assert ids == list(split.parts["train"])
    with pytest.raises(RequestError, match="no structure"):
        split.apply(data.select([0, 1]), same_data=False)


def test_parts_do_not_overlap(data: Dataset) -> None:
    with pytest.raises(RequestError, match='"a" is in train and in test'):
        Split({"train": ("a", "b"), "test": ("a",)})
    with pytest.raises(RequestError, match="not of both"):
        Split.from_dataset(data, train=0.5, test=data)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("[1, 2]", "not a split"),
        ('{"format": "hesse-split", "version": 2}', "version 2"),
        ('{"format": "hesse-split", "version": 1, "data_hash": ""}', "lists of ids"),
        ('{"format": "hesse-split", "version": 1, "data_hash": "", "parts": {"train": [1]}}', "lists of ids"),
        ("[" * 100000, "cannot be read"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(FileFormatError, match=words) as caught:
        Split.read(tmp_path / "split.json")
    assert "split.json" in str(caught.value)
    with pytest.raises(FileFormatError, match="no such file"):
        Split.read(tmp_path / "none.json")


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    Split({"train": ("größe",)}, "abc").write(tmp_path / "s.json")
    record = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert record == {"format": "hesse-split", "version": 1, "data_hash": "abc", "parts": {"train": ["größe"]}}
