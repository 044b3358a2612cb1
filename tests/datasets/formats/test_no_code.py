"""No file that is read as data, settings or a model runs code, wherever it holds some."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreign_files import known, write_deepmd
from hesse.datasets import Split, read_dataset
from hesse.errors import HesseError
from hesse.models import load_model
from hesse.training import load_config

TAG = "!!python/object/apply:os.mkdir [ran]"


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("ran").mkdir, ())


def _objects() -> np.ndarray:
    return np.array([Bomb()], dtype=object)


def _deepmd(path: Path) -> None:
    write_deepmd(path, known((3,)))
    np.save(path / "system0" / "set.000" / "energy.npy", _objects(), allow_pickle=True)


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb()))


def _tagged(pack: Callable[[bytes], bytes] = bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(pack(f'phonopy: {{"version":{TAG}}}\n'.encode())) and None  # type: ignore[func-returns-value]


CASES: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "phonopy.yaml": (_tagged(), read_dataset),
    "phonopy.yaml.gz": (_tagged(gzip.compress), read_dataset),
    "phonopy.yaml.xz": (_tagged(lzma.compress), read_dataset),
    "phonopy_disp.yaml.bz2": (_tagged(bz2.compress), read_dataset),
    "train.yaml": (_tagged(), load_config),
    "override.yaml": (lambda path: path.write_text("steps: 1"), lambda path: load_config(path, [f"steps={TAG}"])),
    "objects.npz": (
        lambda path: np.savez(path, natoms=np.array([1]), z=_objects(), pos=np.zeros((1, 3))),
        lambda path: read_dataset(path, energy_unit="eV", length_unit="angstrom"),
    ),
    "system": (_deepmd, read_dataset),
    "a.hesse": (_pickle, load_model),
    "a.h5": (_pickle, read_dataset),
    "a.xyz": (_pickle, read_dataset),
    "a.traj": (_pickle, read_dataset),
    "a.db": (_pickle, read_dataset),
    "split.json": (
        lambda path: path.write_text(json.dumps({"py/reduce": [{"py/function": "os.mkdir"}, ["ran"]]})),
        Split.read,
    ),
    "a.json": (
        lambda path: path.write_text(json.dumps({"__ase_objtype__": "os.mkdir", "path": "ran"})),
        read_dataset,
    ),
    "b.xyz": (
        lambda path: path.write_text(
            "1\nProperties=species:S:1:pos:R:3 a=\"__import__('os').mkdir('ran')\"\nH 0 0 x\n"
        ),
        read_dataset,
    ),
    "a.cif": (lambda path: path.write_text("data_x\n_cell_length_a __import__('os').mkdir('ran')\n"), read_dataset),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_and_not_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "phonopy" in name:
        pytest.importorskip("phonopy", reason="needs phonopy")
    monkeypatch.chdir(tmp_path)
    write, read = CASES[name]
    write(Path(name))
    with pytest.raises(HesseError):
        read(Path(name))
    assert not Path("ran").exists()
