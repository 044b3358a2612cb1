"""`hesse convert`."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from commands_in_process import succeed as run
from hesse.datasets import Dataset, dataset_summary, read_dataset, write_dataset
from hesse.errors import FileFormatError, InconsistentLabelsError, LabelValueError, RequestError, UnitError
from oracles import Morse, labeled, molecules


@pytest.fixture(scope="module")
def data() -> Dataset:
    return labeled(Morse(), molecules([4, 5, 6], group="m"), probes=2, hessian=True)


def test_conversion_and_back(tmp_path: Path, data: Dataset) -> None:
    write_dataset(tmp_path / "a.h5", data)
    done = run("convert", tmp_path / "a.h5", tmp_path / "b.extxyz", "--level", "Morse", "--tag", "hot")
    assert "Hessians agree with the forces" in done.stderr
    assert done.stdout == ""
    quiet = run("convert", tmp_path / "b.extxyz", tmp_path / "c.h5", "--quiet", "--limit", 2)
    assert quiet.output == ""
    back = read_dataset(tmp_path / "c.h5")
    assert len(back) == 2
    assert back.metadata["level"] == "Morse"
    assert back.structures[0].tag == "hot"
    torch.testing.assert_close(back.labels.hessian_of(1), data.labels.hessian_of(1), rtol=0, atol=0)


def test_gradients_are_refused_until_negated(tmp_path: Path, data: Dataset) -> None:
    assert data.labels.forces is not None
    wrong = replace(data, labels=data.labels.replace(forces=-data.labels.forces))
    write_dataset(tmp_path / "wrong.extxyz", wrong)
    target = tmp_path / "out.h5"
    with pytest.raises(InconsistentLabelsError, match=r"wrong\.extxyz.*--negate-forces"):
        run("convert", tmp_path / "wrong.extxyz", target)
    assert not target.exists()
    run("convert", tmp_path / "wrong.extxyz", target, "--negate-forces")
    assert read_dataset(target).content_hash() == data.content_hash()
    run("convert", tmp_path / "wrong.extxyz", target, "--no-check", "--overwrite")


def test_an_existing_file_is_replaced_on_request_only(tmp_path: Path, data: Dataset) -> None:
    write_dataset(tmp_path / "a.h5", data)
    (tmp_path / "b.extxyz").write_text("something else\n")
    with pytest.raises(RequestError, match=r"b\.extxyz exists already.*--overwrite"):
        run("convert", tmp_path / "a.h5", tmp_path / "b.extxyz")
    assert (tmp_path / "b.extxyz").read_text() == "something else\n"
    run("convert", tmp_path / "a.h5", tmp_path / "b.extxyz", "--overwrite")
    assert len(read_dataset(tmp_path / "b.extxyz")) == len(data)
    with pytest.raises(RequestError, match="this is an input"):
        run("convert", tmp_path / "a.h5", tmp_path / "a.h5", "--overwrite")


def test_symmetrize(tmp_path: Path, data: Dataset) -> None:
    noisy = data.labels.hessian
    assert noisy is not None
    noisy = noisy + 1e-3 * torch.randn(noisy.shape, dtype=noisy.dtype)
    write_dataset(tmp_path / "a.h5", replace(data, labels=data.labels.replace(hessian=noisy)))
    run("convert", tmp_path / "a.h5", tmp_path / "b.h5", "--symmetrize")
    h = read_dataset(tmp_path / "b.h5").labels.hessian_of(2).reshape(18, 18)
    torch.testing.assert_close(h, h.T)


def test_wrong_requests(tmp_path: Path, data: Dataset) -> None:
    with pytest.raises(FileFormatError, match="no such file"):
        run("convert", tmp_path / "none.h5", tmp_path / "b.h5")
    with pytest.raises(FileFormatError, match=r"written as \.h5"):  # before anything is read
        run("convert", tmp_path / "none.h5", tmp_path / "b.csv")
    write_dataset(tmp_path / "a.h5", data)
    with pytest.raises(RequestError, match="no folder"):
        run("convert", tmp_path / "a.h5", tmp_path / "missing" / "b.h5")
    (tmp_path / "a.npz").touch()
    with pytest.raises(UnitError, match="--energy-unit"):
        run("info", tmp_path / "a.npz")
    assert data.labels.energy is not None
    nan = replace(data, labels=data.labels.replace(energy=data.labels.energy * math.nan))
    write_dataset(tmp_path / "nan.h5", nan)
    with pytest.raises(LabelValueError, match="energy holds NaN"):
        run("convert", tmp_path / "nan.h5", tmp_path / "b.h5")


@pytest.mark.slow
def test_exit_code_of_the_program(tmp_path: Path, data: Dataset) -> None:
    (tmp_path / "cut.xyz").write_text("3\nwater\nO 0 0 0\n")
    done = subprocess.run(
        [sys.executable, "-m", "hesse", "convert", "cut.xyz", "b.h5"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "FileFormatError: cut.xyz: frame 0 (line 1) is cut off" in done.stderr
    assert "Traceback" not in done.stderr


def test_published_data(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "horm_sample" / "horm_sample_dev.npz"
    if not source.is_file():
        pytest.skip("no HORM sample")
    target = tmp_path / "horm.h5"
    with pytest.raises(UnitError):
        run("convert", source, target)
    run("convert", source, target, "--energy-unit", "eV", "--length-unit", "angstrom", "--symmetrize")
    card = dataset_summary(read_dataset(target))
    # As its own description says: 78 structures of 42 formulas, 8 to 21 atoms, 30 with negative curvature.
    assert (card["structures"], card["groups"]) == (78, 42)
    assert (card["atoms_per_structure"]["smallest"], card["atoms_per_structure"]["largest"]) == (8, 21)
    assert card["curvature"]["structures_with_negative_curvature"] == 30
