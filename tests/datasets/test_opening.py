"""Several files as one data set."""

from __future__ import annotations

from pathlib import Path

import pytest

import hesse
from hesse.datasets import Dataset, join_datasets, names_of_files, open_datasets, write_dataset
from hesse.datasets.opening import as_dataset_like, read_elements
from hesse.errors import FileFormatError, RequestError
from oracles import Morse, labeled, molecules


def data(n: int, seed: int = 0) -> Dataset:
    return labeled(Morse(), molecules([3] * n, seed=seed))


def test_structures_of_all_files_in_order(tmp_path: Path) -> None:
    one, two = data(3, 0), data(2, 1)
    write_dataset(tmp_path / "a.h5", one)
    write_dataset(tmp_path / "b.xyz", two)
    joined = open_datasets([tmp_path / "a.h5", str(tmp_path / "b.xyz")])
    expected, n_renamed = join_datasets([one, hesse.read_dataset(tmp_path / "b.xyz")], ["a", "b"])
    assert joined.ids == expected.ids
    assert joined.content_hash() == expected.content_hash()
    assert n_renamed == 0
    assert as_dataset_like([tmp_path / "a.h5", tmp_path / "b.xyz"]).content_hash() == joined.content_hash()


def test_repeated_ids_get_the_name_of_their_file(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write_dataset(tmp_path / folder / "a.h5", data(2))
    write_dataset(tmp_path / "c.h5", data(2))
    paths = [tmp_path / "x" / "a.h5", tmp_path / "y" / "a.h5", tmp_path / "c.h5"]
    joined = open_datasets(paths)
    names = names_of_files(paths)
    assert names == [str(paths[0]), str(paths[1]), "c"]
    first = data(1).ids[0]
    assert joined.ids[0] == f"{names[0]}/{first}"
    assert joined.ids[-2] == f"c/{first}"


def test_elements_are_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Hesse's own files only the atomic numbers are read; a damaged file is told."""
    dataset = data(3)
    expected = set(dataset.numbers.tolist())
    write_dataset(tmp_path / "a.xyz", dataset)
    write_dataset(tmp_path / "a.h5", dataset)
    assert read_elements(tmp_path / "a.xyz") == expected
    monkeypatch.setattr("hesse.datasets.opening.read_dataset", lambda *_, **__: pytest.fail("the whole file is read"))
    assert read_elements(tmp_path / "a.h5") == expected
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(FileFormatError, match=r"a\.h5"):
        read_elements(tmp_path / "a.h5")


def test_wrong_lists_get_a_reply(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a.h5", data(2))
    with pytest.raises(RequestError, match="empty list"):
        open_datasets([])
    with pytest.raises(RequestError, match=r"a\.h5 is given twice"):
        open_datasets([tmp_path / "a.h5", tmp_path / "." / "a.h5"])
    with pytest.raises(RequestError, match=r"none\.h5"):
        open_datasets([tmp_path / "a.h5", tmp_path / "none.h5"])


def test_several_files_are_not_streamed(tmp_path: Path) -> None:
    paths = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for k, path in enumerate(paths):
        write_dataset(path, data(40, seed=k))
    assert isinstance(open_datasets(paths, memory_mib=10.0), Dataset)
    for limit in (0.15, 0.08):  # each file fits alone, or not even that
        with pytest.raises(RequestError, match=r"hesse convert a\.h5 b\.h5 all\.h5"):
            open_datasets(paths, memory_mib=limit)
