"""Formats that can run code when loaded are refused, with an alternative."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from hesse.datasets import read_dataset
from hesse.errors import FileFormatError


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path("exploded").touch, ())


@pytest.mark.parametrize("name", ["a.pkl", "a.pickle", "a.pt", "a.pth", "a.ckpt", "a.lmdb", "a.aselmdb", "a.npy", "a"])
def test_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FileFormatError, match=r"not read.*np\.savez"):
        read_dataset(name)
    assert not Path("exploded").exists()


def test_a_folder_of_lmdb_and_an_archive_of_objects(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "data.mdb").touch()
    with pytest.raises(FileFormatError, match="this folder is an LMDB"):
        read_dataset(tmp_path / "set")
    np.savez(tmp_path / "o.npz", natoms=np.array([1]), z=np.array([{}], dtype=object), pos=np.zeros((1, 3)))
    with pytest.raises(FileFormatError, match="arrays of objects, which are pickles"):
        read_dataset(tmp_path / "o.npz", energy_unit="eV", length_unit="angstrom")


def test_the_suggested_export_works(tmp_path: Path) -> None:
    """The export named in the message, with two structures of different sizes."""
    h = np.arange(36.0 + 81.0)
    np.savez(
        tmp_path / "data.npz",
        natoms=np.array([2, 3]),
        z=np.array([1, 1, 8, 1, 1]),
        pos=np.arange(15.0).reshape(5, 3),
        energy=np.array([-1.0, -2.0]),
        forces=np.ones((5, 3)),
        hessian=h,
    )
    units = {"energy_unit": "eV", "length_unit": "angstrom"}
    back = read_dataset(tmp_path / "data.npz", check=False, **units)
    assert [s.numbers.tolist() for s in back.structures] == [[1, 1], [8, 1, 1]]
    np.testing.assert_array_equal(back.labels.hessian_of(1).numpy().ravel(), h[36:])
    assert back.labels.energy is not None
    assert back.labels.energy.tolist() == [-1.0, -2.0]
    for changes, words in (({"natoms": np.array([2, 4])}, "sums to 6"), ({"hessian": h[1:]}, "expected 117")):
        content = dict(np.load(tmp_path / "data.npz")) | changes
        np.savez(tmp_path / "bad.npz", **content)
        with pytest.raises((FileFormatError, Exception), match=words):
            read_dataset(tmp_path / "bad.npz", **units)
