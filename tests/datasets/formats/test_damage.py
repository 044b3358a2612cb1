"""Damaged files of every format give data or an error that names the file; never another exception or much memory."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from foreign_files import (
    checkpoint_text,
    damaged,
    engrad_text,
    gaussian_text,
    hess_text,
    known,
    orca_output,
    write_deepmd,
    write_openreact,
)
from hesse.datasets import Dataset, read_dataset, write_dataset
from hesse.errors import HesseError


def _text(make: Callable[[Dataset], str], name: str) -> Callable[[Path, Dataset], Path]:
    def write(folder: Path, data: Dataset) -> Path:
        (folder / name).write_text(make(data))
        return folder / name

    return write


def _grouped(folder: Path, data: Dataset) -> Path:
    write_openreact(folder / "a.h5", data)
    return folder / "a.h5"


def _vibrations(folder: Path, data: Dataset) -> Path:
    write_dataset(folder / "a.json", data.select([0]))
    return folder / "a.json"


def _beside(folder: Path, data: Dataset) -> Path:
    (folder / "a.hess").write_text(hess_text(data))
    (folder / "a.engrad").write_text(engrad_text(data))
    return folder / "a.engrad"


def _constants(folder: Path, data: Dataset) -> Path:
    n = len(data.structures[0])
    blocks = data.labels.hessian_of(0).numpy().transpose(0, 2, 1, 3)
    lines = [f"{n} {n}"]
    for i in range(n):
        for j in range(n):
            lines += [f"{i + 1} {j + 1}", *(" ".join(f"{v:.15f}" for v in row) for row in blocks[i, j])]
    (folder / "FORCE_CONSTANTS").write_text("\n".join(lines))
    cell = ["Hesse", "1.0", "9 0 0", "0 9 0", "0 0 9", "H", str(n), "Cartesian"]
    cell += [" ".join(str(c) for c in x) for x in data.structures[0].positions.tolist()]
    (folder / "SPOSCAR").write_text("\n".join(cell) + "\n")
    return folder / "FORCE_CONSTANTS"


KINDS: dict[str, Callable[[Path, Dataset], Path]] = {
    "gaussian": _text(gaussian_text, "a.log"),
    "checkpoint": _text(checkpoint_text, "a.fchk"),
    "orca": _text(orca_output, "a.out"),
    "hess": _text(hess_text, "a.hess"),
    "engrad": _beside,
    "grouped": _grouped,
    "vibrations": _vibrations,
    "phonopy": _constants,
}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return known((3, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_give_an_error_or_data(tmp_path: Path, data: Dataset, kind: str) -> None:
    file = KINDS[kind](tmp_path, data)
    path = file if kind != "engrad" else tmp_path / "a.hess"
    original = file.read_bytes()
    assert len(read_dataset(path, check=False)) >= 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    failed = 0
    for content in damaged(original, seed=len(kind), count=12):
        file.write_bytes(content)
        try:
            read_dataset(path)
        except HesseError as error:
            failed += 1
            assert str(tmp_path) in str(error)  # noqa: PT017
    assert failed > 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    file.write_bytes(original)
    assert len(read_dataset(path, check=False)) >= 1


@pytest.mark.parametrize("name", ["coord", "hessian", "type.raw"])
def test_damaged_deepmd(tmp_path: Path, data: Dataset, name: str) -> None:
    write_deepmd(tmp_path, data)
    system = tmp_path / "system0"
    file = system / name if name == "type.raw" else system / "set.000" / f"{name}.npy"
    for content in damaged(file.read_bytes(), seed=1, count=12):
        file.write_bytes(content)
        try:
            read_dataset(tmp_path)
        except HesseError as error:
            assert str(tmp_path) in str(error)  # noqa: PT017
    # A header that declares a terabyte.
    huge = np.lib.format.header_data_from_array_1_0(np.zeros(1))
    huge["shape"] = (1, 10**11)
    with open(system / "set.000" / "coord.npy", "wb") as handle:
        np.lib.format.write_array_header_1_0(handle, huge)
    with pytest.raises(HesseError, match=r"coord\.npy|type"):
        read_dataset(tmp_path)
